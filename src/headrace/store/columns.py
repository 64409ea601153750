"""The kinds of columns that tables have: text, numbers, times, members of enumerations, and nested values as JSON."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Dialect, Double, PrimaryKeyConstraint, Text, TypeDecorator

_ENCODER = msgspec.json.Encoder()


class Json(TypeDecorator[Any]):
    """A nested value as JSON text; None is NULL."""

    impl = Text
    cache_ok = True

    def __init__(self, target: Any) -> None:
        super().__init__()
        self.target = target
        self._decoder = msgspec.json.Decoder(target)  # once: to understand the type takes longer than a value

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """To text."""
        return None if value is None else _ENCODER.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - as above
        """And back."""
        return None if value is None else self._decoder.decode(value)


class Name(TypeDecorator[Any]):
    """A member of an enumeration, as its text."""

    impl = Text
    cache_ok = True

    def __init__(self, target: type[StrEnum]) -> None:
        super().__init__()
        self.target = target

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """To text; a name that is no member is refused."""
        return None if value is None else str(self.target(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - as above
        """And back."""
        return None if value is None else self.target(value)


def scope_columns() -> tuple[Column[str], Column[str]]:
    """Of every noun that belongs to a project and a location."""
    return text_column("project"), text_column("location")


def text_column(name: str) -> Column[str]:
    """Text that is there."""
    return Column(name, Text, nullable=False)


def int_column(name: str) -> Column[int]:
    """A whole number of 64 bits."""
    return Column(name, BigInteger, nullable=False)


def time_column(name: str) -> Column[float]:
    """Unix seconds."""
    return Column(name, Double, nullable=False)


def json_column(name: str, target: Any, *, nullable: bool = False) -> Column[Any]:
    """A nested value."""
    return Column(name, Json(target), nullable=nullable)


def name_column(name: str, target: type[StrEnum]) -> Column[Any]:
    """A member of an enumeration."""
    return Column(name, Name(target), nullable=False)


def scoped_key(*names: str) -> PrimaryKeyConstraint:
    """A primary key below a project and a location."""
    return PrimaryKeyConstraint("project", "location", *names)
