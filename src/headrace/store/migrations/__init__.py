"""Brings a database to the tables that this version knows."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from headrace.store.database import open_engine, told_as_ours

HEAD = "0021"
"""The newest migration; a test holds that Alembic thinks so too."""


def migrate(url: str) -> None:
    """Make or change the tables until they are this version's; quick when they are.

    Raises:
        DatabaseAway: PostgreSQL cannot be reached.
    """
    path = make_url(url).database
    if url.startswith("sqlite") and path:
        # Replicas' nonces are in it. SQLite gives its -wal and -shm files the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = open_engine(url, connections=1)
    try:
        with told_as_ours(engine):
            with engine.connect() as connection:
                if _revision(connection) == HEAD:
                    return
            with engine.begin() as connection:
                _upgrade(connection)
    finally:
        engine.dispose()


def _revision(connection: Connection) -> str | None:
    try:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except ProgrammingError:  # no such table, says PostgreSQL
        return None
    except OperationalError as error:
        if error.connection_invalidated or connection.dialect.name != "sqlite":
            raise
        return None  # the same of SQLite


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - 40 MB and 0.3 s that a start without migrations can do without
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
