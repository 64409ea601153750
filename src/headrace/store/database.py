"""The database: how it is opened, and how work gets its transaction."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event

from headrace.store.transaction import Transaction

T = TypeVar("T")

_BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for one in another process; within this one, writers queue for a lock."""


class Store:
    """Rows that outlive every process. Synchronous inside, behind a small pool of threads.

    A transaction that was committed survives ``kill -9`` and power loss. Transactions are serialisable: of those that
    write, there is one at a time.

    Args:
        url: As SQLAlchemy takes it: ``sqlite:////path/headrace.db`` or ``postgresql+psycopg://…``. Run
            `headrace.store.migrate` first.
        threads: How many transactions of `run` may be under way.
        clock: Gives Unix seconds, for ``updated_at`` and timelines.
    """

    def __init__(self, url: str, *, threads: int = 4, clock: Callable[[], float] = time.time) -> None:
        self._engine = open_engine(url, connections=threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._clock = clock
        # SQLite's own queue for its one writer is a sleep and a retry, so ours stands before it.
        self._writer = threading.RLock()

    @contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[Transaction]:
        """Begin; commit at the end of the block, or roll back when it raises.

        Args:
            read_only: The block will not write, so it need not wait for one that does; it sees one moment.
        """
        if read_only:
            with self._engine.connect().execution_options(headrace_read_only=True) as connection:
                yield Transaction(connection, self._clock)
            return
        with self._writer, self._engine.begin() as connection:
            yield Transaction(connection, self._clock)

    async def run(self, work: Callable[[Transaction], T], *, read_only: bool = False) -> T:
        """Do this in a transaction, in one of the store's threads. Cancelling the caller does not stop the work."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._in_transaction, work, read_only)

    def close(self) -> None:
        """Let what is under way finish, and close."""
        self._threads.shutdown()
        self._engine.dispose()

    def _in_transaction(self, work: Callable[[Transaction], T], read_only: bool) -> T:
        with self.transaction(read_only=read_only) as transaction:
            return work(transaction)


def open_engine(url: str, *, connections: int) -> Engine:
    """An engine whose transactions are serialisable and durable."""
    if not url.startswith("sqlite"):
        return create_engine(url, isolation_level="SERIALIZABLE", pool_size=connections, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S}, pool_size=connections)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver is not to begin by itself: `_begin_sqlite` does
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # in WAL mode: fsync at every commit
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("headrace_read_only")
    # Immediate: a transaction that began as a reader and then writes could fail in its middle.
    connection.exec_driver_sql("BEGIN DEFERRED" if reads else "BEGIN IMMEDIATE")
