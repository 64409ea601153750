"""The promises of the choice of a runtime: the whole table, and what holds for every model and machine."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.resources.assignments import RuntimeReport
from headrace.resources.errors import ArchitectureUnsupported, HeadraceError, RuntimeUnknown, RuntimeUnsuitable
from headrace.resources.models import Dtype, ServingSpec, Task
from headrace.resources.nodes import Node
from headrace.runtimes import RUNTIMES, MachineFacts, ModelFacts, Runtime, choose, machine_of
from headrace.runtimes.choice import TABLE, Device
from headrace.runtimes.facts import stored_in


class Known:
    """What the table asks of a runtime."""

    def __init__(self, name: str, *model_types: str, disk_bytes: int = 0) -> None:
        self.name = name
        self.model_types = frozenset(model_types)
        self.disk_bytes = disk_bytes


THREE: Mapping[str, Runtime] = {
    "openvino": Known("openvino", "llama", "gemma", disk_bytes=300_000_000),  # type: ignore[dict-item]
    "vllm": Known("vllm", "llama", "exaone", disk_bytes=6_000_000_000),  # type: ignore[dict-item]
    "transformers": Known("transformers", "llama", "gemma", "mpt", "bert", disk_bytes=2_500_000_000),  # type: ignore[dict-item]
}
ALL = frozenset(THREE)


@pytest.mark.parametrize(
    ("device", "model_type", "task", "wanted", "stored", "chosen"),
    [
        ("cpu", "llama", "generate", "auto", "bfloat16", "openvino"),
        ("cpu", "llama", "generate", "auto", "float16", "openvino"),
        ("cpu", "llama", "generate", "bfloat16", "float32", "openvino"),
        ("cpu", "llama", "generate", "float16", "", "openvino"),
        ("cpu", "llama", "generate", "auto", "float32", "transformers"),
        ("cpu", "llama", "generate", "auto", "", "transformers"),
        ("cpu", "llama", "generate", "float32", "bfloat16", "transformers"),
        ("cpu", "gemma", "generate", "auto", "bfloat16", "openvino"),
        ("cpu", "mpt", "generate", "auto", "bfloat16", "transformers"),
        ("cpu", "exaone", "generate", "auto", "bfloat16", "vllm"),
        ("cpu", "bert", "embed", "auto", "float32", "transformers"),
        ("cpu", "llama", "embed", "auto", "bfloat16", "transformers"),
        ("cuda", "llama", "generate", "auto", "bfloat16", "vllm"),
        ("cuda", "llama", "generate", "float32", "bfloat16", "vllm"),
        ("cuda", "llama", "generate", "auto", "float32", "transformers"),
        ("cuda", "gemma", "generate", "auto", "bfloat16", "transformers"),
        ("cuda", "bert", "embed", "auto", "float32", "transformers"),
    ],
)
def test_the_table(device: Device, model_type: str, task: Task, wanted: Dtype, stored: str, chosen: str) -> None:
    """Architecture, task, precision and device decide; what is installed does not."""
    model = ModelFacts(model_type=model_type, task=task, wanted=wanted, stored=stored)
    for installed in (frozenset[str](), ALL, frozenset({"transformers"})):
        assert choose(model, MachineFacts(device=device, installed=installed), runtimes=THREE).runtime == chosen


def test_a_choice_that_gives_up_images_says_so() -> None:
    """A CPU's default serves the text of a model that sees; the sentence says what would serve its images, too."""
    text, both = (ModelFacts(model_type=name, stored="bfloat16") for name in ("gemma3_text", "gemma3"))
    chosen = choose(both, MachineFacts())
    assert chosen.runtime == "transformers"
    assert "it alone takes this model's images (deploy with --runtime vllm)" in chosen.sentence
    assert "images" not in choose(text, MachineFacts()).sentence
    assert choose(both, MachineFacts(), "vllm").runtime == "vllm"
    assert choose(both, MachineFacts(device="cuda")).runtime == "vllm"
    for model_type in ("qwen2_vl", "llava", "smolvlm"):  # nobody else knows them
        assert choose(ModelFacts(model_type=model_type, stored="bfloat16"), MachineFacts()).runtime == "vllm"


