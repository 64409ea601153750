"""`headrace doctor`: one fault, one code; a healthy folder, none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversion_folders import LLAMA_LAYER
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from written_pickles import saved, state, tensor, zipped

from headrace.cli.app import run
from headrace.runtimes import RUNTIMES, Environments
from headrace.runtimes.environments import MANIFEST
from headrace.weights import check
from headrace.weights.templates import Template, check_template

DEMO = Path(os.environ.get("HEADRACE_TEST_MODEL", "demo model"))
PICKLES = Path(__file__).with_name("fixtures_pickles")

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}"
    "{% endif %}"
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.first and system is defined %}"
    "{{ system }} {% endif %}{{ m.content }} [/INST]{% elif m.role == 'tool' %}[TOOL]{{ m.content }}[/TOOL]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 16,
    "vocab_size": 10,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "pad_token_id": -1,
}
TTM = {
    "architectures": ["TinyTimeMixerForPrediction"],
    "model_type": "tinytimemixer",
    "context_length": 512,
    "prediction_length": 96,
    "num_input_channels": 1,
    "d_model": 16,
}


def as_json(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value).encode()


def layer(prefix: str) -> dict[str, np.ndarray]:
    """The tensors of a llama's layer."""
    return {f"{prefix}.{name}.weight": np.zeros(shape, np.float16) for name, shape in LLAMA_LAYER.items()}


def tensors(rows: int = 10) -> dict[str, np.ndarray]:
    """Those of a whole tiny llama."""
    around = {
        "model.embed_tokens.weight": np.zeros((rows, 8), np.float16),
        "model.norm.weight": np.ones(8, np.float16),
    }
    return around | layer("model.layers.0")


def weights(rows: int = 10) -> bytes:
    """The same in a file."""
    return save(tensors(rows), metadata={"format": "pt"})


def tokenizer(size: int = 10, added: tuple[tuple[int, str], ...] = ((1, "<s>"), (2, "</s>")), **model: Any) -> bytes:
    """A tokenizer.json of so many tokens."""
    tokens = {"type": "BPE", "vocab": {f"t{number}": number for number in range(size)}, "merges": []} | model
    return as_json({"version": "1.0", "added_tokens": [{"id": i, "content": c} for i, c in added], "model": tokens})


def pieces(count: int) -> bytes:
    """A SentencePiece model of so many pieces."""
    piece = b"\x0a\x01a\x15\x00\x00\x00\x00\x18\x01"
    return b"".join(b"\x0a" + bytes([len(piece)]) + piece for _ in range(count)) + b"\x12\x02\x08\x01"


def healthy(template: Any = CHATML, **config: Any) -> dict[str, bytes]:
    """A small folder without a fault."""
    return {
        "config.json": as_json(CONFIG | config),
        "generation_config.json": as_json({"eos_token_id": 2}),
        "model.safetensors": weights(),
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": as_json({"chat_template": template, "bos_token": {"content": "<s>"}}),
    }


def without(*names: str) -> dict[str, bytes]:
    """The healthy folder without some files."""
    return {name: content for name, content in healthy().items() if name not in names}


def series(**config: Any) -> dict[str, bytes]:
    """A time-series model's folder."""
    patcher = {"backbone.encoder.patcher.weight": np.zeros((16, 64), np.float32)}
    return {
        "config.json": as_json(TTM | config),
        "tsfm_config.json": as_json({"model_type": "tinytimemixer", "context_length": 512}),
        "model.safetensors": save(patcher, metadata={"format": "pt"}),
    }


