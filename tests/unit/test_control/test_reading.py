"""Weights that a transaction needs: read before it, and no store that hangs keeps anybody else waiting."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from headrace.control.reading import READ_TIMEOUT_S, Weights, staged_weights, weights_of, with_weights
from headrace.resources.errors import NotOptimizable
from headrace.resources.layout import Layout
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import DEFAULT_SCOPE as SCOPE
from headrace.storage import Credentials
from headrace.store import Store, Transaction, migrate
from small_models import write_llama

T = TypeVar("T")

READERS = 6
"""More than the store has threads."""


class HangingStore:
    """An S3 store that takes connections and never says a word, until it hangs up."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def hang_up(self) -> None:
        """End all that wait, and whoever comes. Once more does no harm."""
        if not self._thread.is_alive():
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _accept(self) -> None:
        while True:
            try:
                self._connections.append(self._listener.accept()[0])
            except OSError:
                return
            self.asked.set()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty one."""
    url = f"sqlite:///{tmp_path / 'db'}"
    migrate(url)
    store = Store(url)
    yield store
    store.close()


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[HangingStore]:
    """It, as the one that the project's credentials lead to."""
    hanging = HangingStore()
    values = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": hanging.address}
    Credentials(Layout(tmp_path).credentials).set(SCOPE.project, "s3", values)
    yield hanging
    hanging.hang_up()


def version_at(uri: str) -> ModelVersion:
    """A version of what lies there."""
    return ModelVersion(scope=SCOPE, model_id="m", version="1", artifact_uri=uri, created_at=1.0)


def read(store: Store, work: Callable[[Transaction], T], *, timeout_s: float = READ_TIMEOUT_S) -> T:
    """Do this in a transaction, with what it needs read before."""
    return asyncio.run(with_weights(store.run, work, timeout_s=timeout_s))


def test_only_who_asked_waits_for_a_store_that_hangs(store: Store, hanging: HangingStore, tmp_path: Path) -> None:
    """Others read and write meanwhile, however many wait; these end with an error that names the store."""
    version = version_at("s3://bucket/model")
    model = Model(scope=SCOPE, id="m", display_name="m", created_at=1.0, updated_at=1.0)

    async def main() -> list[Weights | BaseException]:
        work = [with_weights(store.run, lambda tx: weights_of(version, tmp_path)) for _ in range(READERS)]
        waiting = [asyncio.create_task(each) for each in work]
        await asyncio.to_thread(hanging.asked.wait)
        await store.run(lambda tx: tx.insert(model))
        assert await store.run(lambda tx: tx.list(Model), read_only=True) == [model]
        assert not any(each.done() for each in waiting)
        await asyncio.to_thread(hanging.hang_up)
        return await asyncio.gather(*waiting, return_exceptions=True)

    for ended in asyncio.run(main()):
        assert isinstance(ended, NotOptimizable)
        assert "s3://bucket/model" in ended.evidence


def test_a_store_that_hangs_is_given_up(store: Store, hanging: HangingStore, tmp_path: Path) -> None:
    """After the time that it may take, with its address."""
    version = version_at("s3://bucket/model")
    with pytest.raises(NotOptimizable, match="cannot be read") as refused:
        read(store, lambda tx: weights_of(version, tmp_path), timeout_s=0.01)
    assert "s3://bucket/model gave no answer within" in refused.value.evidence


def test_a_transaction_is_done_again_once_what_it_needs_is_read(store: Store, tmp_path: Path) -> None:
    """For each of its versions, and leaves its rows once."""
    versions = [version_at(write_llama(tmp_path / name).as_uri()) for name in ("a", "b")]

    def work(tx: Transaction) -> list[Weights]:
        tx.insert(Model(scope=SCOPE, id="m", display_name="m", created_at=1.0, updated_at=1.0))
        return [weights_of(version, tmp_path) for version in versions]

    assert [each.folder.config.model_type for each in read(store, work)] == ["llama", "llama"]
    assert len(read(store, lambda tx: tx.list(Model))) == 1


def test_nothing_is_remembered_of_a_folder_that_may_change(store: Store, tmp_path: Path) -> None:
    """The next transaction reads it again."""
    version = version_at(write_llama(tmp_path / "a").as_uri())
    read(store, lambda tx: weights_of(version, tmp_path))
    (tmp_path / "a" / "config.json").unlink()
    with pytest.raises(NotOptimizable, match="cannot be read"):
        read(store, lambda tx: weights_of(version, tmp_path))


def test_a_staged_copy_is_read_where_the_weights_came_from_somewhere_else(store: Store, tmp_path: Path) -> None:
    """What a node of this machine has of a version that was checked; its source may be away."""
    version = msgspec.structs.replace(version_at((tmp_path / "gone").as_uri()), fingerprint="f" * 64)
    assert staged_weights(version, tmp_path) is None
    with pytest.raises(NotOptimizable, match="cannot be read"):
        read(store, lambda tx: weights_of(version, tmp_path))
    write_llama(tmp_path / "models" / version.fingerprint)
    assert read(store, lambda tx: weights_of(version, tmp_path)) == staged_weights(version, tmp_path)


def test_who_holds_rows_and_has_nobody_to_read_goes_by_staged_copies_alone(store: Store, tmp_path: Path) -> None:
    """As a pass of the reconciler does."""
    version = version_at(write_llama(tmp_path / "a").as_uri())
    with store.transaction(), pytest.raises(NotOptimizable, match="cannot be read") as refused:
        weights_of(version, tmp_path)
    assert "No copy" in refused.value.evidence
    write_llama(tmp_path / "models" / "staged")
    with store.transaction():
        assert weights_of(msgspec.structs.replace(version, fingerprint="staged"), tmp_path).folder.config.model_type