def test_the_reason_is_a_sentence_for_a_person() -> None:
    """It names the runtime, why it, why not the others, and what is still to be installed."""
    model = ModelFacts(model_type="llama", stored="bfloat16")
    ready = choose(model, MachineFacts(installed=ALL), runtimes=THREE)
    assert ready.sentence == (
        "Runtime openvino: the fastest on a CPU for llama in bfloat16; "
        "not transformers: slower, at 32 requests at once less than half as fast; "
        "not vllm: on a CPU it is slower, and takes half a minute or more to start."
    )
    fresh = choose(model, MachineFacts(), runtimes=THREE)
    assert "in bfloat16 (to be installed, with 0.3 GB of disk); not" in fresh.sentence
    full = choose(ModelFacts(model_type="llama", stored="float32"), MachineFacts(installed=ALL), runtimes=THREE)
    assert "not openvino: it would turn the float32 weights into 16-bit ones (ask for that with" in full.sentence


def test_what_the_user_asks_for_goes_before_the_table() -> None:
    """vLLM on a CPU, OpenVINO beside a GPU: chosen when asked for, and the reason says what the table had said."""
    model = ModelFacts(model_type="llama", stored="bfloat16")
    asked = choose(model, MachineFacts(installed=ALL), "vllm", THREE)
    assert (asked.runtime, [name for name, _ in asked.rejected]) == ("vllm", ["transformers"])
    assert asked.reason.startswith("as asked for, not openvino, the fastest on a CPU")
    assert choose(model, MachineFacts(device="cuda", installed=ALL), "openvino", THREE).runtime == "openvino"
    assert choose(model, MachineFacts(installed=ALL), "openvino", THREE).reason == (
        "as asked for; the fastest on a CPU for llama in bfloat16"
    )


def test_of_what_was_not_asked_for_it_is_said_why_not() -> None:
    """Asking for a runtime silences nothing: the timeline has a word on each of the others."""
    model = ModelFacts(model_type="llama", stored="bfloat16")
    assert choose(model, MachineFacts(installed=ALL), "transformers", THREE).sentence == (
        "Runtime transformers: as asked for, not openvino, the fastest on a CPU for llama in bfloat16; "
        "not vllm: on a CPU it is slower, and takes half a minute or more to start."
    )
    embedder = ModelFacts(model_type="bert", task="embed")
    assert "; not vllm: it makes no embeddings here" in choose(embedder, MachineFacts(), "transformers", THREE).sentence


