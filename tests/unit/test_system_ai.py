"""The catalogue `system.ai`: the Garden's models by names of three levels, with Databricks' rule for Llama."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.catalogue import entries
from headrace.control.garden import Located
from headrace.control.system_ai import (
    entity_of_garden,
    find_published,
    name_of,
    published,
    register_published,
)
from headrace.resources.errors import InstructOnly, ModelNotFound
from headrace.resources.models import ModelVersion
from headrace.resources.names import DEFAULT_SCOPE
from headrace.resources.unity_catalog import FullName, read_full_name
from headrace.store import Store, migrate


def name(text: str) -> FullName:
    """A model of the catalogue."""
    return read_full_name(f"system.ai.{text}")


def test_every_published_model_has_a_name_of_its_own() -> None:
    """A name that is read back as it is, and leads to the model."""
    assert len(published()) == len(entries())
    for entry in entries():
        assert read_full_name(str(name_of(entry))) == name_of(entry)
        assert find_published(name_of(entry)) is entry


@pytest.mark.parametrize("text", ["llama_3_1_8b_instruct", "llama-3_1-8b-instruct", "meta_llama_v3_1_8b_instruct"])
def test_names_as_databricks_writes_them(text: str) -> None:
    """With the publisher's name in front and a v before the number, too."""
    assert find_published(name(text)).hub == "meta-llama/Llama-3.1-8B-Instruct"
    assert entity_of_garden(name(text)).catalogue.endswith("@llama-3.1-8b-instruct")


def test_what_is_not_there_names_the_nearest() -> None:
    """A model, or a version: each has one."""
    with pytest.raises(ModelNotFound) as refused:
        find_published(name("gemma_3_1b_itt"))
    assert "system.ai.gemma_3_1b_it" in refused.value.fix
    with pytest.raises(ModelNotFound, match="version '2'"):
        entity_of_garden(name("gemma_3_1b_it"), "2")


def test_llama_is_deployed_as_instruct_only() -> None:
    """A base model of Llama is refused and the Instruct one of its size named; base models of others are not."""
    for entry in entries():
        if entry.publisher == "meta" and not entry.instruct:
            with pytest.raises(InstructOnly) as refused:
                entity_of_garden(name_of(entry))
            same_size = [each for each in entries() if each.instruct and each.parameters == entry.parameters]
            named = [each for each in same_size if str(name_of(each)) in refused.value.fix]
            assert named or not [each for each in same_size if each.model == entry.model], entry.version
        else:
            assert entity_of_garden(name_of(entry)).catalogue == entry.id
    with pytest.raises(InstructOnly, match="Instruct only") as refused:
        entity_of_garden(name("llama_3_2_1b"))
    assert "system.ai.llama_3_2_1b_instruct" in refused.value.fix


def test_what_is_deployed_gets_a_row_once(tmp_path: Path) -> None:
    """The same model and version again for the next deploy; where its weights are now is what is kept."""
    url = f"sqlite:///{tmp_path / 'db'}"
    migrate(url)
    store = Store(url)
    wanted = name("smollm2_135m_instruct")
    for address in ("/a", "/a", "/b"):
        located = Located(address, "SmolLM2", "publishers/x/models/y@z")
        with store.transaction() as tx:
            model, version = register_published(tx, DEFAULT_SCOPE, wanted, located, now=1.0)
            assert (model.display_name, version.version, version.artifact_uri) == (str(wanted), "1", address)
            assert len(tx.list(ModelVersion, scope=DEFAULT_SCOPE)) == 1
    store.close()
