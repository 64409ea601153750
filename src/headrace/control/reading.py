"""A version's weights, read while no row is held: a store may hang, and a transaction keeps all others waiting.

Which weights a transaction needs only its rows tell. So one that meets weights that nobody has read is rolled back
(`Unread`), and done again once they are at hand (`with_weights`). Only whoever asked waits for the store.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import msgspec

from headrace.resources.errors import HeadraceError, NotOptimizable
from headrace.resources.external import EXTERNAL
from headrace.resources.layout import Layout
from headrace.resources.models import ModelVersion
from headrace.storage import Credentials, open_artifacts, require_own
from headrace.store import Transaction
from headrace.weights import inspect
from headrace.weights.custom_code import OwnCode, own_code
from headrace.weights.folder import ModelFolder
from headrace.weights.reader import FolderReader, ReadOnce

READ_TIMEOUT_S = 45.0
"""How long a store may take to list a model and give its small files and headers. Less than clients wait (60 s), who
would not learn otherwise which store hangs."""

_STAGED_KEPT = 64
"""Staged copies whose headers are remembered: what a list of profiles asks of each version is read once."""

T = TypeVar("T")


class Weights(msgspec.Struct, frozen=True):
    """What is read of a version's files.

    Attributes:
        code: What the folder asks for of its own; None: nothing.
    """

    folder: ModelFolder
    code: OwnCode | None


class Source(msgspec.Struct, frozen=True):
    """Where the weights of a version are.

    Attributes:
        project: Whose credentials open it.
        fingerprint: As in `ModelVersion`.
        data_dir: Where credentials are, and what nodes of this machine staged; None: neither.
    """

    uri: str
    project: str
    fingerprint: str
    data_dir: Path | None

    @property
    def staged(self) -> Path | None:
        """The copy that a node staged here; None: there is none."""
        if self.data_dir is None or not self.fingerprint:
            return None
        folder = Layout(self.data_dir).models_dir / self.fingerprint
        return folder if folder.is_dir() else None


class Unread(Exception):
    """A transaction needs weights that nobody has read."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.uri)
        self.source = source


_AT_HAND: ContextVar[Mapping[Source, Weights] | None] = ContextVar("weights at hand", default=None)
"""What was read for the transaction of this thread; None: nobody reads for it."""

_UNDER_WAY: dict[Source, Future[Weights | NotOptimizable]] = {}
"""Readings that go on, so that however many ask for what a hanging store has, one thread waits for it."""

_LOCK = threading.Lock()


def source_of(version: ModelVersion, data_dir: Path | None) -> Source:
    """Where a version's weights are.

    Raises:
        NotOptimizable: It has none: it is served by somebody else.
    """
    if version.spec.external is not None or version.spec.runtime == EXTERNAL:
        raise NotOptimizable(
            "No throughput of somebody else's server can be promised.",
            evidence=f"Version {version.version} of model {version.model_id!r} is served at {version.artifact_uri}.",
        )
    return Source(version.artifact_uri, version.scope.project, version.fingerprint, data_dir)


def staged_weights(version: ModelVersion, data_dir: Path | None) -> Weights | None:
    """A version's weights, of the copy that a node staged here; None: there is none. No store is asked.

    Raises:
        NotOptimizable: They are somebody else's, or the copy cannot be read.
    """
    source = source_of(version, data_dir)
    return _staged(source.staged) if source.staged is not None else None


def weights_of(version: ModelVersion, data_dir: Path | None) -> Weights:
    """A version's weights, for a transaction: of the copy that a node staged here, else as they were read before.

    Raises:
        Unread: `with_weights` is to read them first.
        NotOptimizable: There are none, or they are not here and nobody reads them for this transaction.
    """
    here = staged_weights(version, data_dir)
    if here is not None:
        return here
    source, at_hand = source_of(version, data_dir), _AT_HAND.get()
    if at_hand is None:
        raise _unreadable(f"No copy of {source.uri} is here, and no store is asked while rows are held.")
    if source not in at_hand:
        raise Unread(source)
    return at_hand[source]