class Files:
    """A folder in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def sizes(self) -> dict[str, int]:
        """The length of every file."""
        return {name: len(content) for name, content in self.files.items()}

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """A slice of a file."""
        return self.files[name][start : start + length]


# --- healthy --------------------------------------------------------------------------------------------------------

HEALTHY = {
    "a llama": healthy(),
    "Mistral's turns without a header": healthy(MISTRAL),
    "templates by name": healthy([{"name": "default", "template": CHATML}, {"name": "tool_use", "template": CHATML}]),
    "a template in a file": without("tokenizer_config.json") | {"chat_template.jinja": CHATML.encode()},
    "an older processor's": without("tokenizer_config.json")
    | {"chat_template.json": as_json({"chat_template": CHATML})},
    "an older processor's, broken and not used": healthy()
    | {"chat_template.json": as_json({"chat_template": "{% for message in messages %}"})},
    "marks for training": healthy("{% generation %}{{ messages }}{% endgeneration %}"),
    "contents in parts only": healthy(
        "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{{ p['text'] }}{% endfor %};{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    ),
    "SentencePiece": without("tokenizer.json") | {"tokenizer.model": pieces(10)},
    "tiktoken's ranks": healthy() | {"tokenizer.model": b"IQ== 0\nIg== 1\n"},
    "unigram": healthy() | {"tokenizer.json": tokenizer(type="Unigram", vocab=[["a", 0.0]] * 10, unk_id=0)},
    "a tokenizer of an unknown kind": healthy() | {"tokenizer.json": as_json({"model": {"type": "Next", "vocab": 3}})},
    "a vocabulary in another file": healthy() | {"tokenizer.json": tokenizer(type="Unigram", vocab=None)},
    "fewer tokens than rows": healthy() | {"tokenizer.json": tokenizer(8)},
    "scripts that nobody asks for": healthy() | {"convert.py": b"import os"},
    "a training's state": healthy() | {"training_args.bin": b"cos\nsystem\n.", "optimizer.pt": b"cos\nsystem\n."},
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_folder_gives_no_finding(name: str) -> None:
    """What publishers write is not complained about."""
    assert check(Files(HEALTHY[name])) == []


@pytest.mark.skipif(not DEMO.is_dir(), reason="`make test` fetches it, before any folder")
def test_the_demo_model_gives_no_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """The model that quickstart serves is healthy, and the summary counts it."""
    assert run(["doctor", str(DEMO), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["findings"]) == (True, [])
    assert document["summary"]["parameters"] == 134_515_008
    assert document["summary"]["served_by"]["cpu"]["runtime"] == "openvino"


# --- one fault ------------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[dict[str, bytes], str, str]] = {
    "a vocabulary too large": (healthy() | {"tokenizer.json": tokenizer(12)}, "error", "TOKENIZER_MISMATCH"),
    "too many pieces": (without("tokenizer.json") | {"tokenizer.model": pieces(11)}, "error", "TOKENIZER_MISMATCH"),
    "an added token outside": (
        healthy() | {"tokenizer.json": tokenizer(10, ((10, "<image>"),))},
        "warning",
        "SPECIAL_TOKENS_OUTSIDE",
    ),
    "a padding id outside": (healthy(pad_token_id=10), "warning", "SPECIAL_TOKENS_OUTSIDE"),
    "an id of many digits": (healthy(eos_token_id=10**3000), "warning", "SPECIAL_TOKENS_OUTSIDE"),
    "an end id outside": (
        healthy() | {"generation_config.json": as_json({"eos_token_id": [2, 99]})},
        "warning",
        "SPECIAL_TOKENS_OUTSIDE",
    ),
    "a vocabulary of text": (healthy() | {"tokenizer.json": tokenizer(vocab={"a": "b"})}, "error", "TOKENIZER_INVALID"),
    "a vocabulary below zero": (
        healthy() | {"tokenizer.json": tokenizer(vocab={"a": -1})},
        "error",
        "TOKENIZER_INVALID",
    ),
    "no SentencePiece": (
        without("tokenizer.json") | {"tokenizer.model": b"<html>404</html>"},
        "error",
        "TOKENIZER_INVALID",
    ),
    "SentencePiece cut": (
        without("tokenizer.json") | {"tokenizer.model": pieces(9)[:-7]},
        "error",
        "TOKENIZER_INVALID",
    ),
    "a broken file beside tokenizer.json": (
        healthy() | {"tokenizer.model": b"\xff" * 9},
        "warning",
        "TOKENIZER_INVALID",
    ),
    "no merges": (without("tokenizer.json") | {"vocab.json": b"{}"}, "warning", "TOKENIZER_MISSING"),
    "no template": (healthy(None), "warning", "CHAT_TEMPLATE_MISSING"),
    "a template that does not parse": (healthy("a\n{% for m in %}"), "error", "CHAT_TEMPLATE_INVALID"),
    "a template without an end": (
        healthy("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        "error",
        "CHAT_TEMPLATE_INVALID",
    ),
    "a template that eats memory": (healthy("{{ messages }}{{ 'a' * 2000000000 }}"), "error", "CHAT_TEMPLATE_INVALID"),
    "a template that is no text": (
        healthy() | {"chat_template.jinja": b"\xff\xfe"},
        "error",
        "CHAT_TEMPLATE_INVALID",
    ),
    "a filter that nobody knows": (healthy("{{ messages | wash }}"), "warning", "CHAT_TEMPLATE_LIMITED"),
    "no system": (
        healthy("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML),
        "warning",
        "CHAT_TEMPLATE_LIMITED",
    ),
    "no tools": (
        healthy("{% if tools %}{{ raise_exception('no tools') }}{% endif %}" + CHATML),
        "warning",
        "CHAT_TEMPLATE_LIMITED",
    ),
    "nobody's turn": (healthy(CHATML.partition("{% if add")[0]), "warning", "CHAT_TEMPLATE_LIMITED"),
    "a way out of the sandbox": (
        healthy("{{ messages.__class__.__mro__[1].__subclasses__() }}"),
        "warning",
        "CHAT_TEMPLATE_LIMITED",
    ),
    "custom code": (
        healthy(auto_map={"AutoModel": "modeling.M"}) | {"modeling.py": b"raise SystemExit"},
        "warning",
        "CUSTOM_CODE_IGNORED",
    ),
    "pickles": (
        without("model.safetensors") | {"pytorch_model.bin": saved(tensors())},
        "warning",
        "WEIGHTS_PICKLED",
    ),
    "an evil pickle": (
        without("model.safetensors") | {"pytorch_model.bin": b"cos\nsystem\n."},
        "error",
        "PICKLE_UNSAFE",
    ),
    "an evil pickle beside": (healthy() | {"pytorch_model.bin": b"cos\nsystem\n."}, "warning", "PICKLE_UNSAFE"),
    "saved by torch under a name of its own": (
        without("model.safetensors") | {"model.pt": saved(tensors()), "optimizer.pt": b"cos\nsystem\n."},
        "warning",
        "WEIGHTS_PICKLED",
    ),
    "an evil one of those": (without("model.safetensors") | {"model.pth": b"cos\nsystem\n."}, "error", "PICKLE_UNSAFE"),
    "two of one model": (
        without("model.safetensors") | {"best.pt": saved(tensors()), "last.pt": saved(tensors())},
        "error",
        "TENSORS_DUPLICATED",
    ),
    "a compressed one": (
        without("model.safetensors") | {"model.pt": saved(tensors(), method=8)},
        "error",
        "CONVERSION_FAILED",
    ),
    "a training's checkpoint": (
        without("model.safetensors") | {"model.pt": zipped(state(model=state(w=tensor())[2:-1]))},
        "error",
        "WEIGHTS_CORRUPT",
    ),
    "a pickle cut": (
        without("model.safetensors") | {"pytorch_model.bin": (PICKLES / "torch_zip.bin").read_bytes()[:-99]},
        "error",
        "WEIGHTS_TRUNCATED",
    ),
    "a pickle of nothing": (
        without("model.safetensors") | {"pytorch_model.bin": b"\x80\x02N."},
        "error",
        "WEIGHTS_CORRUPT",
    ),
}


def test_an_index_of_pickles_is_held_against_them() -> None:
    """A tensor that is not where the index says is missed, as for safetensors."""
    files = without("model.safetensors") | {"pytorch_model.bin": saved(tensors())}
    there = {"weight_map": dict.fromkeys(tensors(), "pytorch_model.bin")}
    lost = {"weight_map": there["weight_map"] | {"lm_head.weight": "pytorch_model.bin"}}
    index = "pytorch_model.bin.index.json"
    assert [each.code for each in check(Files(files | {index: as_json(there)}))] == ["WEIGHTS_PICKLED"]
    found = check(Files(files | {index: as_json(lost)}))
    assert [each.code for each in found] == ["WEIGHTS_MISSING", "WEIGHTS_PICKLED"]
    assert "lm_head.weight" in found[0].evidence


@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_gives_exactly_its_code(name: str) -> None:
    """A folder with one fault gets one finding, with evidence and a fix."""
    folder, severity, code = FAULTS[name]
    findings = check(Files(folder))
    assert [(finding.severity, finding.code) for finding in findings] == [(severity, code)]
    assert findings[0].evidence
    assert findings[0].fix


SERIES: dict[str, tuple[dict[str, bytes], list[tuple[str, str]]]] = {
    "whole": (series(), []),
    "no tsfm_config.json": (
        {name: content for name, content in series().items() if name != "tsfm_config.json"},
        [("warning", "TIME_SERIES_CONFIG")],
    ),
    "not JSON": (series() | {"tsfm_config.json": b"{"}, [("error", "TIME_SERIES_CONFIG")]),
    "other lengths": (series(context_length=1024), [("error", "TIME_SERIES_CONFIG")]),
    "no length": (series(prediction_length=0), [("error", "TIME_SERIES_CONFIG")]),
    "deep": (
        series() | {"tsfm_config.json": b'{"d_model":' + b"[" * 400 + b"]" * 400 + b"}"},
        [("error", "TIME_SERIES_CONFIG")],
    ),
    "a number of many digits": (series(prediction_length=10**3000), [("error", "TIME_SERIES_CONFIG")]),
    "other weights": (series(d_model=32), [("error", "TIME_SERIES_CONFIG")]),
}


@pytest.mark.parametrize("name", SERIES)
def test_time_series_folders_are_held_against_themselves(name: str) -> None:
    """They need no tokenizer; their sizes agree; and that nothing serves them yet is said each time."""
    folder, expected = SERIES[name]
    found = [(finding.severity, finding.code) for finding in check(Files(folder))]
    assert found == sorted([*expected, ("warning", "ARCHITECTURE_UNSUPPORTED")], key=lambda pair: pair[0])


DEEP = b'{"a":' * 400 + b"1" + b"}" * 400


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]),
    st.sampled_from(["vocab_size", "eos_token_id", "model", "added_tokens", "chat_template", "bos_token", "auto_map"]),
    st.sampled_from(
        [DEEP, b"[" * 400 + b"]" * 400, b"9" * 3000, b"-1", b"null", b'[{"name":[],"template":"x"}]', b'""']
    )
    | st.binary(max_size=20),
)
def test_no_value_makes_it_crash(file: str, field: str, value: bytes) -> None:
    """Whatever stands in a small file, `check` returns findings."""
    content = json.loads(healthy(None)[file])
    content.pop(field, None)
    rest = as_json(content)
    changed = rest[:-1] + (b"," if content else b"") + as_json(field) + b":" + value + b"}"
    for found in check(Files(healthy(None) | {file: changed})):
        assert len(found.evidence) < 2000


def test_a_template_s_evidence_says_where_and_why() -> None:
    """The line of a syntax error, and the template's own words."""
    (broken,) = check_template(Template("chat_template.jinja", "a\n{% for m in %}", "", {}))
    assert "line 2" in broken.evidence
    refusing = FAULTS["no system"][0]
    (limited,) = check(Files(refusing))
    assert "no system" in limited.evidence
    assert "system" in limited.message


