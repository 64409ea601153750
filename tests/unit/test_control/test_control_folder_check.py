"""The check of a real folder: what it chooses, and what it refuses before anything is copied."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from headrace.capacity import DEFAULT_CONTEXT_TOKENS, unwritten
from headrace.control import FolderChecker
from headrace.control.reading import read_weights, source_of
from headrace.control.sizes import if_too_small, require_size
from headrace.hardware import read_catalogue
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import (
    ArchitectureUnsupported,
    ArtifactsChanged,
    ArtifactsNotFound,
    ArtifactsRefused,
    BadField,
    ChatTemplateInvalid,
    ConfigInvalid,
    ConfigMissing,
    CustomCodeMissing,
    DoesNotFit,
    HeadraceError,
    NotCertified,
    NotOptimizable,
    NotSupported,
    RuntimeUnknown,
    RuntimeUnsuitable,
    WeightsQuantised,
    WeightsTruncated,
)
from headrace.resources.models import ModelVersion, ServingSpec
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.nodes import Node
from headrace.runtimes import RUNTIMES
from headrace.storage import open_artifacts
from headrace.weights import inspect, task_of
from headrace.weights.config import parse_config
from headrace.weights.task import ENCODER_TYPES
from small_models import llama_tensors

GIB = 1 << 30
NODE = Node(id="local", boot_id="b", memory_bytes=4 * GIB, cores=2, last_seen_at=0.0)
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 8,
    "vocab_size": 10,
    "max_position_embeddings": 8192,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small llama without a chat template."""
    save_file(llama_tensors(CONFIG), tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    return tmp_path


def _version(folder: Path, fingerprint: str = "", **spec: Any) -> ModelVersion:
    return ModelVersion(
        scope=DEFAULT_SCOPE,
        model_id="m",
        version="1",
        artifact_uri=f"file://{folder}",
        fingerprint=fingerprint,
        spec=ServingSpec(**spec),
        created_at=1.0,
    )


def test_what_is_left_open_is_chosen(folder: Path) -> None:
    """Runtime, context and memory come from the folder; what will not work is warned of."""
    checked = FolderChecker().check(_version(folder), NODE)
    assert (checked.runtime in RUNTIMES, checked.max_model_len) == (True, DEFAULT_CONTEXT_TOKENS)
    assert checked.model_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert checked.memory_bytes > checked.model_bytes
    assert any("chat template" in warning for warning in checked.warnings)
    again = FolderChecker().check(_version(folder, checked.fingerprint), NODE)
    assert again == checked


def test_a_project_reads_nothing_of_the_server_but_its_own_uploads(folder: Path, tmp_path: Path) -> None:
    """Neither another project's volume nor what was staged, by whichever path; its own uploads and folders are read."""
    data = tmp_path.with_name(f"{tmp_path.name}-data")
    places = [data / "uploads" / name / "volumes" / "c" / "s" / "v" for name in (DEFAULT_SCOPE.project, "theirs")]
    own, theirs, staged = (*places, data / "models" / "abc")
    for place in (own, theirs, staged):
        shutil.copytree(folder, place)
    (around := tmp_path.with_name(f"{tmp_path.name}-link")).symlink_to(data)
    checker = FolderChecker(data)
    assert checker.check(_version(own), NODE) == checker.check(_version(folder), NODE)
    for refused in (theirs, staged, own / ".." / ".." / ".." / ".." / ".." / "models" / "abc", around / "uploads"):
        with pytest.raises(ArtifactsRefused, match="keeps for everybody"):
            checker.check(_version(refused), NODE)
        with pytest.raises(NotOptimizable) as told:
            read_weights(source_of(_version(refused), data))
        assert "ARTIFACTS_REFUSED" in told.value.evidence


def test_the_context_is_the_shortest_of_what_limits_it(folder: Path) -> None:
    """What was asked for, within what the model was made for; by default no more than it has."""
    assert FolderChecker().check(_version(folder, max_model_len=8192), NODE).max_model_len == 8192
    with pytest.raises(BadField):
        FolderChecker().check(_version(folder, max_model_len=8193), NODE)
    with pytest.raises(BadField):
        FolderChecker().check(_version(folder, max_model_len=0), NODE)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"max_position_embeddings": 64}))
    assert FolderChecker().check(_version(folder), NODE).max_model_len == 64