@pytest.mark.parametrize(
    ("asked_for", "model", "error", "evidence"),
    [
        ("openvino", ModelFacts(model_type="mpt"), ArchitectureUnsupported, "architecture mpt"),
        ("openvino", ModelFacts(model_type="llama", wanted="float32"), RuntimeUnsuitable, "compute in float32"),
        ("openvino", ModelFacts(model_type="llama", stored="float32"), RuntimeUnsuitable, "16-bit dtype"),
        ("vllm", ModelFacts(model_type="llama", task="embed"), RuntimeUnsuitable, "no embeddings"),
        ("transformers", ModelFacts(model_type="llama", quantisation="gptq"), RuntimeUnsuitable, "gptq"),
        ("abacus", ModelFacts(model_type="llama"), RuntimeUnknown, ""),
        ("", ModelFacts(model_type="jais1"), ArchitectureUnsupported, "architecture jais1"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(
    asked_for: str, model: ModelFacts, error: type[HeadraceError], evidence: str
) -> None:
    """The error tells an unknown name, an unknown architecture and everything else apart."""
    with pytest.raises(error) as raised:
        choose(model, MachineFacts(), asked_for, THREE)
    assert evidence in raised.value.evidence
    assert raised.value.fix


NATIVE = ModelFacts(model_type="llama", stored="f8_e4m3", quantisation="fp8", published_so=True)


@pytest.mark.parametrize(
    ("model", "machine", "why"),
    [
        (NATIVE, MachineFacts(device="cuda", gpus=1), ""),
        (NATIVE, MachineFacts(device="cuda", gpus=1, capability=7.5), ""),
        (NATIVE, MachineFacts(device="cuda", gpus=1, capability=7.0), "compute capability 7.5, and this one has 7"),
        (NATIVE, MachineFacts(), "not given weights quantised with fp8"),
        (
            msgspec.structs.replace(NATIVE, published_so=False),
            MachineFacts(device="cuda", gpus=1),
            "quantised with fp8",
        ),
        (
            msgspec.structs.replace(NATIVE, quantisation="awq"),
            MachineFacts(device="cuda", gpus=1),
            "quantised with awq",
        ),
    ],
)
def test_a_publishers_own_quantisation_is_for_vllm_on_a_gpu(model: ModelFacts, machine: MachineFacts, why: str) -> None:
    """A base model that is published in no other form, on a GPU that can; nothing else that is quantised."""
    if not why:
        assert choose(model, machine, "", THREE).runtime == "vllm"
        return
    with pytest.raises(ArchitectureUnsupported) as raised:
        choose(model, machine, "", THREE)
    assert why in raised.value.evidence


CERTIFIED = ModelFacts(model_type="llama", stored="i32", quantisation="gptq", certified_so=True, bits=4)
GPU = MachineFacts(device="cuda", gpus=1)


@pytest.mark.parametrize(
    ("changes", "machine", "why"),
    [
        ({}, GPU, ""),
        ({}, MachineFacts(), ""),
        ({"bits": 8}, GPU, ""),
        ({"bits": 8}, MachineFacts(), "on a CPU it computes with gptq of 4 bits only"),
        ({"bits": None}, MachineFacts(), "on a CPU it computes with gptq of 4 bits only"),
        ({"wanted": "float32"}, GPU, "in 16 bits only"),
        ({"quantisation": "awq"}, MachineFacts(device="cuda", gpus=1, capability=7.0), "compute capability 7.5"),
        ({"quantisation": "aqlm"}, GPU, "not given weights quantised with aqlm"),
        ({"certified_so": False}, GPU, "not given weights quantised with gptq"),
    ],
)
def test_a_certified_quantisation_is_for_vllm(changes: dict[str, Any], machine: MachineFacts, why: str) -> None:
    """On a GPU, and of four bits on a CPU; where the specification accepts it and nowhere else."""
    model = msgspec.structs.replace(CERTIFIED, **changes)
    if not why:
        assert choose(model, machine, "", THREE).runtime == "vllm"
        return
    with pytest.raises(ArchitectureUnsupported) as raised:
        choose(model, machine, "", THREE)
    assert why in raised.value.evidence


@given(
    st.builds(
        ModelFacts,
        model_type=st.sampled_from(["llama", "gemma", "mpt", "exaone", "bert", "unheard_of"]),
        task=st.sampled_from(get_args(Task)),
        wanted=st.sampled_from(get_args(Dtype)),
        stored=st.sampled_from(["", "bfloat16", "float16", "float32", "float64", "f8_e4m3"]),
        quantisation=st.sampled_from([None, "gptq"]),
        published_so=st.just(False),
    ),
    st.builds(MachineFacts, device=st.sampled_from(get_args(Device)), installed=st.frozensets(st.sampled_from([*ALL]))),
    st.sampled_from(["", *ALL]),
    st.sets(st.sampled_from([*ALL]), min_size=1),
)
def test_a_choice_can_serve_and_every_other_one_has_its_reason(
    model: ModelFacts, machine: MachineFacts, asked_for: str, there: set[str]
) -> None:
    """Whatever the facts: never a runtime that cannot, every runtime accounted for, and a refusal with evidence."""
    runtimes = {name: runtime for name, runtime in THREE.items() if name in there | {asked_for} - {""}}
    able = []
    for name in runtimes:
        with contextlib.suppress(ArchitectureUnsupported, RuntimeUnsuitable):
            able.append(choose(model, machine, name, runtimes).runtime)
    if not (able if not asked_for else asked_for in able):
        with pytest.raises((ArchitectureUnsupported, RuntimeUnsuitable)) as raised:
            choose(model, machine, asked_for, runtimes)
        assert raised.value.evidence
        return
    choice = choose(model, machine, asked_for, runtimes)
    assert choice.runtime in able
    [line] = [one for one in TABLE if (one.runtime, one.device) == (choice.runtime, machine.device)]
    assert model.model_type in runtimes[choice.runtime].model_types
    assert model.task in line.tasks
    assert line.precisions is None or model.precision in line.precisions
    assert not line.halves or model.wanted != "auto" or model.stored in {"bfloat16", "float16"}
    assert model.quantisation is None
    assert choice.reason
    assert choice.runtime == (asked_for or choice.runtime)
    rejected = dict(choice.rejected)
    assert all(rejected.values())
    assert all(f"not {name}" in choice.sentence for name in runtimes.keys() - {choice.runtime})
    assert choice.runtime not in rejected


def test_the_table_has_every_runtime_on_every_device() -> None:
    """No runtime that is registered is left without a line, and all but a device's first say what is against them."""
    for device in get_args(Device):
        lines = [line for line in TABLE if line.device == device]
        assert set(RUNTIMES) <= {line.runtime for line in lines}
        assert [bool(line.but) for line in lines] == [False, *[True] * (len(lines) - 1)]


def test_every_architecture_that_the_documents_name_is_served() -> None:
    """By some runtime, on a CPU."""
    for model_type in ("llama", "gemma2", "gpt_bigcode", "mpt", "phi3", "qwen3_moe", "deepseek_v3", "granitemoe"):
        assert choose(ModelFacts(model_type=model_type, stored="bfloat16"), MachineFacts()).runtime in RUNTIMES


def test_facts_are_read_from_headers_and_reports() -> None:
    """Most of the bytes decide the precision; a GPU in the report makes the machine one with CUDA."""
    facts = ModelFacts(model_type="llama", stored=stored_in({"F32": 10, "BF16": 1000}))
    assert (facts.stored, facts.precision) == ("bfloat16", "bfloat16")
    assert msgspec.structs.replace(facts, wanted="float16").precision == "float16"
    assert stored_in({}) == ""
    runtimes = (RuntimeReport(name="vllm", installed=False), RuntimeReport(name="openvino", installed=True))
    node = Node(id="n", boot_id="b", memory_bytes=1, cores=1, runtimes=runtimes, last_seen_at=0.0)
    assert machine_of(node) == MachineFacts(device="cpu", installed=frozenset({"openvino"}))
    gpu = Node(id="n", boot_id="b", memory_bytes=1, cores=1, hardware={"gpus": [{"name": "L4"}]}, last_seen_at=0.0)
    assert machine_of(gpu).device == "cuda"


LLAMA = ModelFacts(model_type="llama", stored="bfloat16")
CPU = MachineFacts(installed=ALL)
TWO_GPUS = MachineFacts(device="cuda", gpus=2, installed=ALL)


@pytest.mark.parametrize(
    ("machine", "asked_for", "spec", "chosen"),
    [
        (CPU, "", ServingSpec(prefix_caching=True), "openvino"),
        (CPU, "transformers", ServingSpec(prefix_caching=False), "transformers"),
        (CPU, "", ServingSpec(chat_template="{{ messages }}"), "openvino"),
        (CPU, "", ServingSpec(tool_parser="pythonic"), "vllm"),
        (TWO_GPUS, "", ServingSpec(tensor_parallel=2), "vllm"),
        (TWO_GPUS, "vllm", ServingSpec(tensor_parallel=2, tool_parser="hermes", prefix_caching=True), "vllm"),
    ],
)
def test_a_wish_leads_to_a_runtime_that_can(
    machine: MachineFacts, asked_for: str, spec: ServingSpec, chosen: str
) -> None:
    """What was left open goes to the first that can do all that is wished."""
    choice = choose(LLAMA, machine, asked_for, THREE, spec=spec)
    assert choice.runtime == chosen
    if chosen == "vllm" and machine is CPU:
        assert choice.sentence.startswith("Runtime vllm: the first that does what --tool-parser wants, for llama")
        assert "not openvino: it reads tool calls by the marks in the chat template" in choice.sentence


@pytest.mark.parametrize(
    ("machine", "asked_for", "spec", "evidence", "fix"),
    [
        (CPU, "", ServingSpec(tensor_parallel=2), "vllm: it would share the model among 2 GPUs, and", "--tensor-p"),
        (CPU, "vllm", ServingSpec(tensor_parallel=2), "this machine has none", "--tensor-parallel"),
        (
            CPU,
            "openvino",
            ServingSpec(tensor_parallel=2),
            "it computes on the CPU alone, not on 2",
            "--tensor-parallel",
        ),
        (TWO_GPUS, "", ServingSpec(tensor_parallel=4), "among 4 GPUs, and this machine has 2", "--tensor-parallel"),
        (TWO_GPUS, "transformers", ServingSpec(tensor_parallel=2), "on one device, not on 2", "vllm can"),
        (TWO_GPUS, "openvino", ServingSpec(tensor_parallel=2), "on the CPU alone", "vllm can"),
        (CPU, "transformers", ServingSpec(prefix_caching=True), "every prompt from its beginning", "openvino can"),
        (CPU, "openvino", ServingSpec(tool_parser="hermes"), "by the marks in the chat template", "vllm can"),
        (CPU, "transformers", ServingSpec(tool_parser="hermes"), "by the marks in the chat template", "vllm can"),
        (
            CPU,
            "",
            ServingSpec(tool_parser="hermit"),
            "no tool parser 'hermit'; it has apertus, cohere",
            "--tool-parser",
        ),
        (CPU, "vllm", ServingSpec(tool_parser="hermit"), "step3p5, xlam.", "Leave out --tool-parser."),
    ],
)
def test_a_wish_that_cannot_be_fulfilled_is_refused_and_never_ignored(
    machine: MachineFacts, asked_for: str, spec: ServingSpec, evidence: str, fix: str
) -> None:
    """With the reason, and with what to leave out, or which runtime can."""
    with pytest.raises(RuntimeUnsuitable) as raised:
        choose(LLAMA, machine, asked_for, THREE, spec=spec)
    assert evidence in raised.value.evidence
    assert fix in raised.value.fix
    assert "as asked for" in raised.value.message


def test_a_model_that_nothing_knows_is_no_matter_of_wishes() -> None:
    """Leaving something out would not help it."""
    with pytest.raises(ArchitectureUnsupported) as raised:
        choose(ModelFacts(model_type="jais1"), CPU, "", THREE, spec=ServingSpec(tensor_parallel=2))
    assert "Leave out" not in raised.value.fix


def test_a_machines_gpus_are_counted() -> None:
    """As its agent reported them."""
    node = Node(id="n", boot_id="b", memory_bytes=1, cores=1, last_seen_at=0.0, hardware={"gpus": [{}, {}]})
    assert (machine_of(node).device, machine_of(node).gpus) == ("cuda", 2)


def test_own_code_is_run_by_who_can() -> None:
    """An architecture that only the folder's code knows goes to transformers on every device; openvino runs no code."""
    own = ModelFacts(model_type="river", stored="bfloat16", own_code="runs", own_class=True, own_base=True)
    devices: tuple[Device, ...] = ("cpu", "cuda")
    for device in devices:
        chosen = choose(own, MachineFacts(device=device, gpus=1), runtimes=THREE)
        assert chosen.runtime == "transformers"
        assert chosen.reason.startswith("it runs the model's own code, for river")
        assert "not openvino: it runs no model's own code" in chosen.sentence
        assert "not vllm: it runs only code that is written for its own attention" in chosen.sentence
        assert choose(own, MachineFacts(device=device, gpus=1), "vllm", THREE).runtime == "vllm"
    with pytest.raises(ArchitectureUnsupported, match="openvino cannot serve"):
        choose(own, MachineFacts(), "openvino", THREE)
    shared = choose(own, MachineFacts(device="cuda", gpus=2), runtimes=THREE, spec=ServingSpec(tensor_parallel=2))
    assert shared.runtime == "vllm"
    with pytest.raises(ArchitectureUnsupported, match="AutoModel, which the folder's auto_map does not name"):
        choose(msgspec.structs.replace(own, own_base=False), MachineFacts(), "vllm", THREE)


def test_own_code_runs_for_an_architecture_that_is_known_too() -> None:
    """What an operator allowed is run, and not passed over by a runtime that does without it."""
    known = ModelFacts(model_type="llama", stored="bfloat16", own_code="runs", own_class=True)
    assert choose(known, MachineFacts(), runtimes=THREE).runtime == "transformers"
    ignored = msgspec.structs.replace(known, own_code="ignored")
    assert choose(ignored, MachineFacts(), runtimes=THREE).runtime == "openvino"


def test_code_that_nobody_allowed_serves_nothing_and_the_fix_says_how() -> None:
    """The refusal names the flag only where the code has the class that is needed."""
    ignored = ModelFacts(model_type="river", own_code="ignored", own_class=True)
    for asked_for in ("", "transformers"):
        with pytest.raises(ArchitectureUnsupported) as refused:
            choose(ignored, MachineFacts(), asked_for, THREE)
        assert "headrace deploy --allow-custom-code" in refused.value.fix
    for useless in (
        msgspec.structs.replace(ignored, own_class=False),
        ModelFacts(model_type="river", own_code="runs"),
        ModelFacts(model_type="river"),
    ):
        with pytest.raises(ArchitectureUnsupported) as refused:
            choose(useless, MachineFacts(), runtimes=THREE)
        assert "--allow-custom-code" not in refused.value.fix


@pytest.mark.parametrize(
    ("model_type", "name", "told"),
    [
        ("big_bird", "BigBirdForMaskedLM", "BigBirdForMaskedLM reads texts and writes none"),
        ("llama", "LlamaForSequenceClassification", "writes none"),
        ("t5", "T5EncoderModel", "writes none"),
        ("whisper", "WhisperForConditionalGeneration", "never sees the prompt"),
        ("prophetnet", "", "never sees the prompt"),
    ],
)
@pytest.mark.parametrize("device", get_args(Device))
def test_what_writes_no_text_is_not_served_as_if_it_did(device: Device, model_type: str, name: str, told: str) -> None:
    """A class that judges texts, and half of a model that reads something else first, are told before they start."""
    model = ModelFacts(model_type=model_type, stored="bfloat16", architectures=(name,) if name else ())
    with pytest.raises(ArchitectureUnsupported) as caught:
        choose(model, MachineFacts(device=device, gpus=int(device == "cuda")))
    assert told in caught.value.evidence


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("big_bird", "BigBirdForCausalLM"),
        ("whisper", "WhisperForCausalLM"),
        ("t5", "T5ForConditionalGeneration"),
        ("gemma3", "Gemma3ForConditionalGeneration"),
        ("llama", "LlamaModel"),
        ("gpt2", "GPT2LMHeadModel"),
    ],
)
def test_what_writes_is_served(model_type: str, name: str) -> None:
    """A decoder's own class, an encoder-decoder that the engine knows, a model that sees, a class of any other name."""
    assert choose(ModelFacts(model_type=model_type, stored="bfloat16", architectures=(name,)), MachineFacts())


def test_an_encoder_decoder_embeds_nothing() -> None:
    """A T5 with the files of sentence-transformers is told so, and not that its engine died."""
    with pytest.raises(ArchitectureUnsupported) as caught:
        choose(ModelFacts(model_type="t5", task="embed", stored="float32"), MachineFacts())
    assert "no embeddings with encoder-decoders" in caught.value.evidence
