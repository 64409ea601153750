"""What the supervisor tells its children on their command lines."""

from __future__ import annotations

import sys

import pytest

from headrace.server import process


@pytest.mark.parametrize("values", [[], ["one"], ["one", "two"]])
@pytest.mark.parametrize("option", ["--cors-origin", "--external-network"])
def test_what_is_repeated_arrives(monkeypatch: pytest.MonkeyPatch, option: str, values: list[str]) -> None:
    """An option may be given any number of times, or not at all."""
    parser = process.arguments("a child")
    parser.add_argument(option, action="append", default=[])
    given = [f"{option}={value}" for value in values]
    monkeypatch.setattr(sys, "argv", ["child", "--data-dir", "d", "--parent", "1", "--notify-fd", "1", *given])
    assert getattr(process.parse(parser), option[2:].replace("-", "_")) == values
