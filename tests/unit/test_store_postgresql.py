"""What only PostgreSQL does: it stops, comes back, and refuses what SQLite takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from headrace.resources.errors import BadField, DatabaseAway
from headrace.resources.models import Model
from headrace.resources.names import DEFAULT_SCOPE
from headrace.server.database import read_url
from headrace.store import Store, migrate
from postgres_cluster import Cluster, running_cluster

pytestmark = pytest.mark.needs_pg_ctlcluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL."""
    with running_cluster() as cluster:
        yield cluster


def test_a_database_that_stops_is_away_and_comes_back(cluster: Cluster) -> None:
    """Meanwhile every transaction says so, one that was under way is as if it had never begun, and nothing is lost."""
    url = cluster.new_database()
    migrate(url)
    store = Store(url)
    with store.transaction() as tx:
        tx.insert(_model("a"))
    with pytest.raises(DatabaseAway):
        _insert_and(cluster.stop, store)
    for read_only in (True, False):
        with pytest.raises(DatabaseAway), store.transaction(read_only=read_only) as tx:
            tx.list(Model)
    with pytest.raises(DatabaseAway):
        migrate(url)
    cluster.start()
    with store.transaction() as tx:
        assert [row.id for row in tx.list(Model)] == ["a"]
    store.close()


def test_who_reads_does_not_notice_that_it_was_started_anew(cluster: Cluster) -> None:
    """Connections that were left from before are not tried before they are used: who meets one reads once more."""
    url = cluster.new_database()
    migrate(url)
    store = Store(url, threads=2)

    async def read() -> list[list[Model]]:
        ask = store.run(lambda tx: tx.list(Model), read_only=True)
        return list(await asyncio.gather(ask, store.run(lambda tx: tx.list(Model), read_only=True)))

    assert asyncio.run(read()) == [[], []]
    cluster.stop()
    with pytest.raises(DatabaseAway):
        asyncio.run(read())
    cluster.start()
    assert asyncio.run(read()) == [[], []]
    cluster.stop()
    cluster.start()
    assert asyncio.run(read()) == [[], []]
    store.close()


def test_what_its_texts_cannot_have_is_the_callers_mistake(cluster: Cluster) -> None:
    """The character NUL is refused by name, not with a failure of ours."""
    url = cluster.new_database()
    migrate(url)
    store = Store(url)
    with pytest.raises(BadField, match="NUL"), store.transaction() as tx:
        tx.insert(_model("a", display_name="a\0b"))
    store.close()


@pytest.mark.parametrize(
    "wrong", ["", "headrace.db", "sqlite:///headrace.db", "mysql://a:secret@b/c", "postgresql://b"]
)
def test_an_address_of_something_else_is_refused(wrong: str) -> None:
    """With how one is written, and without the password that may be in it."""
    with pytest.raises(BadField, match="postgresql://USER@HOST/DATABASE") as refused:
        read_url(wrong)
    assert "secret" not in str(refused.value)


def _insert_and(happen: Callable[[], None], store: Store) -> None:
    with store.transaction() as tx:
        tx.insert(_model("b"))
        happen()
        tx.list(Model)


def _model(model_id: str, display_name: str = "m") -> Model:
    return Model(scope=DEFAULT_SCOPE, id=model_id, display_name=display_name, created_at=1.0, updated_at=1.0)