def test_an_image_that_nothing_stands_in_for_is_refused_first(folder: Path) -> None:
    """Whatever files there are: the image is named, and so is an argument of a known one that nobody does."""
    for container, told in (
        ({"imageUri": "example.com/mine:1"}, "example.com/mine:1"),
        ({"imageUri": "vllm/vllm-openai", "args": ["--enable-lora"]}, "--enable-lora"),
    ):
        with pytest.raises(NotSupported, match=told):
            FolderChecker().check(_version(folder, container=container), NODE)
    known = {"imageUri": "vllm/vllm-openai", "args": ["--max-model-len=64"]}
    assert FolderChecker().check(_version(folder, container=known), NODE).runtime in RUNTIMES
    with pytest.raises(BadField, match="no artifacts"):
        FolderChecker().check(msgspec.structs.replace(_version(folder), artifact_uri=""), NODE)


def _remove_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _make_unknown(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_type": "never_heard_of"}))


@pytest.mark.parametrize(
    ("damage", "error"),
    [(_remove_config, ConfigMissing), (_cut, WeightsTruncated), (_make_unknown, ArchitectureUnsupported)],
)
def test_a_bad_folder_is_refused_with_its_own_code(folder: Path, damage: Any, error: type[HeadraceError]) -> None:
    """Each fault is told as what it is."""
    damage(folder)
    with pytest.raises(error):
        FolderChecker().check(_version(folder), NODE)


def test_other_reasons_to_refuse(folder: Path) -> None:
    """No such folder, an unknown runtime, a machine that is too small, and files that changed since."""
    with pytest.raises(ArtifactsNotFound):
        FolderChecker().check(_version(folder / "nothing"), NODE)
    with pytest.raises(RuntimeUnknown):
        FolderChecker().check(_version(folder, runtime="abacus"), NODE)
    with pytest.raises(DoesNotFit):
        FolderChecker().check(_version(folder), msgspec.structs.replace(NODE, memory_bytes=GIB // 4))
    with pytest.raises(ArtifactsChanged):
        FolderChecker().check(_version(folder, "0" * 64), NODE)


def test_the_runtime_comes_with_its_reason(folder: Path) -> None:
    """What was chosen, why, and why not the others; what was asked for is taken, or refused with the reason."""
    checked = FolderChecker().check(_version(folder), NODE)
    assert checked.runtime_reason.startswith(f"Runtime {checked.runtime}: ")
    assert "llama in float16" in checked.runtime_reason
    assert all(f"; not {name}: " in checked.runtime_reason for name in RUNTIMES if name != checked.runtime)
    asked = FolderChecker().check(_version(folder, runtime="transformers", dtype="float32"), NODE)
    assert asked.runtime == "transformers"
    assert "as asked for" in asked.runtime_reason


def test_weights_in_float32_are_not_halved_unasked(folder: Path) -> None:
    """Their own precision is kept, by the runtime that keeps it; asked for 16 bits, the fastest runtime is chosen."""
    save_file({"model.embed_tokens.weight": np.zeros((10, 8), np.float32)}, folder / "model.safetensors")
    kept = FolderChecker().check(_version(folder), NODE)
    assert (kept.runtime, "llama in float32" in kept.runtime_reason) == ("transformers", True)
    halved = FolderChecker().check(_version(folder, dtype="bfloat16"), NODE)
    assert halved.runtime == next(name for name in ("openvino", "transformers") if name in RUNTIMES)


@pytest.mark.parametrize(
    ("model_type", "architecture", "files", "task"),
    [
        ("llama", "LlamaForCausalLM", (), "generate"),
        ("t5", "T5ForConditionalGeneration", (), "generate"),
        ("gpt2", "GPT2LMHeadModel", (), "generate"),
        ("bert", "BertModel", (), "embed"),
        ("bert", "BertLMHeadModel", (), "generate"),
        ("xlm-roberta", "XLMRobertaForMaskedLM", (), "embed"),
        ("qwen3", "Qwen3ForCausalLM", ("modules.json",), "embed"),
    ],
)
def test_the_folder_tells_what_its_model_is_for(
    folder: Path, model_type: str, architecture: str, files: tuple[str, ...], task: str
) -> None:
    """By its family and its class, and by the file that sentence-transformers leaves."""
    (folder / "config.json").write_text(
        json.dumps(CONFIG | {"model_type": model_type, "architectures": [architecture]})
    )
    for name in files:
        (folder / name).write_text("[]")
    found = inspect(open_artifacts(str(folder)))
    assert task_of(found.config, found.files) == task


def test_control_and_the_engine_agree_on_what_embeds() -> None:
    """Neither may import the other, so their lists of encoders are held against each other here."""
    spec = importlib.util.find_spec("headrace_engines")
    assert spec is not None
    [root] = spec.submodule_search_locations or []
    tree = ast.parse((Path(root) / "transformers" / "kinds.py").read_text())
    values = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert {name.value for name in ast.walk(values["ENCODER_TYPES"]) if isinstance(name, ast.Constant)} == ENCODER_TYPES


GPUS = msgspec.structs.replace(NODE, hardware={"gpus": [{"name": "NVIDIA L4"}] * 8}, memory_bytes=64 * GIB)


def test_a_model_is_shared_among_as_many_devices_as_divide_its_heads(folder: Path) -> None:
    """4 attention heads on 2 or 4 devices; of 2 key/value heads 4 devices have copies, and more cache is planned."""
    alone = FolderChecker().check(_version(folder, runtime="vllm"), GPUS)
    two = FolderChecker().check(_version(folder, tensor_parallel=2), GPUS)
    four = FolderChecker().check(_version(folder, tensor_parallel=4), GPUS)
    assert (two.runtime, four.runtime) == ("vllm", "vllm")
    assert two.memory_bytes == alone.memory_bytes + GIB
    assert four.memory_bytes > alone.memory_bytes + 3 * GIB


@pytest.mark.parametrize(
    ("heads", "kv_heads", "devices", "evidence"),
    [(4, 2, 3, "4 attention heads; tensor_parallel is 3"), (12, 6, 4, "6 key/value heads; tensor_parallel is 4")],
)
def test_heads_that_do_not_divide_are_named(
    folder: Path, heads: int, kv_heads: int, devices: int, evidence: str
) -> None:
    """Before anything is copied, with the numbers of the configuration."""
    config = CONFIG | {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "hidden_size": 2 * heads}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(llama_tensors(config), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadField) as raised:
        FolderChecker().check(_version(folder, tensor_parallel=devices), GPUS)
    assert evidence in raised.value.evidence
    assert "--tensor-parallel" in raised.value.fix


def test_what_a_gpu_does_not_hold_is_refused_however_much_memory_its_machine_has(folder: Path) -> None:
    """As `headrace plan` says: the weights lie in the device's memory, of which nine tenths are planned with, and not
    in the machine's, which may have less."""

    def node(device_bytes: int) -> Node:
        gpus = [{"name": "NVIDIA L4", "uuid": f"GPU-{number}", "memory_total_bytes": device_bytes} for number in (0, 1)]
        return msgspec.structs.replace(GPUS, hardware={"gpus": gpus}, memory_bytes=GIB)

    need = FolderChecker().check(_version(folder, runtime="vllm"), GPUS).memory_bytes
    assert FolderChecker().check(_version(folder, runtime="vllm"), node(need * 10 // 9 + 1))
    small = node(need * 10 // 9 - 100)
    with pytest.raises(DoesNotFit):
        FolderChecker().check(_version(folder, runtime="vllm"), small)
    roomy = msgspec.structs.replace(small, memory_bytes=64 * GIB)
    assert FolderChecker().check(_version(folder, runtime="openvino"), roomy), "it computes on the CPU"
    both = FolderChecker().check(_version(folder, tensor_parallel=2), GPUS).memory_bytes
    assert FolderChecker().check(_version(folder, tensor_parallel=2), node(both * 10 // 18 + 1))


def test_a_machine_without_gpus_shares_no_model(folder: Path) -> None:
    """Whichever runtime is asked for, and where none is."""
    for runtime in ("", *RUNTIMES):
        with pytest.raises(RuntimeUnsuitable):
            FolderChecker().check(_version(folder, runtime=runtime, tensor_parallel=2), NODE)


ABLE = (
    "{% for t in tools or [] %}{{ t }}{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.tool_calls }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""Says all that a conversation has."""


def test_a_template_of_its_own_is_what_the_folder_lacked(folder: Path) -> None:
    """No warning is left; a model without chats is given none."""
    checked = FolderChecker().check(_version(folder, chat_template=ABLE), NODE)
    assert not any("chat template" in warning for warning in checked.warnings)
    (folder / "modules.json").write_text("[]")
    with pytest.raises(BadField, match="no chats"):
        FolderChecker().check(_version(folder, chat_template="{{ messages }}"), NODE)


def test_a_template_of_its_own_stands_for_one_that_is_broken(folder: Path) -> None:
    """The folder's template is refused where it would be used, and no matter where it is not."""
    (folder / "chat_template.jinja").write_text("{% for message in messages %}")
    with pytest.raises(ChatTemplateInvalid, match="line 1"):
        FolderChecker().check(_version(folder), NODE)
    assert not FolderChecker().check(_version(folder, chat_template=ABLE), NODE).warnings


def test_a_template_of_its_own_is_tried_as_a_folders_is(folder: Path) -> None:
    """One that does not parse is refused before anything starts; what one cannot say is a warning."""
    (folder / "chat_template.jinja").write_text(ABLE)
    with pytest.raises(ChatTemplateInvalid, match="line 1"):
        FolderChecker().check(_version(folder, chat_template="{% for message in messages %}"), NODE)
    (warning,) = FolderChecker().check(_version(folder, chat_template="river.example"), NODE).warnings
    assert warning.startswith("The chat template refuses even a single question")


SHOWS_TOOLS = "{% for t in tools %}{{ t }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"


def test_a_tool_parser_is_refused_for_a_template_without_tools(folder: Path) -> None:
    """Neither without a template nor with one that does nothing with tools; one that does passes this check."""
    for template in (None, "{% for m in messages %}{{ m.content }}{% endfor %}"):
        with pytest.raises(BadField, match="does nothing with tools"):
            FolderChecker().check(_version(folder, tool_parser="hermes", chat_template=template), NODE)
    checked = FolderChecker().check(
        _version(folder, tool_parser="hermes", chat_template=SHOWS_TOOLS),
        msgspec.structs.replace(NODE, memory_bytes=64 * GIB),
    )
    assert checked.runtime == "vllm"


def test_a_size_must_take_the_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of more parameters than the size that was asked for is refused with the one that takes it."""
    shapes = tmp_path / "shapes.toml"
    sizes = {"WX-S": 0.00000001, "WX-M": 0.00000002, "WX-L": 1.0}
    shapes.write_text(
        "".join(
            f'[[shape]]\nname = "{name}"\nkind = "watsonx"\nmax_parameters_billions = {most:.8f}\nquota_share = 0.25\n'
            for name, most in sizes.items()
        )
    )
    monkeypatch.setenv("HEADRACE_SHAPES", str(shapes))
    with pytest.raises(DoesNotFit) as refused:
        FolderChecker().check(_version(folder), NODE, MachineSpec(machine_type="wx-s"))
    assert refused.value.fix == "Ask for WX-L."
    assert FolderChecker().check(_version(folder), NODE, MachineSpec(machine_type="WX-L")).runtime


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (MachineSpec(), ""),
        (MachineSpec(machine_type="wx-s"), "Or ask for the next size up: --machine-type WX-M."),
        (MachineSpec(machine_type="WX-M"), "Or ask for the next size up: --machine-type WX-L."),
        (MachineSpec(machine_type="WX-L"), "WX-L is the largest size: ask for a machine type instead"),
        (
            MachineSpec(machine_type="g2-standard-4", accelerator_type="NVIDIA_L4", accelerator_count=1),
            "Or ask for the next machine up: --machine-type a2-highgpu-1g --accelerator-type NVIDIA_TESLA_A100",
        ),
        (
            MachineSpec(machine_type="a4-highgpu-8g", accelerator_type="NVIDIA_B200", accelerator_count=8),
            "No machine of the catalogue has more memory for the model than a4-highgpu-8g (8 × NVIDIA_B200).",
        ),
    ],
)
def test_what_to_ask_for_is_known_should_the_machine_be_too_small(
    folder: Path, monkeypatch: pytest.MonkeyPatch, machine: MachineSpec, said: str
) -> None:
    """The next size up, or the cheapest machine with more memory on each device; nothing where no machine was named."""
    monkeypatch.delenv("HEADRACE_SHAPES", raising=False)
    predicted = FolderChecker().check(_version(folder), NODE, machine).predicted
    assert predicted is not None
    assert predicted.if_too_small.startswith(said)
    assert bool(predicted.if_too_small) == bool(said)


def test_without_tensor_parallelism_there_is_no_next_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table gives granite the small size only: a larger one is refused, and a machine type is what is left."""
    monkeypatch.delenv("HEADRACE_SHAPES", raising=False)
    config = CONFIG | {"model_type": "granite", "architectures": ["GraniteForCausalLM"], "intermediate_size": 6}
    found = unwritten(parse_config(config))
    catalogue = read_catalogue()
    small, medium = MachineSpec(machine_type="WX-S"), MachineSpec(machine_type="WX-M")
    require_size(found, "auto", small, catalogue)
    assert if_too_small(found, small, 1, catalogue).startswith("WX-S is the only size for granite models")
    with pytest.raises(DoesNotFit, match="granite models cannot have WX-M"):
        require_size(found, "auto", medium, catalogue)


OWN = {"auto_map": {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.XForCausalLM"}}
UNUSUAL = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def _make_its_own(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config | OWN | {"model_type": "never_heard_of"}))
    for name in ("configuration_x.py", "modeling_x.py"):
        (folder / name).write_text("raise SystemExit('it was run')")


def test_own_code_needs_to_be_allowed(folder: Path) -> None:
    """Refused with the flag as the fix; allowed, the warnings name its files and what was planned for it."""
    _make_its_own(folder, CONFIG)
    with pytest.raises(ArchitectureUnsupported) as refused:
        FolderChecker().check(_version(folder), NODE)
    assert "--allow-custom-code" in refused.value.fix
    checked = FolderChecker().check(_version(folder, allow_custom_code=True), NODE)
    assert checked.runtime == "transformers"
    assert "This model's own code runs: configuration_x.py, modeling_x.py." in checked.warnings
    assert any("Only its own code knows the architecture never_heard_of" in each for each in checked.warnings)


def test_own_code_without_the_usual_sizes_is_refused(folder: Path) -> None:
    """No memory is guessed: the fix names the fields that the plan goes by."""
    _make_its_own(folder, {key: value for key, value in CONFIG.items() if key not in UNUSUAL})
    with pytest.raises(ConfigInvalid, match="Only the model's own code knows") as refused:
        FolderChecker().check(_version(folder, allow_custom_code=True), NODE)
    assert all(name in refused.value.fix for name in UNUSUAL)


def test_own_code_that_is_not_there_is_refused(folder: Path) -> None:
    """Allowed, and half of it missing: an engine would find out after minutes."""
    _make_its_own(folder, CONFIG)
    (folder / "modeling_x.py").unlink()
    with pytest.raises(CustomCodeMissing) as refused:
        FolderChecker().check(_version(folder, allow_custom_code=True), NODE)
    assert "no modeling_x.py" in refused.value.evidence


def test_a_specification_decides_what_is_imported(folder: Path) -> None:
    """GPTQ of a llama is refused, and accepted where its specification is asked for: planned as it is packed."""
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 8}
    (folder / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": settings}))
    roomy = msgspec.structs.replace(NODE, memory_bytes=16 * GIB)
    with pytest.raises(WeightsQuantised):
        FolderChecker().check(_version(folder), roomy)
    with pytest.raises(NotCertified):
        FolderChecker().check(_version(folder, software_specification="watsonx-tsfm-runtime-1.0"), roomy)
    for dtype in ("auto", "bfloat16"):
        asked = _version(folder, software_specification="watsonx-cfm-caikit-1.0", dtype=dtype)
        checked = FolderChecker().check(asked, roomy)
        assert checked.runtime == "vllm"
        assert checked.predicted is not None
        assert checked.predicted.weights_bytes == inspect(open_artifacts(str(folder))).weight_bytes
        assert any("as watsonx-cfm-caikit-1.0 accepts it" in warning for warning in checked.warnings)
