"""The catalogue as data: complete, counted by the code that plans, and its machines those of the plan."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_models import V2

from headrace.capacity import count_parameters
from headrace.catalogue import (
    Entry,
    entries,
    entry_json,
    find_entry,
    find_on_hub,
    hub_id,
    notebook_of,
    options_of,
    read_mirror,
)
from headrace.catalogue.entries import HUB_NAME
from headrace.cli.planning import Machines, Wish, plan_model
from headrace.resources.errors import BadField, ModelNotFound
from headrace.resources.models import ServingSpec
from headrace.runtimes import MachineFacts, choose, facts_of
from headrace.weights.base_models import base_model, base_models

ALL = pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.id)
NAMES_ON_HUB = {  # where a name in V2's list is not how the Hub's name begins
    "Llama-2-7b": "Llama-2-7b-hf",
    "Llama-2-13b": "Llama-2-13b-hf",
    "CodeLlama-13b": "CodeLlama-13b-hf",
    "gemma-3-1b": "gemma-3-1b-pt",
    "gemma-3-4b": "gemma-3-4b-pt",
    "gemma-3-12b": "gemma-3-12b-pt",
    "gemma-3-27b": "gemma-3-27b-pt",
    "medgemma-4b": "medgemma-4b-pt",
    "medgemma-27b-text": "medgemma-27b-text-it",
    "Qwen3-Coder-480B-A35B": "Qwen3-Coder-480B-A35B-Instruct",
    "Qwen3-Next-80B-A3B": "Qwen3-Next-80B-A3B-Instruct",
}


@pytest.mark.parametrize("name", V2)
def test_every_base_model_of_the_list_is_in_it(name: str) -> None:
    """Each model of V2's list has an entry, whose count of parameters is the published one."""
    hub = NAMES_ON_HUB.get(name, name)
    (found,) = [entry for entry in entries() if entry.hub.partition("/")[2] == hub]
    assert found.parameters == V2[name].parameters


@ALL
def test_sizes_are_what_the_code_counts(entry: Entry) -> None:
    """An entry's parameters agree with what is counted from its configuration within 1 %."""
    counted = count_parameters(entry.shape)
    assert counted is not None
    assert counted.total == pytest.approx(entry.parameters, rel=0.01)
    assert entry.context_tokens > 0
    assert entry.family == entry.shape.model_type.removesuffix("_text")


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("llama-4-scout-17b-16e", 262_144),
        ("llama-4-scout-17b-16e-instruct", 10_485_760),
        ("llama-4-maverick-17b-128e-instruct", 1_048_576),
        ("qwen2-1.5b", 131_072),
        ("qwen2-1.5b-instruct", 32_768),
        ("qwen2.5-7b", 131_072),
        ("qwen2.5-7b-instruct", 32_768),
    ],
)
def test_versions_of_a_size_have_their_own_context(name: str, tokens: int) -> None:
    """Where an instruct version was made for longer or shorter sequences than its base model, its entry says so."""
    entry = find_entry(name)
    assert entry.context_tokens == tokens
    assert f"sequences of up to {tokens:,} tokens" in notebook_of(entry)["cells"][0]["source"]


def test_the_recogniser_knows_every_entry() -> None:
    """The recogniser of base models finds each entry by its configuration, and every listed base model has one."""
    recognised = {entry.id: base_model(entry.config, entry.parameters) for entry in entries() if not entry.demo}
    assert not [entry_id for entry_id, model in recognised.items() if model is None]
    assert {model.name for model in recognised.values() if model} == {model.name for model in base_models()}


@ALL
def test_quantised_entries_are_so_natively(entry: Entry) -> None:
    """What an entry's weights are quantised in is what its publisher releases that base model in."""
    model = base_model(entry.config, entry.parameters)
    assert entry.shape.quantisation == (model.native_quantisation if model else None)


@ALL
def test_names_find_their_entry(entry: Entry) -> None:
    """An entry is found by each of its names, in any case: clients write them small."""
    owner, _, name = entry.hub.partition("/")
    garden_names = [f"publishers/hf-{owner.lower()}/models/{name.lower()}{version}" for version in ("", "@001")]
    for each in (entry.id, entry.name, entry.id.upper(), entry.version, *garden_names):
        assert find_entry(each) == entry
    assert find_on_hub(entry.hub.lower()) == entry
    assert hub_id(entry.hub.lower()) == entry.hub


def test_names_are_unique() -> None:
    """No two entries share an identifier, a version's name or a name on the Hub."""
    for name in ("id", "version", "hub"):
        names = [getattr(entry, name).lower() for entry in entries()]
        assert len(names) == len(set(names)), name
    assert all(HUB_NAME.fullmatch(entry.hub) for entry in entries())
    assert [entry.version for entry in entries() if entry.demo] == ["smollm2-135m-instruct"]


def test_a_model_without_a_version_is_its_first() -> None:
    """PUBLISHER/MODEL stands for the first version that the catalogue lists."""
    assert find_entry("google/gemma3").version == "gemma-3-1b-pt"
    assert find_entry("publishers/google/models/gemma3@default").version == "gemma-3-1b-pt"


