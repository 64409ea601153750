"""Schemas that OpenVINO's grammars would hold in part only are refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headrace_engines.openvino.requests import require_possible
from headrace_engines.serving.generator import GenerationRequest, Grammar, GrammarInvalid, Sampling


def require(schema: Any) -> None:
    """Ask for an answer that matches a schema."""
    text = schema if isinstance(schema, str) else msgspec.json.encode(schema).decode()
    grammar = Grammar(kind="json_schema", text=text)
    require_possible(GenerationRequest(prompt_ids=[1], max_tokens=1, sampling=Sampling(), grammar=grammar))


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": {}}, "`not`"),
        ({"type": "array", "items": {"type": "integer", "multipleOf": 3}}, "`multipleOf`"),
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, "`uniqueItems`"),
        ({"if": {"type": "string"}, "then": {"minLength": 2}}, "`if`"),
        ({"$defs": {"a": {"dependentSchemas": {"b": {}}}}}, "`dependentSchemas`"),
        ({"type": "string", "format": "nope"}, "'nope'"),
        ({"anyOf": [{"$ref": "http://10.0.0.1/schema"}]}, "elsewhere"),
        ({"allOf": [{"type": "string"}, {"enum": ["yes"]}]}, "`allOf`"),
        ({"type": "string", "pattern": "a+", "maxLength": 3}, "`pattern` together with `maxLength`"),
        ({"propertyNames": {"maxLength": 3}, "properties": {}}, "`propertyNames`"),
        ({"patternProperties": {"^a": {}, "^b": {}}}, "`patternProperties`"),
        ("[" * 100_000, "schema"),
    ],
)
def test_what_would_be_read_over_is_refused_by_name(schema: Any, named: str) -> None:
    """An answer either holds all of its schema, or there is none and the reason names the keyword."""
    with pytest.raises(GrammarInvalid) as caught:
        require(schema)
    assert named in caught.value.message


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"not": {"type": "string"}, "if": {"enum": ["multipleOf"]}}},
        {"type": "string", "format": "date-time", "description": "not unique"},
        {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"},
        {"allOf": [{"type": "string", "pattern": "a+"}]},
        {"type": "array", "items": {"const": {"not": 1}}, "uniqueItems": False},
        {"enum": [{"format": "nope"}], "default": {"not": {}}},
        True,
    ],
)
def test_what_only_looks_like_it_is_taken(schema: Any) -> None:
    """Properties and constants may be called as keywords are, and what asks for nothing is no reason to refuse."""
    require(schema)
