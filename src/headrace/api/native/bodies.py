"""Bodies of the native API: JSON of a stated shape, nothing else."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from fastapi import Request

from headrace.api.requests import body_of
from headrace.resources.errors import BadField, BadJson

T = TypeVar("T", bound=msgspec.Struct)


async def read_body(request: Request, shape: type[T]) -> T:
    """The body as its shape.

    Raises:
        BadJson: It is not JSON.
        BadField: A field is missing, unknown or of the wrong type.
        BodyTooLarge: It is over the limit.
    """
    body = await body_of(request)
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        fields = ", ".join(shape.__struct_fields__)
        raise BadField("The body has a wrong field.", evidence=str(error), fix=f"The fields are: {fields}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadJson("The body is not valid JSON.", evidence=str(error)) from error
