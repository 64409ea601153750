"""The database: how it is opened, and how work gets its transaction."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError

from headrace.resources.errors import BadField, DatabaseAway
from headrace.store.transaction import Transaction

T = TypeVar("T")

_BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for one in another process; within this one, writers queue for a lock."""

_CONNECT_TIMEOUT_S = 5
_TRIES = 6
_PAUSE_S = 0.02
"""Before the second try, on average half of it; twice as long before each that follows."""

_IN_THE_WAY = frozenset({"40001", "40P01", "23505"})
"""PostgreSQL's serialization_failure, deadlock_detected and unique_violation: another transaction was in the way, and
this one left no trace. https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html"""


_ROWS_COUNTED = 400
"""Of an index: what SQLite recommends; it takes milliseconds, however many there are."""


class Store:
    """Rows that outlive every process. Synchronous inside, behind a small pool of threads.

    A transaction that was committed survives ``kill -9`` and power loss. Transactions are serialisable: of those that
    write, there is one at a time in this process; one that another process gets in the way of is done again by `run`.

    Args:
        url: As SQLAlchemy takes it: ``sqlite:////path/headrace.db`` or ``postgresql+psycopg://…``. Run
            `headrace.store.migrate` first.
        threads: How many transactions of `run` may be under way.
        clock: Gives Unix seconds, for ``updated_at`` and timelines.
    """

    def __init__(self, url: str, *, threads: int = 4, clock: Callable[[], float] = time.time) -> None:
        self._engine = open_engine(url, connections=threads)
        self._reading = _open_reading(url, connections=threads)
        self._asking = self._reading if url.startswith("sqlite") else _open_asking(url, connections=threads)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._clock = clock
        # SQLite's own queue for its one writer is a sleep and a retry, so ours stands before it.
        self._writer = threading.RLock()

    @contextmanager
    def transaction(self, *, read_only: bool = False, one_query: bool = False) -> Iterator[Transaction]:
        """Begin; commit at the end of the block, or roll back when it raises.

        Args:
            read_only: The block cannot write, so it need not wait for one that does; it sees one moment.
            one_query: It cannot write and asks once, which is a moment by itself: PostgreSQL is told of no beginning
                and no end.

        Raises:
            DatabaseAway: PostgreSQL cannot be reached, or has just stopped.
            BadField: A value cannot be stored.
        """
        with told_as_ours(self._engine):
            if read_only or one_query:
                engine = self._asking if one_query else self._reading
                with engine.connect() as connection:
                    yield Transaction(connection, self._clock)
                return
            with self._writer, self._engine.begin() as connection:
                yield Transaction(connection, self._clock)

    async def run(self, work: Callable[[Transaction], T], *, read_only: bool = False, one_query: bool = False) -> T:
        """Do this in a `transaction`, in one of the store's threads. Cancelling the caller does not stop the work.

        Where another process gets in its way it is rolled back and done again, so it should change nothing but rows.

        Raises:
            DatabaseAway: PostgreSQL cannot be reached, has just stopped, or others got in the way again and again.
        """
        do = partial(self._in_transaction, work, read_only=read_only, one_query=one_query)
        return await asyncio.get_running_loop().run_in_executor(self._threads, do)

    async def count_rows(self) -> None:
        """Have SQLite see how many rows its indexes tell apart, a few hundred of each; PostgreSQL does so by itself.

        Without, it takes an index that gives rows in the order asked for and reads all of them, where another one has
        the few that are asked for.
        """
        if self._engine.dialect.name == "sqlite":
            await asyncio.get_running_loop().run_in_executor(self._threads, self._count_rows)

    def _count_rows(self) -> None:
        with self._writer, self._engine.begin() as connection:
            connection.exec_driver_sql(f"PRAGMA analysis_limit = {_ROWS_COUNTED}")
            connection.exec_driver_sql("ANALYZE")
        self._reading.dispose()  # who is connected goes on by the counts of before; who connects anew reads these

    def close(self) -> None:
        """Let what is under way finish, and close."""
        self._threads.shutdown()
        self._engine.dispose()
        self._reading.dispose()
        self._asking.dispose()

    def _in_transaction(self, work: Callable[[Transaction], T], *, read_only: bool, one_query: bool) -> T:
        for tries in range(_TRIES):
            try:
                with self.transaction(read_only=read_only, one_query=one_query) as transaction:
                    return work(transaction)
            except DatabaseAway:
                # A connection of readers is not tried before it is used, and its server may have been started anew.
                if not (read_only or one_query) or tries:
                    raise
                continue
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _IN_THE_WAY:
                    raise
                problem = error
            time.sleep(random.random() * _PAUSE_S * 2**tries)  # noqa: S311 - so that two do not meet again
        raise DatabaseAway(
            "The database is too busy.", evidence=str(problem.orig), fix="Try again.", retry_after_s=1.0
        ) from problem


