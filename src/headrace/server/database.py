"""Which database a server keeps its rows in: a file of its own, or the operator's PostgreSQL."""

from __future__ import annotations

from importlib.util import find_spec

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from headrace.resources.errors import BadField
from headrace.resources.files import write_private
from headrace.resources.layout import Layout

DRIVER = "psycopg"


def available() -> bool:
    """Whether the driver for PostgreSQL is installed: the extra ``headrace[postgresql]``."""
    return find_spec(DRIVER) is not None


def read_url(text: str) -> str:
    """The address of a PostgreSQL database, with its driver.

    >>> read_url("postgresql://serving@db.example.org/headrace")
    'postgresql+psycopg://serving@db.example.org/headrace'

    Raises:
        BadField: It is none.
    """
    try:
        url = make_url(text)
    except ArgumentError:  # says the text, which may hold a password
        url = None
    if url is None or url.drivername not in ("postgres", "postgresql", f"postgresql+{DRIVER}") or not url.database:
        raise BadField(
            "The address of the database is not one of PostgreSQL.",
            evidence=f"It is one of {url.drivername!r}." if url is not None else "It has another form.",
            fix="Write postgresql://USER@HOST/DATABASE; a password may be in ~/.pgpass or $PGPASSWORD.",
        )
    return url.set(drivername=f"postgresql+{DRIVER}").render_as_string(hide_password=False)


def keep_url(layout: Layout, url: str) -> None:
    """Tell this server's processes which database it is; empty: the file in the data directory."""
    if url:
        write_private(layout.database_url, url.encode())
    else:
        layout.database_url.unlink(missing_ok=True)


def url_of(layout: Layout) -> str:
    """The database of this server, as `headrace.store` takes it."""
    try:
        return layout.database_url.read_text()
    except FileNotFoundError:
        return f"sqlite:///{layout.database}"
