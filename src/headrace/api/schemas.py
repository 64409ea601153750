"""The schemas of the OpenAPI document, made from the structs that parse bodies and make answers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from headrace.api.description import Description, Noun, Shape
from headrace.api.native.nouns import SECRETS

_REFERENCE = "#/components/schemas/"
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
_STRING = {"type": "string"}


class Schemas:
    """Resolves what descriptions name, and collects the schemas that are referred to by name.

    Args:
        descriptions: All that will be resolved.

    Attributes:
        components: By name.
    """

    def __init__(self, descriptions: Iterable[Description]) -> None:
        found = list(_named(list(descriptions)))
        kinds = list(dict.fromkeys(one.kind if isinstance(one, Noun) else one for one in found))
        nouns = {one.kind: one for one in found if isinstance(one, Noun)}
        references, components = msgspec.json.schema_components(kinds, ref_template=_REFERENCE + "{name}")
        short = {name: ".".join(name.split(".")[-2:]) for name in components}
        self._references = {
            kind: _REFERENCE + short[reference["$ref"].removeprefix(_REFERENCE)]
            for kind, reference in zip(kinds, references, strict=True)
        }
        made = {short[name]: _documented(_renamed(schema, short)) for name, schema in components.items()}
        for kind, noun in nouns.items():
            name = self._references[kind].removeprefix(_REFERENCE)
            made[name] = _as_shown(made[name], noun)
        self.components = dict(sorted(made.items()))
        self._drop_unused(kinds)

    def resolved(self, shape: Shape) -> Any:
        """A shape as JSON Schema."""
        if isinstance(shape, Noun):
            reference = {"$ref": self._references[shape.kind]}
            if not shape.more:
                return reference
            more = {"type": "object", "properties": {name: self.resolved(each) for name, each in shape.more.items()}}
            return {"allOf": [reference, more]}
        if isinstance(shape, type):
            return {"$ref": self._references[shape]}
        if isinstance(shape, Mapping):
            return {name: self.resolved(each) for name, each in shape.items()}
        return [self.resolved(each) for each in shape] if isinstance(shape, list | tuple) else shape

    def _drop_unused(self, kinds: Sequence[type]) -> None:
        """Keep what is referred to: a row's scope, for one, is shown as two fields."""
        left = [self._references[kind].removeprefix(_REFERENCE) for kind in kinds]
        used: set[str] = set()
        while left:
            name = left.pop()
            if name not in used:
                used.add(name)
                left += [each.removeprefix(_REFERENCE) for each in _references_in(self.components[name])]
        self.components = {name: schema for name, schema in self.components.items() if name in used}


def _named(shape: Any) -> Iterator[type | Noun]:
    """Every struct and noun in descriptions."""
    if isinstance(shape, Description):
        yield from _named([shape.body, shape.answer])
    elif isinstance(shape, Noun):
        yield shape
        yield from _named(list(shape.more.values()))
    elif isinstance(shape, type):
        yield shape
    elif isinstance(shape, Mapping):
        yield from _named(list(shape.values()))
    elif isinstance(shape, list | tuple):
        for each in shape:
            yield from _named(each)


def _as_shown(schema: Mapping[str, Any], noun: Noun) -> dict[str, Any]:
    """A row's schema as `noun_json` shows it."""
    hidden = SECRETS | noun.without | {"scope"}
    properties = {name: each for name, each in schema["properties"].items() if name not in hidden}
    if "scope" in schema["properties"]:
        properties = {"project": _STRING, "location": _STRING, **properties}
    if hasattr(noun.kind, "name") and "name" not in properties:
        properties = {"name": {**_STRING, "description": "Full resource name."}, **properties}
    required = [name for name in schema.get("required", ()) if name in properties]
    return {**schema, "properties": properties, "required": required}


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """A schema whose references have the short names."""
    if isinstance(schema, dict):
        return {
            key: _REFERENCE + names[value.removeprefix(_REFERENCE)] if key == "$ref" else _renamed(value, names)
            for key, value in schema.items()
        }
    return [_renamed(each, names) for each in schema] if isinstance(schema, list) else schema


def _references_in(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for each in schema.values():
            yield from _references_in(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from _references_in(each)


def _documented(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose description is the docstring's text, and whose properties have what it says of attributes."""
    text, _, attributes = inspect.cleandoc(schema.get("description", "")).partition("\n\nAttributes:\n")
    said = {name: " ".join(words.split()) for name, words in _ATTRIBUTE.findall(attributes)}
    properties = {
        name: {**each, "description": said[name]} if name in said else each
        for name, each in schema.get("properties", {}).items()
    }
    described = {**schema, "description": text} if text else schema
    return {**described, "properties": properties} if properties else described