def test_custom_code_is_named() -> None:
    """The files that would be executed elsewhere are listed."""
    (found,) = check(Files(FAULTS["custom code"][0]))
    assert "modeling.py" in found.evidence


OWN_MAP = {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.XForCausalLM"}
OWN = healthy(auto_map=OWN_MAP) | {"configuration_x.py": b"raise SystemExit", "modeling_x.py": b"raise SystemExit"}


def test_allowed_code_is_a_warning_that_names_it() -> None:
    """The files, the classes in whose place they come, and what it costs to be wrong about their author."""
    (found,) = check(Files(OWN), allow_custom_code=True)
    assert (found.code, found.severity) == ("CUSTOM_CODE_ALLOWED", "warning")
    assert found.message == "This model's own code runs: configuration_x.py, modeling_x.py."
    assert "AutoModelForCausalLM" in found.evidence


@pytest.mark.parametrize(
    ("folder", "severity", "said"),
    [
        ({name: content for name, content in OWN.items() if name != "modeling_x.py"}, "error", "no modeling_x.py"),
        (healthy(auto_map={"AutoModel": "they/x--modeling.M"}), "error", "in another repository"),
        (healthy(auto_map="nonsense"), "error", "nonsense"),
        (healthy(), "warning", "has an auto_map"),
    ],
    ids=["not copied", "elsewhere", "no map", "none"],
)
def test_code_that_was_allowed_has_to_be_there(folder: dict[str, bytes], severity: str, said: str) -> None:
    """What an engine would look for in vain is an error; where nothing is asked for, the flag does nothing."""
    (found,) = check(Files(folder), allow_custom_code=True)
    assert (found.code, found.severity) == ("CUSTOM_CODE_MISSING", severity)
    assert said in found.evidence


def test_a_tokenizers_own_code_is_code_too() -> None:
    """Also where the model's class is a known one."""
    tokenizer = json.loads(healthy()["tokenizer_config.json"]) | {"auto_map": {"AutoTokenizer": ["tok.Slow", None]}}
    folder = healthy() | {"tokenizer_config.json": as_json(tokenizer), "tok.py": b"raise SystemExit"}
    (ignored,) = check(Files(folder))
    assert (ignored.code, "tok.py" in ignored.evidence) == ("CUSTOM_CODE_IGNORED", True)
    assert "--allow-custom-code" in ignored.fix
    (allowed,) = check(Files(folder), allow_custom_code=True)
    assert allowed.message == "This model's own code runs: tok.py."


def quantised(method: str, **config: Any) -> dict[str, bytes]:
    """A folder whose configuration says that it is quantised."""
    return healthy(quantization_config={"quant_method": method, "bits": 4, "group_size": 128}, **config)


@pytest.mark.parametrize(
    ("folder", "specification", "found"),
    [
        (healthy(), "watsonx-cfm-caikit-1.1", []),
        (healthy(), "watsonx-tsfm-runtime-1.0", [("error", "NOT_CERTIFIED")]),
        (quantised("gptq"), "", [("error", "WEIGHTS_QUANTISED")]),
        (quantised("gptq"), "watsonx-cfm-caikit-1.0", [("warning", "WEIGHTS_QUANTISED")]),
        (quantised("awq"), "watsonx-cfm-caikit-1.1", [("error", "WEIGHTS_QUANTISED")]),
        (quantised("awq", model_type="qwen2"), "watsonx-cfm-caikit-1.1", [("warning", "WEIGHTS_QUANTISED")]),
        (
            quantised("awq", model_type="qwen2"),
            "watsonx-cfm-caikit-1.0",
            [("error", "NOT_CERTIFIED"), ("error", "WEIGHTS_QUANTISED")],
        ),
    ],
)
def test_a_specification_has_to_be_certified_for_it(
    folder: dict[str, bytes], specification: str, found: list[tuple[str, str]]
) -> None:
    """For the architecture, and then for the quantisation, as the documents' table has them."""
    findings = check(Files(folder), specification=specification)
    assert [(finding.severity, finding.code) for finding in findings] == found
    strictly = check(Files(folder), specification=specification, strict=True)
    assert all(finding.severity == "error" for finding in strictly)


def test_what_is_not_certified_is_told_with_what_is() -> None:
    """The architectures of the specification, and the specifications of the architecture."""
    (found,) = check(Files(healthy()), specification="watsonx-tsfm-runtime-1.0")
    assert "tinytimemixer" in found.evidence
    assert "watsonx-cfm-caikit-1.0 or watsonx-cfm-caikit-1.1" in found.fix
    (refused,) = check(Files(quantised("gptq")))
    assert "--specification watsonx-cfm-caikit-1.1" in refused.fix


def test_a_method_that_only_tensors_betray_is_not_accepted() -> None:
    """An engine goes by config.json: without a word there it would load packed numbers as plain ones."""
    packed = tensors() | {"model.layers.0.self_attn.q_proj.g_idx": np.zeros(8, np.int32)}
    folder = healthy() | {"model.safetensors": save(packed, metadata={"format": "pt"})}
    (refused,) = check(Files(folder), specification="watsonx-cfm-caikit-1.1")
    assert (refused.severity, refused.code) == ("error", "WEIGHTS_QUANTISED")


# --- the command ----------------------------------------------------------------------------------------------------


def written(folder: Path, files: dict[str, bytes]) -> str:
    """The files on the disk."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return str(folder)


def test_the_command_tells_all_and_ends_with_0_without_errors(tmp_path, capsys) -> None:
    """A healthy folder: the summary and what serves it, no server asked."""
    assert run(["doctor", written(tmp_path, healthy())]) == 0
    shown = capsys.readouterr().out
    for text in ("LlamaForCausalLM (llama)", "tokenizer.json", "F16", "openvino", "Nothing is wrong"):
        assert text in shown


def test_the_command_ends_as_a_refused_deployment_does(tmp_path, capsys) -> None:
    """An error ends it with 1, and shows code, file, evidence, fix."""
    assert run(["doctor", written(tmp_path, FAULTS["a vocabulary too large"][0])]) == 1
    shown = capsys.readouterr().out
    for text in ("error TOKENIZER_MISMATCH:", "tokenizer.json", "evidence: ", "fix: ", "headrace explain"):
        assert text in shown
    assert "would be refused" in shown


def test_a_files_name_makes_no_line_of_its_own(tmp_path, capsys) -> None:
    """Whoever named the weights cannot have the doctor say something that it did not find."""
    name = "a\nerror CONFIG_MISSING:\n.safetensors"
    run(["doctor", written(tmp_path, without("model.safetensors") | {name: b"no header"})])
    said = capsys.readouterr().out
    assert "  a\\x0aerror CONFIG_MISSING:\\x0a.safetensors" in said
    assert not any(line.startswith("error CONFIG_MISSING") for line in said.splitlines())


def test_strict_lets_warnings_count(tmp_path, capsys) -> None:
    """A warning alone is no failure, unless that is asked for."""
    folder = written(tmp_path, FAULTS["pickles"][0])
    assert run(["doctor", folder]) == 0
    assert run(["doctor", folder, "--strict", "--json"]) == 1
    document = json.loads(capsys.readouterr().out.partition("can be deployed.\n")[2])
    assert document["ok"] is False
    assert document["findings"][0]["severity"] == "warning"
    assert document["summary"]["parameters"] == 680


def test_a_folder_that_is_not_there_ends_with_3(tmp_path, capsys) -> None:
    """As everywhere else."""
    assert run(["doctor", str(tmp_path / "none"), "--json"]) == 3
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "ARTIFACTS_NOT_FOUND"


def test_an_unreadable_folder_has_findings_and_no_summary(tmp_path, capsys) -> None:
    """What cannot be told is null, and the finding says why."""
    assert run(["doctor", written(tmp_path, without("config.json")), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["summary"] is None
    assert [finding["code"] for finding in document["findings"]] == ["CONFIG_MISSING"]


def test_what_nobody_serves_is_an_error(tmp_path, capsys) -> None:
    """A folder may be whole and still of no use here."""
    assert run(["doctor", written(tmp_path, healthy(model_type="nobody_knows_it")), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert "ARCHITECTURE_UNSUPPORTED" in [finding["code"] for finding in findings]


def test_what_nobody_serves_is_told_with_what_is_served(tmp_path, capsys) -> None:
    """The nearest architectures, and the command that lists all; no sentence twice."""
    folder = written(tmp_path, healthy(model_type="qwen33"))
    assert run(["doctor", folder, "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    unserved = next(each for each in findings if each["code"] == "ARCHITECTURE_UNSUPPORTED")
    assert "qwen3," in unserved["fix"]
    assert "No runtime serves" not in unserved["evidence"]
    command = unserved["fix"].partition("`")[2].partition("`")[0]
    assert run([*command.split()[1:], "--json"]) == 0
    assert "openvino" in json.loads(capsys.readouterr().out)["architectures"]["llama"]


PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Access to this model is restricted</title></head></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 269060552\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "pytorch_model.bin"])
@pytest.mark.parametrize(("content", "said"), [(PAGE, "'<!DOCTYPE html>'"), (POINTER, "git lfs pull")])
def test_what_stands_in_a_file_s_place_is_named(name: str, content: bytes, said: str) -> None:
    """A page that asks for a login and a pointer of Git LFS are told from a file that is broken."""
    folder = healthy() if name != "pytorch_model.bin" else without("model.safetensors")
    finding = next(each for each in check(Files(folder | {name: content})) if each.severity == "error")
    assert finding.file == name
    assert said in f"{finding.evidence} {finding.fix}"


def test_a_quantised_model_is_told_once(tmp_path, capsys) -> None:
    """As the deployment says it: that no runtime serves it follows from that."""
    files = healthy(quantization_config={"quant_method": "gptq"})
    assert run(["doctor", written(tmp_path, files), "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["code"] == "WEIGHTS_QUANTISED"


def test_a_runtime_that_is_here_is_not_to_be_installed(tmp_path, monkeypatch, capsys) -> None:
    """What the choice costs is said where its environment is missing, and there alone."""
    monkeypatch.setenv("HEADRACE_RUNTIMES_DIR", str(tmp_path / "runtimes"))
    (tmp_path / "model").mkdir()
    folder = written(tmp_path / "model", healthy())
    assert run(["doctor", folder]) == 0
    assert "Runtime openvino" in (shown := capsys.readouterr().out)
    assert "to be installed" in shown.partition("on a CPU")[2].partition("\n")[0]
    environments = Environments(tmp_path / "runtimes")
    place = environments._path(RUNTIMES["openvino"])
    place.mkdir(parents=True)
    (place / MANIFEST).write_text("{}")
    assert run(["doctor", folder]) == 0
    assert "to be installed" not in capsys.readouterr().out.partition("on a CPU")[2].partition("\n")[0]


@pytest.mark.parametrize(
    ("options", "status", "codes"),
    [
        (["--machine", "rack-a"], 0, []),
        (["--machine", "rack-a", "--runtime", "openvino"], 0, []),
        (["--machine", "WX-S"], 0, []),
        (["--machine", "thimble"], 1, ["DOES_NOT_FIT"]),
        (["--machine", "rack-a", "--runtime", "openvino", "--float32"], 1, ["RUNTIME_UNSUITABLE"]),
    ],
)
def test_a_machine_and_a_runtime_can_be_named(
    options: list[str], status: int, codes: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """What they do not take is a finding as any other; only the machine's own kind is looked at."""
    (tmp_path / "shapes.toml").write_text(
        '[[shape]]\nname = "rack-a"\ncores = 8\nmemory_gb = 64\n'
        '[[shape]]\nname = "thimble"\ncores = 1\nmemory_gb = 0.1\n'
    )
    monkeypatch.setenv("HEADRACE_SHAPES", str(tmp_path / "shapes.toml"))
    files = healthy()
    if "--float32" in options:
        wide = {name: array.astype(np.float32) for name, array in tensors().items()}
        files["model.safetensors"] = save(wide, metadata={"format": "pt"})
    (tmp_path / "model").mkdir()
    words = [option for option in options if option != "--float32"]
    assert run(["doctor", written(tmp_path / "model", files), "--json", *words]) == status
    document = json.loads(capsys.readouterr().out)
    assert [finding["code"] for finding in document["findings"]] == codes
    assert list(document["summary"]["served_by"]) == (["gpu"] if "WX-S" in options else ["cpu"])


def test_a_machine_or_a_runtime_that_nobody_knows_is_a_mistake(tmp_path: Path, capsys: Any) -> None:
    """Told before the model is looked at, and with what there is."""
    folder = written(tmp_path, healthy())
    assert run(["doctor", folder, "--machine", "g9"]) == 2
    assert run(["doctor", folder, "--runtime", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err


def test_a_specification_is_asked_for_by_name(tmp_path, capsys) -> None:
    """One that accepts the weights makes them deployable, and says with what; an unknown one is wrong usage."""
    folder = written(tmp_path, quantised("gptq"))
    assert run(["doctor", folder, "--specification", "watsonx-cfm-caikit-1.1", "--json"]) == 0
    served = json.loads(capsys.readouterr().out)["summary"]["served_by"]
    assert {name: one["runtime"] for name, one in served.items()} == {"cpu": "vllm", "gpu": "vllm"}
    assert run(["doctor", folder, "--specification", "watsonx-cfm-caikit-9"]) == 2
    assert "watsonx-cfm-caikit-1.0, watsonx-cfm-caikit-1.1" in capsys.readouterr().err


def test_it_is_light(tmp_path) -> None:
    """A local folder is looked at without NumPy, Rich's tables, the HTTP client or fsspec."""
    program = (
        "import sys; from headrace.cli.app import run; run(['doctor', sys.argv[1]]);"
        "print([m for m in ('numpy', 'httpx', 'fsspec', 'psutil', 'jinja2', 'rich.table') if m in sys.modules])"
    )
    folder = written(tmp_path, healthy())
    answer = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_it_reads_remote_folders_in_ranges(monkeypatch, capsys) -> None:
    """An address of a store works like a folder; of the weights only the header is read."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Memory(MemoryFileSystem):
        """Names objects as drivers of stores do: without a slash before the bucket."""

        def find(self, path: str, **options: Any) -> Any:
            return {name.lstrip("/"): told for name, told in super().find(path, **options).items()}

    memory = Memory(skip_instance_cache=True)
    large = {"model.embed_tokens.weight": np.zeros((10, 100_000), np.float16)}
    for name, content in (healthy(hidden_size=100_000) | {"model.safetensors": save(large)}).items():
        memory.pipe(f"/bucket/doctor/{name}", content)
    read_bytes = []

    def cat_file(path: str, start: int, end: int, **_: str) -> bytes:
        read_bytes.append(end - start)
        return bytes(original(path, start=start, end=end))

    original = memory.cat_file
    monkeypatch.setattr(memory, "cat_file", cat_file)
    monkeypatch.setattr(fsspec, "filesystem", lambda _scheme, **_: memory)
    run(["doctor", "gs://bucket/doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (document["address"], document["summary"]["parameters"]) == ("gs://bucket/doctor", 1_000_000)
    assert sum(read_bytes) < 20_000
