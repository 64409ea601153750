"""Whether a grammar can be followed at all, as far as its text alone tells: the same answer for every engine."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import msgspec

from headrace_engines.serving.ambiguity import why_too_ambiguous
from headrace_engines.serving.errors import ApiError, api_error_from
from headrace_engines.serving.generator import Grammar, GrammarInvalid
from headrace_engines.serving.repetition import MAX_COUNTED, counted_repetitions

GRAMMAR_MAX_CHARS = 64 * 1024
"""The longest schema or pattern. Those that people write have some thousand characters; one that is much longer keeps
an engine's compiler, and with it everybody's structured output, busy for minutes."""

SCHEMA_MAX_DEPTH = 128
"""Levels of a schema; one of twenty is deep."""

MULTIPLE_MAX_STEPS = 10_000
"""Remainders of `multipleOf` that are told apart. Laying out 9,973 takes transformers 0.06 s, 99,991 a second, 999,983
fifteen."""

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
"""Compilers of grammars count in 64 bits."""

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def require_followable(grammar: Grammar, param: str) -> Grammar:
    """The grammar, unless it is too long, or a pattern counts too many repetitions within one another.

    Raises:
        ApiError: 400, ``grammar_invalid``; it names the parameter.
    """
    if len(grammar.text) > GRAMMAR_MAX_CHARS:
        raise refused(f"it has {len(grammar.text):,} characters, and at most {GRAMMAR_MAX_CHARS:,} are read.", param)
    if grammar.kind == "regex" and (why := _too_many_repetitions(grammar.text)):
        raise refused(why, param)
    return grammar


def schema_grammar(schema: dict[str, Any], param: str) -> Grammar:
    """A schema as a grammar.

    Raises:
        ApiError: As `require_schema` and `require_followable`.
    """
    require_schema(schema, param)
    return require_followable(Grammar(kind="json_schema", text=msgspec.json.encode(schema).decode()), param)


def require_schema(schema: Any, param: str) -> None:
    """Refuse a schema that is too deep, counts beyond 64 bits, leads to itself, or would cost everybody seconds.

    That it does by a pattern's repetitions within one another, or by what numbers are to be multiples of.

    Raises:
        ApiError: As `require_followable`.
    """
    if why := _why_not(schema):
        raise refused(why, param)


def refused(why: str, param: str) -> ApiError:
    """The error of a grammar that cannot be followed, as its parameter's."""
    return api_error_from(GrammarInvalid(why), grammar_param=param)


def _why_not(schema: Any) -> str:
    objects: list[dict[str, Any]] = []
    for number, (value, depth) in enumerate(walk(schema)):
        if number >= GRAMMAR_MAX_CHARS:  # a value has a character at least
            return f"it has more than the {GRAMMAR_MAX_CHARS:,} characters that are read at most."
        if depth > SCHEMA_MAX_DEPTH:
            return f"it is more than {SCHEMA_MAX_DEPTH} levels deep."
        if isinstance(value, dict):
            objects.append(value)
        if _is_beyond(value) or (isinstance(value, dict) and _has_bound_beyond(value)):
            return "it has a whole number that does not fit 64 bits."
    if why := _costly(objects):
        return why
    endless = _endless(schema, objects)
    return "" if endless is None else f"its reference {endless[:100]!r} leads to itself."


def walk(schema: Any) -> Iterator[tuple[Any, int]]:
    """Every value in a schema, with its depth; not by recursion, which is what a deep one would exhaust."""
    stack = [(schema, 1)]
    while stack:
        value, depth = stack.pop()
        yield value, depth
        if isinstance(value, dict | list):
            stack += [(each, depth + 1) for each in (value.values() if isinstance(value, dict) else value)]


def _is_beyond(value: object) -> bool:
    return isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX


def _has_bound_beyond(schema: dict[str, Any]) -> bool:
    """Whether whole numbers have a bound beyond 64 bits that is written as 1e30."""
    kinds = schema.get("type")
    if "integer" not in (kinds if isinstance(kinds, list) else [kinds]):
        return False
    bounds = (schema.get(name) for name in _BOUNDS)
    return any(isinstance(bound, float) and not _INT_MIN <= bound < _INT_MAX for bound in bounds)


def _costly(objects: list[dict[str, Any]]) -> str:
    """Why a schema would hold up everybody who shares the engine; empty where it would not."""
    for schema in objects:
        named = schema.get("patternProperties")
        for pattern in (schema.get("pattern"), *(named if isinstance(named, dict) else ())):
            if isinstance(pattern, str) and (why := _too_many_repetitions(pattern)):
                return why
    steps = sum(_steps_together(schema) for schema in objects)
    if steps > MULTIPLE_MAX_STEPS:
        return f"its `multipleOf` tells {steps:,} remainders apart, and at most {MULTIPLE_MAX_STEPS:,} are followed."
    return ""


def _steps_together(schema: dict[str, Any]) -> int:
    """Remainders of all that one number has to be a multiple of; 0 for nothing."""
    every = schema.get("allOf")
    together = [schema, *(every if isinstance(every, list) else ())]
    wanted = [each["multipleOf"] for each in together if isinstance(each, dict) and "multipleOf" in each]
    return math.prod(map(_steps, wanted)) if wanted else 0


def _steps(multiple: Any) -> int:
    """How many remainders a division by it has: its digits, without zeros at both ends, which only shift the point."""
    if isinstance(multiple, bool) or not isinstance(multiple, int | float) or not math.isfinite(multiple):
        return 1
    digits = Decimal(str(multiple)).as_tuple().digits
    return max(1, int("".join(map(str, digits)).rstrip("0") or "1"))


def _too_many_repetitions(pattern: str) -> str:
    counted = counted_repetitions(pattern)
    if counted <= MAX_COUNTED:
        return why_too_ambiguous(pattern)
    return f"a pattern has {counted:,} repetitions within one another, and at most {MAX_COUNTED:,} are followed."


def _endless(root: Any, objects: list[dict[str, Any]]) -> str | None:
    """A reference that is only ever replaced by another one, and so says nothing; None without any.

    What says something is found first: what refers to nothing, then what refers only to such, and so on.
    """
    needs = {id(each): _alternatives(root, each) for each in objects}
    said_of: dict[int, list[int]] = defaultdict(list)
    for each, groups in needs.items():
        for other in {other for group in groups for other in group}:
            said_of[other].append(each)
    says_something: set[int] = set()
    to_look_at = list(needs)
    while to_look_at:
        each = to_look_at.pop()
        if each in says_something or not all(any(other in says_something for other in group) for group in needs[each]):
            continue
        says_something.add(each)
        to_look_at += said_of[each]
    rest = (each for each in objects if id(each) not in says_something)
    return next((each["$ref"] for each in rest if isinstance(each.get("$ref"), str)), None)


def _alternatives(root: Any, schema: dict[str, Any]) -> list[list[int]]:
    """The objects that stand in a schema's own place, in groups: of each group one has to say something."""
    groups: list[list[Any]] = []
    reference = schema.get("$ref")
    if isinstance(reference, str) and (target := target_of(root, reference)) is not None:
        groups.append([target])
    every = schema.get("allOf")
    groups += [[each] for each in every] if isinstance(every, list) else []
    groups += [either for name in ("anyOf", "oneOf") if isinstance(either := schema.get(name), list) and either]
    # Anything but an object (true, or what is no schema) refers to nothing.
    return [list(map(id, group)) for group in groups if all(isinstance(each, dict) for each in group)]


def target_of(root: Any, reference: str) -> dict[str, Any] | None:
    """The object that a reference into its own document leads to; None for any other."""
    if not reference.startswith("#"):
        return None
    found = root
    for name in unquote(reference[1:]).split("/")[1:]:
        key = name.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and key.isascii() and int(key[:9]) < len(found):
            found = found[int(key[:9])]
        else:
            found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None
