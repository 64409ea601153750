"""What a request says about the form of its answer, as a `Grammar`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from headrace_engines.serving.errors import BadRequest
from headrace_engines.serving.followable import refused, require_followable, schema_grammar
from headrace_engines.serving.generator import Grammar
from headrace_engines.serving.json_text import NotAnObject, TooDeep, object_in
from headrace_engines.serving.wrong_values import explain

ANY_OBJECT = '{"type":"object"}'
"""The schema of ``json_object``."""


class _Text(msgspec.Struct, tag_field="type", tag="text"):
    pass


class _JsonObject(msgspec.Struct, tag_field="type", tag="json_object"):
    pass


class _NamedSchema(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_\-]{1,64}$")]
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None  # the grammar is always followed


class _JsonSchema(msgspec.Struct, tag_field="type", tag="json_schema"):
    json_schema: _NamedSchema


class StructuredOutputs(msgspec.Struct, forbid_unknown_fields=True):
    """vLLM's ``structured_outputs``; exactly one field is set.

    Attributes:
        json: A JSON Schema, as an object or as JSON text.
        regex: A pattern for the whole answer.
        choice: The answers there are.
        json_object: Any JSON object.
    """

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    json_object: bool | None = None


def response_format_grammar(value: dict[str, Any] | None) -> Grammar | None:
    """The grammar of OpenAI's ``response_format``; None for text.

    Raises:
        BadRequest: It is not of OpenAI's shape, or no engine could follow it.
    """
    if value is None:
        return None
    try:
        form = msgspec.convert(value, _Text | _JsonObject | _JsonSchema)
    except msgspec.ValidationError as error:
        sentence, _ = explain(error, value, "response_format")
        raise BadRequest(sentence, param="response_format", code="invalid_value") from error
    if isinstance(form, _JsonSchema):
        return schema_grammar(form.json_schema.schema, "response_format")
    return Grammar(kind="json_schema", text=ANY_OBJECT) if isinstance(form, _JsonObject) else None


def structured_outputs_grammar(value: StructuredOutputs, param: str) -> Grammar:
    """The grammar of vLLM's ``structured_outputs``, however it was said.

    Raises:
        BadRequest: Not exactly one of its fields is set, or the schema is no JSON object, or no engine could follow it.
    """
    said = [name for name in value.__struct_fields__ if getattr(value, name) not in (None, False)]
    if len(said) != 1:
        raise BadRequest(
            f"`{param}` takes exactly one of json, regex, choice and json_object.", param=param, code="invalid_value"
        )
    if value.regex is not None:
        return require_followable(Grammar(kind="regex", text=value.regex), param)
    if value.choice is not None:
        return require_followable(Grammar(kind="regex", text="|".join(map(re.escape, value.choice))), param)
    if value.json_object:
        return Grammar(kind="json_schema", text=ANY_OBJECT)
    schema = value.json
    if isinstance(schema, str):
        try:
            schema = object_in(schema)
        except TooDeep as error:
            raise refused(f"{error}.", param) from error
        except NotAnObject as error:
            why = f"`{param}`: the schema is no JSON object: {error}."
            raise BadRequest(why, param=param, code="invalid_value") from error
    assert schema is not None  # the one field that is left
    return schema_grammar(schema, param)