async def with_weights(
    run: Callable[[Callable[[Transaction], T]], Awaitable[T]],
    work: Callable[[Transaction], T],
    *,
    timeout_s: float = READ_TIMEOUT_S,
) -> T:
    """Do this in a transaction, with whatever weights it asks for (`weights_of`) read before it.

    Args:
        run: Does work in a transaction of its own: `Store.run`.
        work: It; done again for each version whose weights were not at hand, so it should change nothing but rows.
        timeout_s: How long a store may take.

    Raises:
        NotOptimizable: Weights cannot be read, or not in time; the address is named.
    """
    at_hand: dict[Source, Weights] = {}

    def done(tx: Transaction) -> T:
        before = _AT_HAND.set(at_hand)
        try:
            return work(tx)
        finally:
            _AT_HAND.reset(before)

    while True:
        try:
            return await run(done)
        except Unread as unread:
            at_hand[unread.source] = await _read_in_time(unread.source, timeout_s)


async def _read_in_time(source: Source, timeout_s: float) -> Weights:
    reading = asyncio.wrap_future(_begin(source))
    await asyncio.wait((reading,), timeout=timeout_s)  # it goes on without us: others may wait for it
    if not reading.done():
        raise _unreadable(
            f"{source.uri} gave no answer within {timeout_s:g} s.", fix="Look whether its store can be reached."
        )
    found = reading.result()
    if isinstance(found, NotOptimizable):
        raise found
    return found


def _begin(source: Source) -> Future[Weights | NotOptimizable]:
    """Have it read by a thread of its own: those of a pool would all end up waiting for one store that hangs."""
    with _LOCK:
        if source not in _UNDER_WAY:
            reading = _UNDER_WAY[source] = Future()
            reading.set_running_or_notify_cancel()  # whoever leaves takes it from nobody
            thread = threading.Thread(target=_finish, args=(source, reading), name=f"read {source.uri}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the machine has no more of them now
                del _UNDER_WAY[source]
                raise
            return reading
        return _UNDER_WAY[source]


def _finish(source: Source, reading: Future[Weights | NotOptimizable]) -> None:
    try:
        found: Weights | NotOptimizable = read_weights(source)
    except NotOptimizable as error:
        found = error
    except Exception as error:  # a defect: told to whoever waits
        _forget(source)
        reading.set_exception(error)
        return
    _forget(source)
    reading.set_result(found)


def _forget(source: Source) -> None:
    with _LOCK:
        del _UNDER_WAY[source]


def read_weights(source: Source) -> Weights:
    """A version's listing, small files and headers; from the copy that a node staged here, if there is one.

    It asks the store, so no transaction does it.

    Raises:
        NotOptimizable: They cannot be read, or there are none.
    """
    if source.staged is not None:
        return _staged(source.staged)
    try:
        require_own(source.uri, source.project, source.data_dir)
        options = {}
        if source.data_dir is not None:
            options = Credentials(Layout(source.data_dir).credentials).options(source.project, source.uri)
        return _looked_at(open_artifacts(source.uri, options))
    except HeadraceError as error:
        raise _unreadable(f"{source.uri}: {error.code}: {error.message}", fix=error.fix) from error


def _staged(folder: Path) -> Weights:
    try:
        return _staged_kept(folder)
    except HeadraceError as error:
        raise _unreadable(f"{folder}: {error.code}: {error.message}", fix=error.fix) from error


@lru_cache(maxsize=_STAGED_KEPT)
def _staged_kept(folder: Path) -> Weights:
    """Its name says what it has, so that is read once by each process."""
    return _looked_at(open_artifacts(str(folder)))


def _looked_at(artifacts: FolderReader) -> Weights:
    reader = ReadOnce(artifacts)
    return Weights(inspect(reader), own_code(reader))


def _unreadable(evidence: str, *, fix: str = "") -> NotOptimizable:
    return NotOptimizable(
        "What the model's replica carries cannot be told: its weights cannot be read.", evidence=evidence, fix=fix
    )
