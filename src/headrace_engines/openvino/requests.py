"""What this engine takes of what the seam allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from headrace_engines.serving.generator import GenerationRequest, Grammar, GrammarInvalid

UNHEEDED = frozenset(
    {
        "contains", "dependencies", "dependentRequired", "dependentSchemas", "else", "if", "maxContains", "minContains",
        "multipleOf", "not", "then", "uniqueItems",
    }
)  # fmt: skip
"""Keywords that xgrammar, which GenAI compiles schemas with, reads over without a word: answers broke them here."""

TOGETHER = (
    ({"pattern", "format"}, {"minLength", "maxLength"}),
    ({"propertyNames"}, {"properties", "patternProperties", "unevaluatedProperties"}),
    ({"patternProperties"}, {"properties"}),
)
"""Keywords of which one of each side makes it read over the other (vllm/v1/structured_output/backend_xgrammar.py,
``has_xgrammar_unsupported_json_features``, and the issues of xgrammar that it names)."""

FORMATS = frozenset(
    {
        "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "json-pointer", "relative-json-pointer",
        "time", "uri", "uri-reference", "uri-template", "uuid",
    }
)  # fmt: skip
"""Those that it holds; any other lets every string through."""

_SCHEMAS = (
    "additionalProperties",
    "items",
    "additionalItems",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAPS = ("$defs", "definitions", "patternProperties", "properties")


def require_possible(request: GenerationRequest) -> None:
    """Refuse what GenAI would answer with something else.

    Raises:
        GrammarInvalid: The text could go on, or have to, after the grammar's end: GenAI then lets any token in. Or the
            schema asks for what it does not hold.
    """
    if request.grammar is None:
        return
    if request.ignore_eos or request.min_tokens:
        raise GrammarInvalid("this engine ends a text where its grammar does; leave out `ignore_eos` and `min_tokens`.")
    if request.grammar.kind == "json_schema":
        _require_heeded(request.grammar)


def _require_heeded(grammar: Grammar) -> None:
    try:
        unheeded = next(_unheeded(msgspec.json.decode(grammar.text)), None)
    except (msgspec.DecodeError, RecursionError) as error:
        raise GrammarInvalid(f"it is no JSON schema that can be read ({error}).") from error
    if unheeded is not None:
        raise GrammarInvalid(f"openvino's grammars do not hold {unheeded}; transformers or vllm may.")


def _unheeded(schema: Any) -> Iterator[str]:
    """What is asked for in vain, in a schema and those within it."""
    if not isinstance(schema, dict):
        return
    yield from _unheeded_here(schema)
    lists = [*(schema.get(name) for name in _LISTS), *(_values(schema.get(name)) for name in _MAPS)]
    within = [each for one in lists if isinstance(one, list) for each in one]
    for each in (*within, *(schema.get(name) for name in _SCHEMAS)):
        yield from _unheeded(each)


def _unheeded_here(schema: dict[str, Any]) -> Iterator[str]:
    yield from (f"`{name}`" for name in sorted(UNHEEDED & schema.keys()) if schema[name] is not False)
    for ones, others in TOGETHER:
        if (one := ones & schema.keys()) and (other := others & schema.keys()):
            yield f"`{min(one)}` together with `{min(other)}`"
    for name in ("patternProperties", "allOf"):
        if isinstance(several := schema.get(name), dict | list) and len(several) > 1:
            yield f"more than one of `{name}`"
    if isinstance(form := schema.get("format"), str) and form not in FORMATS:
        yield f"the format {form!r}"
    if isinstance(to := schema.get("$ref"), str) and not to.startswith("#"):
        yield f"a reference to elsewhere ({to!r})"


def _values(schemas: Any) -> list[Any]:
    return list(schemas.values()) if isinstance(schemas, dict) else []
