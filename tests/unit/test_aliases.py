"""Aliases of versions: their form, and the moves between versions."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.resources.aliases import AliasChange, check_aliases, merged, read_change
from headrace.resources.errors import BadField, StillInUse
from headrace.resources.models import ModelVersion
from headrace.resources.names import DEFAULT_SCOPE

NAMES = ("default", "prod", "golden", "v-one")
NUMBERS = ("1", "2", "3")


def version(number: str, *aliases: str) -> ModelVersion:
    """One version of a model."""
    return ModelVersion(
        scope=DEFAULT_SCOPE, model_id="m", version=number, artifact_uri="/m", aliases=aliases, created_at=1.0
    )


@pytest.mark.parametrize("alias", ["default", "v1", "a-B-9", "ab", "a" * 128])
def test_aliases(alias: str) -> None:
    """Letters, digits and hyphens, from 2 to 128."""
    check_aliases([alias], field="f")


@pytest.mark.parametrize("alias", ["", "a", "1", "12", "A1", "a_b", "a-", "-a", "aB", "ä1", "a b", "a" * 129, "a\n"])
def test_no_aliases(alias: str) -> None:
    """What could be taken for a version, or is no name, is none."""
    with pytest.raises(BadField, match="no alias"):
        check_aliases([alias], field="f")


def test_a_change_is_read() -> None:
    """A hyphen in front removes; what comes and goes is left alone; nothing is no change."""
    assert read_change(["ab", "-cd"], field="f") == AliasChange(frozenset({"ab"}), frozenset({"cd"}))
    assert read_change(["ab", "-ab"], field="f") == AliasChange()
    for wrong in ([], ["--ab"], ["-"], ["x y"]):
        with pytest.raises(BadField):
            read_change(wrong, field="f")


def test_an_alias_moves() -> None:
    """It leaves the version that has it, the default one too."""
    before = [version("1", "default", "prod"), version("2")]
    after = merged(before, "2", AliasChange(frozenset({"default"})))
    assert {one.version: one.aliases for one in after} == {"1": ("prod",), "2": ("default",)}


def test_the_default_alias_is_never_gone() -> None:
    """It is refused to take it off the version that has it; off another one that is no change."""
    both = [version("1", "default"), version("2")]
    with pytest.raises(StillInUse):
        merged(both, "1", AliasChange(removed=frozenset({"default"})))
    assert merged(both, "2", AliasChange(removed=frozenset({"default", "prod"}))) == []


CHANGES = st.tuples(
    st.sampled_from(NUMBERS),
    st.lists(st.sampled_from([*NAMES, *(f"-{name}" for name in NAMES)]), min_size=1, max_size=5),
)


@given(st.lists(CHANGES, max_size=12))
def test_whatever_happens_each_alias_is_one_versions(changes: list[tuple[str, list[str]]]) -> None:
    """After any changes no alias is at two versions, one version is the default, and what was asked for is so."""
    held = {"1": version("1", "default"), "2": version("2"), "3": version("3")}
    for number, said in changes:
        change = read_change(said, field="f")
        try:
            changed = merged(held.values(), number, change)
        except StillInUse:
            continue
        held |= {one.version: one for one in changed}
        assert change.added <= set(held[number].aliases)
        assert not change.removed & set(held[number].aliases)
        every = [alias for one in held.values() for alias in one.aliases]
        assert len(every) == len(set(every))
        assert "default" in every


@given(st.lists(CHANGES, min_size=1, max_size=1))
def test_what_is_left_alone_is_not_written(changes: list[tuple[str, list[str]]]) -> None:
    """Only versions whose aliases differ come back, with nothing else about them changed."""
    before = [version("1", "default", "golden"), version("2", "prod"), version("3")]
    [(number, said)] = changes
    try:
        changed = merged(before, number, read_change(said, field="f"))
    except StillInUse:
        return
    for one in changed:
        (was,) = (each for each in before if each.version == one.version)
        assert one != was
        assert msgspec.structs.replace(one, aliases=was.aliases) == was
