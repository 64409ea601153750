"""Run by the transformers engine's Python: what its codec and the one without transformers make of the same folders.

Usage: ``tokenizer_reference.py FOLDER...``, with a JSON list of texts on standard input. Prints one list for each
folder: the two codecs' answers, side by side.
"""

import json
import sys
from pathlib import Path

import transformers

from headrace_engines.serving.chat_prompt import ChatPrompt, render_chat
from headrace_engines.serving.codec import ChatRefused
from headrace_engines.serving.template_process import TemplateProcess
from headrace_engines.serving.tokenizer_file import TokenizerFile
from headrace_engines.transformers.tokenizer import HuggingFaceCodec

texts = json.load(sys.stdin)
templates = TemplateProcess()


def chat(codec, **options):
    """A rendered conversation, or why there is none."""
    messages = [{"role": "user", "content": text} for text in texts[:3]]
    try:
        return render_chat(codec, templates, ChatPrompt(messages=messages, **options))
    except ChatRefused:
        return "refused"


def answers(codec):
    """Everything that an engine asks of a codec."""
    encoded = [codec.encode(text, add_special_tokens=add) for text in texts for add in (True, False)]
    ids = list(range(400)) + [token_id for each in encoded for token_id in each]
    return {
        "encoded": encoded,
        "decoded": [codec.decode(each, skip_special_tokens=skip) for each in encoded for skip in (True, False)],
        "cut": [codec.decode(each[start : start + 3]) for each in encoded for start in range(len(each))],
        "pieces": [codec.piece(token_id) for token_id in ids] + [codec.piece(10_000_000)],
        "special tokens": dict(codec.special_tokens),
        "chats": [chat(codec), chat(codec, add_generation_prompt=False), chat(codec, tools=[])],
    }


pairs = []
for folder in sys.argv[1:]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    pairs.append([answers(HuggingFaceCodec(tokenizer)), answers(TokenizerFile(Path(folder)))])
print(json.dumps(pairs))
