"""The store: what is written is read back, nobody's write is lost, and states change through one door."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError

import headrace.store.migrations as migrations
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import BadField, Failure, IllegalMove, NameTaken, StaleWrite
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import DEFAULT_SCOPE, Scope
from headrace.resources.states import DeploymentState, moves_from
from headrace.store import Condition, Order, Row, Store, Transaction, cursor, migrate
from headrace.store.database import open_engine
from headrace.store.rows import NOUNS
from headrace.store.schema import deployments, metadata
from postgres_cluster import running_cluster

DATABASES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.needs_pg_ctlcluster))


@pytest.fixture(scope="module", params=DATABASES)
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Makes an empty database, of each of the two kinds."""
    if request.param == "sqlite":
        yield lambda: f"sqlite:///{tmp_path_factory.mktemp('store')}/headrace.db"
    else:
        with running_cluster() as cluster:
            yield cluster.new_database


@pytest.fixture(scope="module")
def url(new_url: Callable[[], str]) -> str:
    """A migrated database."""
    url = new_url()
    migrate(url)
    return url


@pytest.fixture(scope="module")
def shared(url: str) -> Iterator[Store]:
    """A store whose tests roll back what they write."""
    store = Store(url)
    yield store
    store.close()


@pytest.fixture
def fresh_url(new_url: Callable[[], str]) -> str:
    """A migrated database of the test's own."""
    url = new_url()
    migrate(url)
    return url


@pytest.fixture
def store(fresh_url: str) -> Iterator[Store]:
    """A fresh store."""
    store = Store(fresh_url, clock=lambda: 99.0)
    yield store
    store.close()


class RollBack(Exception):
    """Leaves a transaction without a trace."""


@contextmanager
def passing(store: Store) -> Iterator[Transaction]:
    """A transaction that is rolled back in the end."""
    with contextlib.suppress(RollBack), store.transaction() as tx:
        yield tx
        raise RollBack


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_JSON = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT, st.lists, max_leaves=5)
_LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    str: _TEXT,
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    Scope: st.builds(Scope, st.from_regex(r"[a-z0-9][a-z0-9:.-]{0,9}", fullmatch=True), st.just("us-central1")),
    dict[str, Any]: st.dictionaries(_TEXT, _JSON, max_size=3),
    dict[str, str]: st.dictionaries(_TEXT, _TEXT, max_size=3),
    dict[str, int]: st.dictionaries(_TEXT, st.integers(-(2**53), 2**53), max_size=3),
    tuple[str, ...]: st.lists(_TEXT, max_size=3).map(tuple),
}


def _strategy(hint: Any) -> st.SearchStrategy[Any]:
    if hint in _LEAVES:
        return _LEAVES[hint]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return st.builds(hint, **{name: _strategy(field) for name, field in get_type_hints(hint).items()})
    if get_origin(hint) is tuple:
        return st.lists(_strategy(get_args(hint)[0]), max_size=2).map(tuple)
    if type(None) in (parts := getattr(hint, "__args__", ())):
        return st.none() | st.one_of(*(_strategy(part) for part in parts if part is not type(None)))
    return st.from_type(hint)


def _row_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{name: _strategy(hint) for name, hint in get_type_hints(kind).items() if name[0] != "_"})


def _key(row: Row) -> dict[str, Any]:
    noun = NOUNS[type(row)]
    if not {"project", "location"} <= set(noun.key):
        return {name: getattr(row, name) for name in noun.key}
    names = [name for name in noun.key if name not in {"project", "location"}]
    return {name: getattr(row, name) for name in names} | {"scope": row.scope}  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", NOUNS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_noun_comes_back_as_it_was_stored(shared: Store, kind: type[Any], data: st.DataObject) -> None:
    """What is inserted is what get and list give back, whatever is in its fields."""
    row = data.draw(_row_of(kind))
    with passing(shared) as tx:
        sqlite = tx._connection.dialect.name == "sqlite"
        tx._connection.exec_driver_sql(
            "PRAGMA defer_foreign_keys = ON" if sqlite else "SET LOCAL session_replication_role = replica"
        )
        tx.insert(row)
        assert tx.get(kind, **_key(row)) == row
        assert tx.list(kind) == [row]
        with pytest.raises(NameTaken):
            tx.insert(row)


def _model(model_id: str, **fields: Any) -> Model:
    model = Model(scope=DEFAULT_SCOPE, id=model_id, display_name="m", created_at=1.0, updated_at=1.0)
    return msgspec.structs.replace(model, **fields)


def _endpoint() -> Endpoint:
    return Endpoint(scope=DEFAULT_SCOPE, id="e", display_name="e", created_at=1.0, updated_at=1.0)


