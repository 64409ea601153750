"""The tokeniser without transformers is the one with transformers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_process import run_in_engine_environment

TEXTS = [
    "Hello, world!",
    " Grüße <b> 🦀🦀 \n\n\t日本語 العربية",
    "<|im_start|>system\nBe brief.<|im_end|> <|endoftext|>x",
    "",
    "def f(x):\n    return  x ** 2  # 12345 ½ e\u0301 \u200d",
    "<|im_end|>",
    "'s 're I'll DON'T \r\n\r\n  ",
]

Change = Callable[[Path], None]


def configure(**changes: Any) -> Change:
    """Change fields of ``tokenizer_config.json``."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def own_template_file(folder: Path) -> None:
    """A template beside ``tokenizer_config.json``, which has another."""
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}")


def more_template_files(folder: Path) -> None:
    """One for tools besides."""
    own_template_file(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools: {{ messages[0].content }}")


def special_tokens_map(folder: Path) -> None:
    """The older file that names special tokens."""
    said = {"cls_token": "<|endoftext|>", "sep_token": {"content": "<|im_end|>", "special": True}}
    (folder / "special_tokens_map.json").write_text(json.dumps(said))


NAMED_TEMPLATES = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
CHANGES: dict[str, Change] = {
    "as it is": lambda folder: None,
    "a beginning": configure(add_bos_token=True),
    "both ends": configure(add_bos_token=True, add_eos_token=True),
    "no ends": configure(add_bos_token=False, add_eos_token=False),
    "tokens as objects": configure(eos_token={"content": "<|im_end|>", "lstrip": False, "__type": "AddedToken"}),
    "a template file": own_template_file,
    "template files": more_template_files,
    "named templates": configure(chat_template=NAMED_TEMPLATES),
    "no default template": configure(chat_template=NAMED_TEMPLATES[1:]),
    "no template": configure(chat_template=None),
    "clean-up": configure(clean_up_tokenization_spaces=True),
    "special tokens map": special_tokens_map,
}


@pytest.fixture(scope="module")
def pairs(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The two codecs' answers for each variant of the demo model's tokeniser."""
    folders = []
    for number, change in enumerate(CHANGES.values()):
        folder = tmp_path_factory.mktemp(str(number))
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(model_folder / name, folder / name)
        change(folder)
        folders.append(str(folder))
    program = Path(__file__).parent / "tokenizer_reference.py"
    return dict(zip(CHANGES, run_in_engine_environment(program, *folders, given=TEXTS), strict=True))


@pytest.mark.parametrize("change", CHANGES)
def test_both_codecs_say_the_same(pairs: dict[str, Any], change: str) -> None:
    """Ids, texts, pieces, special tokens and chats; of whole texts and of any three tokens in a row."""
    theirs, ours = pairs[change]
    assert ours == theirs