@pytest.mark.parametrize(
    "name", ["google/gemma3@gemma-3-2b", "gogle/gemma3", "gemma", "", "a/b/c", "@", "hf-a/b", "é/ü"]
)
def test_a_name_that_is_none_is_told_so(name: str) -> None:
    """What is not in the catalogue is a model that was not found, never another one."""
    with pytest.raises(ModelNotFound) as told:
        find_entry(name)
    assert "headrace garden" in told.value.fix


def test_a_near_miss_is_told_what_is_near() -> None:
    """A misspelt name gets the name that it resembles."""
    with pytest.raises(ModelNotFound) as told:
        find_entry("google/gemma3@gemma-3-1b-itt")
    assert "google/gemma3@gemma-3-1b-it" in told.value.fix


@ALL
def test_machines_are_those_of_the_plan(entry: Entry, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each recommended machine is one that `headrace plan` finds room on, by the entry's runtime; cheap to dear."""
    options = options_of(entry)
    assert options
    prices = [option.shape.usd_per_h or 0 for option in options]
    assert prices == sorted(prices)
    machines = Machines(tmp_path_factory.getbasetemp())
    for option in options:
        assert option.shape.accelerator is not None
        name = f"{option.shape.name}:{option.shape.accelerator.name}:{option.shape.accelerator_count}"
        answer = plan_model(entry.folder, Wish(machine=name), machines)
        assert answer.deployable
        assert (answer.plan, answer.load.runtime) == (option.plan, option.runtime)


@ALL
def test_the_runtime_is_the_one_that_would_be_chosen(entry: Entry) -> None:
    """An entry's runtime is the choice for its machines: a GPU, or for what is small processors."""
    device = "cpu" if entry.runtime == "openvino" else "cuda"
    choice = choose(facts_of(entry.folder, ServingSpec()), MachineFacts(device=device, gpus=device == "cuda"))
    assert choice.runtime == entry.runtime


@ALL
def test_notebooks_are_python(entry: Entry) -> None:
    """Each entry's notebook is Python from its first cell to its last, and deploys, asks and deletes that model."""
    cells = notebook_of(entry)["cells"]
    code = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
    ast.parse(code)
    for part in (f'OpenModel("{entry.id}")', "model.deploy(", "endpoint.predict(", "endpoint.delete(force=True)"):
        assert part in code
    assert f"ACCEPT_LICENCE = {not entry.licence.accept}" in code
    told = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    assert entry.licence.url in told
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_what_is_shown_has_what_other_contracts_need() -> None:
    """An entry says whether it follows instructions, its family and its task."""
    shown = entry_json(find_entry("meta/llama3_1@llama-3.1-8b-instruct"))
    assert (shown["instruct"], shown["family"], shown["task"]) == (True, "llama", "generate")
    assert shown["weight_bytes"] == 2 * shown["parameters"]
    assert entry_json(find_entry("openai/gpt-oss"))["weight_bytes"] < shown["weight_bytes"]


@pytest.mark.parametrize(
    ("text", "hub", "address"),
    [
        ("/srv/models", "acme/river", "file:///srv/models/acme/river"),
        ("file:///srv/models/", "Qwen/Qwen3-0.6B", "file:///srv/models/Qwen/Qwen3-0.6B"),
        ("s3://bucket/{publisher}/{model}/{version}", "Qwen/Qwen3-0.6B", "s3://bucket/qwen/qwen3/qwen3-0.6b"),
        ("s3://bucket/{publisher}/{model}", "acme/river", None),
        ("gs://bucket/{name}", "acme/river", "gs://bucket/river"),
        ("meta=/llamas", "meta-llama/Llama-3.1-8B", "file:///llamas/meta-llama/Llama-3.1-8B"),
        ("META-LLAMA=/llamas", "meta-llama/Llama-3.1-8B", "file:///llamas/meta-llama/Llama-3.1-8B"),
        ("meta=/llamas", "acme/river", None),
        ("meta/llama3_1=/llamas/{name}", "meta-llama/Llama-3.1-8B", "file:///llamas/Llama-3.1-8B"),
        ("acme/river=s3://b/k=v/folder", "acme/river", "s3://b/k=v/folder"),
        ("acme/river=/here", "acme/sea", None),
    ],
)
def test_mirrors_make_addresses(text: str, hub: str, address: str | None) -> None:
    """A mirror says where a model lies by its names, and nothing of models that it is not for."""
    assert read_mirror(text).address(hub) == address


@pytest.mark.parametrize("text", ["", "models", "http://x/y", "s3://", "/", "/m/{nam}", "/m/{name", "/m/{}", "x=y"])
def test_what_is_no_mirror_is_refused(text: str) -> None:
    """An address that nobody reads, or with a placeholder that does not exist, is refused when the server starts."""
    with pytest.raises(BadField):
        read_mirror(text)


@settings(deadline=None)
@given(st.text(alphabet="abzAZ019._-/\\{}%@ é", max_size=40))
def test_no_name_leads_out_of_a_mirror(name: str) -> None:
    """Whatever a caller names, a mirror's address is a folder below the mirror, or there is none."""
    try:
        hub = hub_id(name)
    except BadField:
        return
    address = read_mirror("/srv/models").address(hub)
    assert address is not None
    parts = address.removeprefix("file:///srv/models/").split("/")
    assert len(parts) == 2
    assert not any(part.startswith(".") or not part for part in parts)