def _deployment(**fields: Any) -> Deployment:
    deployment = Deployment(
        scope=DEFAULT_SCOPE,
        id="1",
        model_id="m",
        model_version="1",
        deadline_at=9.0,
        created_at=1.0,
        updated_at=1.0,
    )
    return msgspec.structs.replace(deployment, **fields)


def test_a_write_made_on_an_old_reading_is_refused(store: Store) -> None:
    """Of two writers that read the same version, the second is told so, and the first one's write stays."""
    with store.transaction() as tx:
        tx.insert(_model("a"))
    with store.transaction() as tx:
        read = tx.get(Model, scope=DEFAULT_SCOPE, id="a")
        assert read is not None
        first = tx.update(msgspec.structs.replace(read, display_name="first"))
        assert (first.resource_version, first.updated_at) == (2, 99.0)
        with pytest.raises(StaleWrite):
            tx.update(msgspec.structs.replace(read, display_name="second"))
        with pytest.raises(StaleWrite):
            tx.delete(read)
        assert tx.get(Model, scope=DEFAULT_SCOPE, id="a") == first
        tx.delete(first)
        with pytest.raises(StaleWrite):
            tx.update(first)


def test_concurrent_writers_lose_no_update(store: Store) -> None:
    """Writers that repeat what was refused add up: every one of their increments is in the row."""
    with store.transaction() as tx:
        tx.insert(_model("a", display_name="0"))
    writers, rounds = 4, 15

    def count() -> None:
        done = 0
        while done < rounds:
            with store.transaction(read_only=True) as tx:
                read = tx.get(Model, scope=DEFAULT_SCOPE, id="a")
            assert read is not None
            try:
                with store.transaction() as tx:
                    tx.update(msgspec.structs.replace(read, display_name=str(int(read.display_name) + 1)))
            except StaleWrite:
                continue
            done += 1

    threads = [threading.Thread(target=count) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.transaction() as tx:
        counted = tx.get(Model, scope=DEFAULT_SCOPE, id="a")
    assert counted is not None
    assert (counted.display_name, counted.resource_version) == (str(writers * rounds), 1 + writers * rounds)


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    """Rows and timeline of a block that failed are as if it had never begun."""
    with passing(store) as tx:
        tx.insert(_deployment())
        tx.next_generation("snapshot")
    with store.transaction() as tx:
        assert tx.list(Deployment) == []
        assert tx.timelines.during("deployment", "1", 0.0) == []
        assert tx.next_generation("snapshot") == 1


def test_a_reader_sees_one_moment(store: Store) -> None:
    """A read-only transaction neither waits for a writer nor sees what it commits meanwhile."""
    with store.transaction(read_only=True) as reader:
        assert reader.list(Model) == []
        thread = threading.Thread(target=lambda: _insert(store, _model("a")))
        thread.start()
        thread.join()
        assert reader.list(Model) == []
    with store.transaction(read_only=True) as reader:
        assert len(reader.list(Model)) == 1


@pytest.mark.parametrize("how", ["read_only", "one_query"])
def test_who_only_reads_cannot_write(store: Store, how: str) -> None:
    """The database itself refuses it, and whoever writes afterwards is none of those that it refuses."""
    for number in range(2):
        with pytest.raises(DBAPIError, match=r"read-?only"), store.transaction(**{how: True}) as tx:
            tx.insert(_model("a"))
        _insert(store, _model(f"b{number}"))
    with store.transaction(**{how: True}) as tx:
        assert [row.id for row in tx.list(Model)] == ["b0", "b1"]


def _insert(store: Store, row: Row) -> None:
    with store.transaction() as tx:
        tx.insert(row)


@given(wishes=st.lists(st.sampled_from(DeploymentState), max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_states_move_only_along_the_table(shared: Store, wishes: list[DeploymentState]) -> None:
    """Whatever is asked for, a row goes only where the table leads, and its timeline tells exactly that."""
    with passing(shared) as tx:
        row = _deployment()
        tx.insert(row)
        passed = [row.state]
        for wish in wishes:
            if wish == row.state or wish in moves_from(row.state):
                if wish != row.state:
                    passed.append(wish)
                row = tx.move(row, wish)
            else:
                with pytest.raises(IllegalMove):
                    tx.move(row, wish)
            assert tx.get(Deployment, scope=DEFAULT_SCOPE, id="1") == row
        assert [move.state for move in tx.timelines.during("deployment", "1", 0.0)] == passed


def test_what_was_replaced_in_a_row_is_written_by_a_move_to_the_same_state(store: Store) -> None:
    """Fields replaced before the move are kept by it, in the same state too; a row without any is left as it is."""
    with store.transaction() as tx:
        row = _deployment()
        tx.insert(row)
        moved = tx.move(msgspec.structs.replace(row, restarts=7), row.state, detail="Still there.")
        assert tx.get(Deployment, scope=DEFAULT_SCOPE, id="1") == moved
        assert (moved.restarts, moved.resource_version) == (7, row.resource_version + 1)
        assert tx.move(moved, moved.state, detail="Still there.") == moved
        with pytest.raises(StaleWrite):
            tx.move(msgspec.structs.replace(row, restarts=8), row.state)


def test_no_state_changes_but_by_a_move(store: Store) -> None:
    """An update that carries another state is refused, even where the table has that move."""
    with store.transaction() as tx:
        row = _deployment()
        tx.insert(row)
        with pytest.raises(IllegalMove, match="only by a move"):
            tx.update(msgspec.structs.replace(row, state=DeploymentState.CHECKING))


def test_a_move_tells_why(store: Store) -> None:
    """Detail and failure are in the timeline; the failure is in the row too; progress within a state adds to it."""
    failure = Failure("NO_CAPACITY", "Full.")
    with store.transaction() as tx:
        row = _deployment()
        tx.insert(row)
        row = tx.move(row, DeploymentState.CHECKING, detail="Looking.", restarts=3)
        assert tx.move(row, DeploymentState.CHECKING, detail="Still looking.") == row
        row = tx.move(row, DeploymentState.FAILED, failure=failure)
        assert (row.failure, row.restarts) == (failure, 3)
        told = [(move.state, move.detail, move.failure) for move in tx.timelines.during("deployment", "1", 0.0)]
        assert told == [
            ("ACCEPTED", "", None),
            ("CHECKING", "Looking.", None),
            ("CHECKING", "Still looking.", None),
            ("FAILED", "", failure),
        ]


@pytest.mark.parametrize(
    ("since", "until", "told"),
    [(0.0, None, "123456"), (1.0, 2.0, "12"), (3.5, 5.0, "345"), (4.0, 4.5, "34"), (9.0, None, "6")],
)
def test_what_passed_in_a_time(fresh_url: str, since: float, until: float | None, told: str) -> None:
    """How it stood before, and each move from then on: of a timeline of years nobody reads more than that."""
    now = [1.0]
    store = Store(fresh_url, clock=lambda: now[0])
    with closing(store):
        with store.transaction() as tx:
            tx.insert(row := _deployment(created_at=1.0))
        for now[0] in range(2, 7):
            with store.transaction() as tx:
                tx.move(row, row.state, detail=f"{now[0]}")
        with store.transaction() as tx:
            passed = tx.timelines.during("deployment", "1", since, until)
        assert "".join(move.detail or "1" for move in passed) == told


def test_what_is_done_together_has_one_time(fresh_url: str) -> None:
    """Whichever is written first: what ends with an operation passed while it ran."""
    ticking = itertools.count(2.0)
    with closing(Store(fresh_url, clock=lambda: next(ticking))) as store:
        with store.transaction() as tx:
            tx.insert(first := _model("first", created_at=1.0))
            tx.insert(second := _deployment(created_at=1.0))
            tx.insert(third := _model("third", created_at=1.0))
        with store.transaction() as tx:
            first = tx.update(msgspec.structs.replace(first, display_name="x"))
            tx.move(second, second.state, detail="moved")
            third = tx.update(msgspec.structs.replace(third, display_name="y"))
            moved = tx.timelines.during("deployment", "1", 0.0)[-1]
        assert first.updated_at == moved.at == third.updated_at


@given(times=st.lists(st.integers(0, 3), max_size=12), size=st.integers(1, 5))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_show_everything_once_and_in_order(shared: Store, times: list[int], size: int) -> None:
    """Walking a list page by page, deleting what was seen, meets every row once, oldest first."""
    with passing(shared) as tx:
        for number, at in enumerate(times):
            tx.insert(_model(f"m{number}", created_at=float(at)))
        whole = tx.list(Model, scope=DEFAULT_SCOPE)
        assert [row.created_at for row in whole] == sorted(float(at) for at in times)
        walked: list[Model] = []
        mark = None
        while page := tx.list(Model, scope=DEFAULT_SCOPE, limit=size, after=mark):
            walked += page
            mark = cursor(page[-1])
            for row in page:
                tx.delete(row)
        assert walked == whole


@pytest.mark.parametrize("mark", ["", "m0", "AAAA", "WzFd", "é", cursor(_deployment()) + "x"])
def test_a_page_token_of_ones_own_making_is_refused(store: Store, mark: str) -> None:
    """A cursor that the list did not give is the caller's mistake, not ours."""
    with store.transaction() as tx, pytest.raises(BadField):
        tx.list(Model, after=mark)


def test_lists_can_be_narrowed(store: Store) -> None:
    """By scope, project, any column, and several values of one."""
    elsewhere = Scope("other", "us-central1")
    with store.transaction() as tx:
        for row in (
            _deployment(id="1"),
            _deployment(id="2", scope=elsewhere),
            _deployment(id="3", state=DeploymentState.READY),
        ):
            tx.insert(row)
        assert [row.id for row in tx.list(Deployment, scope=elsewhere)] == ["2"]
        assert [row.id for row in tx.list(Deployment, project="default")] == ["1", "3"]
        assert [row.id for row in tx.list(Deployment, state=DeploymentState.READY)] == ["3"]
        assert len(tx.list(Deployment, state=(DeploymentState.READY, DeploymentState.ACCEPTED))) == 3


def test_generations_never_go_back(store: Store) -> None:
    """Each counter grows for ever, across stores, and jumps over what somebody else has seen."""
    with store.transaction() as tx:
        assert [tx.next_generation("a"), tx.next_generation("a"), tx.next_generation("b")] == [1, 2, 1]
        assert tx.next_generation("a", above=40) == 41
    with store.transaction() as tx:
        assert tx.next_generation("a", above=7) == 42


def test_what_is_bound_cannot_be_deleted(store: Store) -> None:
    """Foreign keys are held: no deployed model without its endpoint."""
    endpoint = Endpoint(scope=DEFAULT_SCOPE, id="e", display_name="e", created_at=1.0, updated_at=1.0)
    binding = DeployedModel(scope=DEFAULT_SCOPE, id="d", endpoint_id="e", deployment_id="1", created_at=1.0)
    with store.transaction() as tx:
        for row in (_deployment(), endpoint, binding):
            tx.insert(row)
    with pytest.raises(Exception, match=r"(?i)foreign key"), store.transaction() as tx:
        tx.delete(endpoint)


def test_the_migrations_make_the_tables_that_the_code_knows(url: str) -> None:
    """A migrated database and the schema do not differ, and the known head is the migrations' own."""
    engine = open_engine(url, connections=1)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == migrations.HEAD
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == migrations.HEAD


def test_migrating_again_keeps_everything(store: Store, fresh_url: str) -> None:
    """A start on an existing database changes nothing in it, and a file is its owner's alone."""
    with store.transaction() as tx:
        tx.insert(_model("a"))
    migrate(fresh_url)
    with store.transaction() as tx:
        assert len(tx.list(Model)) == 1
    if fresh_url.startswith("sqlite"):
        file = Path(fresh_url.removeprefix("sqlite:///"))
        assert {path.stat().st_mode & 0o777 for path in file.parent.glob("headrace.db*")} == {0o600}


def test_what_others_got_in_the_way_of_is_done_again(fresh_url: str) -> None:
    """Two stores that add to one counter at the same time: nobody sees the other's transaction, and none is lost."""
    stores, rounds = [Store(fresh_url), Store(fresh_url)], 20

    async def main() -> None:
        counting = [store.run(lambda tx: tx.next_generation("a")) for _ in range(rounds) for store in stores]
        assert sorted(await asyncio.gather(*counting)) == list(range(1, 2 * rounds + 1))

    asyncio.run(main())
    for store in stores:
        store.close()


def test_deployments_of_before_never_scale_to_zero(tmp_path: Path) -> None:
    """A database that knew no such time gets its column with what was deployed kept as it was."""
    url = f"sqlite:///{tmp_path}/headrace.db"
    deployment = Deployment(
        scope=DEFAULT_SCOPE, id="1", model_id="m", model_version="1", deadline_at=5.0, created_at=1.0, updated_at=1.0
    )
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    record = NOUNS[Deployment].record(deployment)
    for later in ("scale_to_zero_after_s", "autoscaling", "scaling", "carried", "initial_replicas"):
        del record[later]
    engine = open_engine(url, connections=1)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        connection.execute(insert(deployments).values(record))
    engine.dispose()
    migrate(url)
    store = Store(url)
    with store.transaction(read_only=True) as tx:
        assert tx.list(Deployment) == [deployment]
    store.close()


def test_versions_of_before_are_counted_on(tmp_path: Path) -> None:
    """A database that did not count versions goes on behind the highest number that each model has, not by its text."""
    url = f"sqlite:///{tmp_path}/headrace.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = open_engine(url, connections=1)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")
        for model in ("a", "b"):
            connection.exec_driver_sql("INSERT INTO models VALUES ('p', 'l', ?, 'm', '{}', 1.0, 1.0, 1)", (model,))
        for number in ("9", "10"):
            connection.exec_driver_sql(
                "INSERT INTO model_versions VALUES ('p', 'l', 'a', ?, '/m', '', '{}', '[]', '', '', 1.0, 1)", (number,)
            )
    engine.dispose()
    migrate(url)
    store = Store(url)
    with store.transaction(read_only=True) as tx:
        assert [(one.id, one.last_version, one.description) for one in tx.list(Model)] == [("a", 10, ""), ("b", 0, "")]
        assert [(one.labels, one.kept, one.updated_at) for one in tx.list(ModelVersion)] == [({}, {}, 0.0)] * 2
    store.close()


def test_labels_of_before_are_looked_up(tmp_path: Path) -> None:
    """Models and endpoints that had labels before there was an index of them are found by them."""
    url = f"sqlite:///{tmp_path}/headrace.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = open_engine(url, connections=1)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0015")
        for kind, row in ((Model, _model("a")), (Model, _model("b")), (Endpoint, _endpoint())):
            labelled = msgspec.structs.replace(row, labels={"team": row.id})
            connection.execute(insert(NOUNS[kind].table).values(NOUNS[kind].record(labelled)))
    engine.dispose()
    migrate(url)
    store = Store(url)
    with store.transaction(read_only=True) as tx:
        assert _labelled(tx, Model, "a") == ["a"]
        assert _labelled(tx, Endpoint, "e") == ["e"]
        assert _labelled(tx, Endpoint, "a") == []
    store.close()


def test_lists_are_looked_up_by_the_labels_that_rows_have_now(store: Store) -> None:
    """What a row is labelled with since its last change finds it, and what it was labelled with before does not."""
    with store.transaction() as tx:
        tx.insert(msgspec.structs.replace(_model("a"), labels={"team": "x", "env": "test"}))
        [model] = tx.list(Model)
        assert (_labelled(tx, Model, "x"), _labelled(tx, Model, "y")) == (["a"], [])
        model = tx.update(msgspec.structs.replace(model, labels={"team": "y"}))
        assert (_labelled(tx, Model, "x"), _labelled(tx, Model, "y")) == ([], ["a"])
        assert _labelled(tx, Model, "x", "!=") == ["a"]
        assert _labelled(tx, Model, "", "has") == ["a"]
        tx.delete(model)
        tx.insert(_model("a"))
        assert (_labelled(tx, Model, "y"), _labelled(tx, Model, "y", "!=")) == ([], ["a"])
        assert _labelled(tx, Model, "", "has") == []


def _labelled(
    tx: Transaction, kind: type[Model] | type[Endpoint], value: str, operator: Literal["=", "!=", "has"] = "="
) -> list[str]:
    condition = Condition("labels", operator, value, key="team")
    return [row.id for row in tx.page(kind, limit=9, orders=[Order("id")], conditions=[condition])]


def test_few_rows_are_looked_up_and_not_looked_for(tmp_path: Path) -> None:
    """Once rows were counted, whoever reads has SQLite take the index of what is asked for, not the order's."""
    url = f"sqlite:///{tmp_path}/headrace.db"
    migrate(url)
    store = Store(url)
    with store.transaction() as tx:
        for number in range(600):
            labels = {"only": f"o{number}", "env": "test"}
            tx.insert(_model(f"m{number}", display_name=f"n{number}", labels=labels, created_at=float(number)))
    with store.transaction(read_only=True) as tx:
        assert len(tx.list(Model)) == 600
    asyncio.run(store.count_rows())
    found = "SELECT project, location, resource_id FROM labels WHERE kind = 'model' AND key = 'only' AND value = 'o7'"
    plans = []
    with store.transaction(read_only=True) as tx:
        for what in ("display_name = 'n7'", f"(project, location, id) IN ({found})"):
            asked = f"SELECT * FROM models WHERE project = '-' AND location = '-' AND {what} ORDER BY created_at, id"
            plans.append(str(tx._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked} LIMIT 100").all()))
    store.close()
    by_name, by_label = plans
    assert "models_by_display_name" in by_name
    assert "models_by_time" not in by_name
    assert "models_by_time" not in by_label


def test_columns_are_the_nouns_fields() -> None:
    """No field is without its column, and no column without its field."""
    for kind, noun in NOUNS.items():
        fields = {name for name in kind.__struct_fields__ if name != "scope"}
        scope = {"project", "location"} if "scope" in kind.__struct_fields__ else set()
        assert {column.name for column in noun.table.columns} == fields | scope
