"""Inference tables: where an endpoint's requests and answers go as rows of a Delta table, and what a row has.

The columns are those of the vendor's tables for endpoints with an AI gateway:
https://docs.databricks.com/en/ai-gateway/inference-tables.html.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.contracts.databricks.reading import SHOWN
from headrace.resources.errors import BadField

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,126}")
"""Of a catalog, a schema or a table: one name of a folder, whatever it is."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")

TABLE_SUFFIX = "_payload"
"""The vendor's own."""

MAX_REQUEST_SIZE_EXCEEDED = "MAX_REQUEST_SIZE_EXCEEDED"
MAX_RESPONSE_SIZE_EXCEEDED = "MAX_RESPONSE_SIZE_EXCEEDED"
UNREADABLE_PAYLOAD = "UNREADABLE_PAYLOAD"
"""Ours; the other two are the vendor's."""


class InferenceTableConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where the rows go.

    Attributes:
        enabled: Whether rows are added. What is there stays.
        table_name_prefix: The endpoint's name where it is left out.
    """

    enabled: bool = False
    catalog_name: str | None = None
    schema_name: str | None = None
    table_name_prefix: str | None = None


class InferenceTable(msgspec.Struct, frozen=True):
    """The names of one table.

    Attributes:
        name: With `TABLE_SUFFIX`.
    """

    catalog: str
    schema: str
    name: str

    @property
    def full_name(self) -> str:
        """In three levels."""
        return f"{self.catalog}.{self.schema}.{self.name}"


def inference_table(config: InferenceTableConfig, endpoint_name: str) -> InferenceTable:
    """The table of an endpoint.

    Raises:
        BadField: A name is missing, or cannot be one.
    """
    names = {"catalog_name": config.catalog_name, "schema_name": config.schema_name}
    for field, name in names.items():
        if not name:
            raise BadField(f"inference_table_config needs {field}.", fix="Give catalog_name and schema_name.")
        _check_name(field, name)
    prefix = config.table_name_prefix
    if prefix:
        _check_name("table_name_prefix", prefix)
    else:
        prefix = _NOT_IN_NAMES.sub("_", endpoint_name)[:100] or "endpoint"
    return InferenceTable(config.catalog_name or "", config.schema_name or "", f"{prefix}{TABLE_SUFFIX}")


def config_in(kept: Any) -> InferenceTableConfig:
    """What is kept of an endpoint; one that is not enabled where nothing is."""
    try:
        return msgspec.convert(kept or {}, InferenceTableConfig)
    except msgspec.ValidationError:
        return InferenceTableConfig()


def logging_error_codes(note: str) -> list[str]:
    """What of a row could not be written, as codes.

    Args:
        note: The request log's, parted by ``;``.
    """
    codes = []
    for part in (part.strip() for part in note.split(";")):
        if part == "request too large":
            codes.append(MAX_REQUEST_SIZE_EXCEEDED)
        elif part in {"response too large", "response cut"}:
            codes.append(MAX_RESPONSE_SIZE_EXCEEDED)
        elif part:
            codes.append(UNREADABLE_PAYLOAD)
    return codes


def client_request_id(request: bytes | None) -> str | None:
    """What the caller named its request in the body, as the vendor's clients may; None where it did not."""
    if request is None or b'"client_request_id"' not in request:
        return None
    try:
        return msgspec.json.decode(request, type=_Named).client_request_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class _Named(msgspec.Struct):
    client_request_id: str | None = None


def _check_name(field: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadField(
            f"{field} cannot be a name.",
            evidence=f"It is {name[:SHOWN]!r}.",
            fix="A name has up to 127 letters, digits, underscores and hyphens, and does not begin with a hyphen.",
        )