def open_engine(url: str, *, connections: int) -> Engine:
    """An engine whose transactions are serialisable and durable."""
    if not url.startswith("sqlite"):
        return _open_server(url, connections=connections, isolation_level="SERIALIZABLE", pool_pre_ping=True)
    # Immediate: a transaction that began as a reader and then writes could fail in its middle.
    return _open_file(url, connections=connections, begin="BEGIN IMMEDIATE")


def _open_reading(url: str, *, connections: int) -> Engine:
    """An engine for transactions that see one moment, wait for nobody, and that nobody can make fail.

    What they are is said once for each connection, and nobody asks before each whether PostgreSQL is still there: of
    the dozen times that the driver waits for a read of one row, that were eight. Who meets a connection that is lost
    tries again.
    """
    if url.startswith("sqlite"):
        engine = _open_file(url, connections=connections, begin="BEGIN DEFERRED")
        event.listen(engine, "connect", _refuse_writes_to_sqlite)
        return engine
    engine = _open_server(url, connections=connections, isolation_level="REPEATABLE READ")
    event.listen(engine, "connect", _prepare_reading)
    return engine


def _open_asking(url: str, *, connections: int) -> Engine:
    """PostgreSQL for single questions, each a transaction that the server begins and ends by itself.

    Every request asks so for its key: that waits for the server once, where it waited three times.
    """
    engine = _open_server(url, connections=connections, isolation_level="AUTOCOMMIT")
    event.listen(engine, "connect", _prepare_asking)
    return engine


def _open_file(url: str, *, connections: int, begin: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S}, pool_size=connections)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _open_server(url: str, *, connections: int, **options: Any) -> Engine:
    known = {"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "headrace"}
    return create_engine(url, pool_size=connections, connect_args=known, **options)


@contextmanager
def told_as_ours(engine: Engine) -> Iterator[None]:
    """What a server of databases says that a file never does, as errors of ours."""
    try:
        yield
    except DBAPIError as error:
        if engine.dialect.name == "sqlite":
            raise
        if isinstance(error, DataError):  # the character NUL, which PostgreSQL's texts cannot have
            raise BadField("A value cannot be stored.", evidence=str(error.orig).strip()) from error
        lost = error.connection_invalidated or getattr(error.orig, "sqlstate", None) is None
        if lost and isinstance(error, OperationalError | InterfaceError):
            raise DatabaseAway(
                "The database cannot be reached.",
                evidence=str(error.orig).strip(),
                fix="Look whether it runs. Requests to models go on meanwhile; changes have to be asked for again.",
                retry_after_s=2.0,
            ) from error
        raise


def _prepare_reading(connection: Any, _record: Any) -> None:
    connection.read_only = True


def _prepare_asking(connection: Any, _record: Any) -> None:
    # The driver says what a transaction is where it begins one, and here it begins none.
    connection.execute("SET default_transaction_read_only = on")


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver is not to begin by itself: `_open_file` has how
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # in WAL mode: fsync at every commit
    connection.execute("PRAGMA foreign_keys = ON")


def _refuse_writes_to_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.execute("PRAGMA query_only = ON")
