"""What a replica would carry: by the newest measurement that holds, else by the roofline; or why it is unknown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.capacity.units import FIRST_S, GAP_S, chunk, tokens_per_s
from headrace.control.carrying import carried_by
from headrace.control.reading import weights_of
from headrace.control.standing import Standing, standing_now, why_stale
from headrace.hardware import look
from headrace.resources.deployments import MachineSpec
from headrace.resources.errors import BadField, NotOptimizable
from headrace.resources.external import ExternalServer
from headrace.resources.models import Model, ModelVersion, ServingSpec
from headrace.resources.names import DEFAULT_SCOPE as SCOPE
from headrace.resources.nodes import Node
from headrace.resources.profiles import Carried, Cost, Profile
from headrace.store import Store, Transaction, migrate
from postgres_cluster import running_cluster
from small_models import write_llama

GIB = 1 << 30
COST = Cost(prompt=1e-3, prompt_squared=0.0, step=0.02, sequence=1e-3, context=0.0)
CARRIED = Carried(cost=COST, concurrency=4, first_s=2.0, gap_s=0.2, measured=True)
DATABASES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.needs_pg_ctlcluster))


class _Undone(Exception):
    """Roll back."""


@contextmanager
def undone(store: Store) -> Iterator[Transaction]:
    """A transaction of which nothing stays."""
    with suppress(_Undone), store.transaction() as tx:
        yield tx
        raise _Undone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small llama, as a node of this machine stages it."""
    return write_llama(tmp_path_factory.mktemp("data") / "models" / "llama")


def data_of(folder: Path) -> Path:
    """The data directory of a staged copy."""
    return folder.parents[1]


@pytest.fixture(scope="module", params=DATABASES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Store]:
    """One of each kind, with a version of the llama and the node of this machine; tests roll back what they write."""
    if request.param == "sqlite":
        yield from _filled(f"sqlite:///{tmp_path_factory.mktemp('store')}/headrace.db", folder)
    else:
        with running_cluster() as cluster:
            yield from _filled(cluster.new_database(), folder)


def _filled(url: str, folder: Path) -> Iterator[Store]:
    migrate(url)
    store = Store(url)
    with store.transaction() as tx:
        tx.insert(Model(scope=SCOPE, id="m", display_name="m", created_at=1.0, updated_at=1.0))
        tx.insert(version_of(folder))
        tx.insert(node(msgspec.to_builtins(look(folder)) | {"gpus": []}))
    yield store
    store.close()


def version_of(folder: Path, **spec: Any) -> ModelVersion:
    """A version of what is staged there."""
    return ModelVersion(
        scope=SCOPE,
        model_id="m",
        version="1",
        artifact_uri="s3://bucket/model",
        fingerprint=folder.name,
        spec=ServingSpec(**spec),
        created_at=1.0,
    )


def node(hardware: dict[str, Any]) -> Node:
    """The node, as it describes itself."""
    return Node(id="local", boot_id="b", memory_bytes=4 * GIB, cores=2, hardware=hardware, last_seen_at=0.0)


def profile(number: int, standing: Standing, **changes: Any) -> Profile:
    """A measurement, the later the greater its number, that says another thing than all others."""
    fields: dict[str, Any] = {
        "scope": SCOPE,
        "id": str(10**18 + number),
        "model_id": "m",
        "model_version": "1",
        "carried": msgspec.structs.replace(CARRIED, concurrency=number + 1),
        "points": (),
        "mean_error": 0.02,
        "worst_error": 0.04,
        "created_at": 100.0 + number,
    }
    return Profile(**(fields | msgspec.structs.asdict(standing) | changes))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.sampled_from(("runtime", "hardware", "engine", "model_version"))), max_size=5))
def test_the_newest_measurement_that_still_holds_counts(store: Store, folder: Path, changed: list[set[str]]) -> None:
    """One holds as long as version, runtime, hardware and engine arguments are what a deployment would have now."""
    version = version_of(folder)
    with undone(store) as tx:
        now = standing_now(tx, version, weights_of(version, data_of(folder)))
        holding = None
        for number, names in enumerate(changed):
            one = msgspec.structs.replace(profile(number, now), **dict.fromkeys(names, "another"))
            tx.insert(one)
            stale = why_stale(tx, one, data_of(folder))
            assert bool(stale) == bool(names)
            assert "another" in stale or not names or "model_version" in names
            holding = holding if names else one
        found = carried_by(tx, version, data_dir=data_of(folder))
        if holding is None:
            assert (found.measured, found.profile_id) == (False, "")
        else:
            assert found == msgspec.structs.replace(holding.carried, profile_id=holding.id)


@pytest.mark.parametrize("change", [{"dtype": "float32"}, {"max_model_len": 512}, {"prefix_caching": False}], ids=str)
def test_what_an_engine_is_started_with_makes_a_measurement_stale(
    store: Store, folder: Path, change: dict[str, Any]
) -> None:
    """Whatever of it changes what a replica carries."""
    version, other = version_of(folder), version_of(folder, **change)
    with store.transaction(read_only=True) as tx:
        before, after = (standing_now(tx, one, weights_of(one, data_of(folder))) for one in (version, other))
        assert before.engine != after.engine
        assert after.differs(profile(1, before)) != "" == before.differs(profile(1, before))


def test_without_a_measurement_the_roofline_tells(store: Store, folder: Path) -> None:
    """Of the node's machine, marked as predicted, at the usual latencies; chunks can be cut of it."""
    with store.transaction(read_only=True) as tx:
        found = carried_by(tx, version_of(folder), data_dir=data_of(folder))
        assert (found.measured, found.first_s, found.gap_s) == (False, FIRST_S, GAP_S)
        assert found.concurrency == 8 * 4096 // 1024, "as many as the planned cache has room for"
        assert 0 < 4 * chunk(found) <= tokens_per_s(found)


def with_hardware(tx: Transaction, hardware: dict[str, Any]) -> None:
    """Have the node describe itself so."""
    before = tx.get(Node, id="local")
    assert before is not None
    tx.update(msgspec.structs.replace(before, hardware=hardware))


def test_where_no_node_tells_the_machine_that_is_asked_for_counts(store: Store, folder: Path) -> None:
    """By the catalogue; without one nothing is known, and one that there is not is refused."""
    version = version_of(folder)
    with undone(store) as tx:
        with_hardware(tx, {})
        with pytest.raises(NotOptimizable, match="speed is not known") as unknown:
            carried_by(tx, version, data_dir=data_of(folder))
        assert "No node has told" in unknown.value.evidence
        asked = MachineSpec(machine_type="g2-standard-12", accelerator_type="NVIDIA_L4", accelerator_count=1)
        assert carried_by(tx, version, asked, data_dir=data_of(folder)).concurrency > 0
        with pytest.raises(BadField):
            carried_by(tx, version, MachineSpec(machine_type="g2-standard-1000"), data_dir=data_of(folder))


def test_a_machine_too_slow_for_the_latencies_sells_nothing(store: Store, folder: Path) -> None:
    """Whether that was predicted or measured; the reason says which."""
    version = version_of(folder)
    with undone(store) as tx:
        slow = msgspec.to_builtins(look(folder)) | {"cores": 1e-7, "gpus": []}
        with_hardware(tx, slow)
        with pytest.raises(NotOptimizable, match="Not even one request") as refused:
            carried_by(tx, version, data_dir=data_of(folder))
        assert "predicted of" in refused.value.evidence
        now = standing_now(tx, version, weights_of(version, data_of(folder)))
        tx.insert(profile(0, now, carried=msgspec.structs.replace(CARRIED, concurrency=0)))
        with pytest.raises(NotOptimizable, match="Not even one request") as refused:
            carried_by(tx, version, data_dir=data_of(folder))
        assert "measured" in refused.value.evidence


def test_what_writes_no_text_or_is_not_ours_sells_nothing(store: Store, folder: Path) -> None:
    """Embeddings, somebody else's server, weights that are away, an architecture that nothing serves: each by name."""
    embeds = write_llama(folder.with_name("embeds"))
    (embeds / "modules.json").write_text("[]")
    unknown = write_llama(folder.with_name("unknown"))
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps(config | {"model_type": "x", "architectures": ["XForecast"]}))
    external = ExternalServer(base_url="https://example.com/v1", model="m")
    cases = {
        "writes no text": version_of(embeds),
        "somebody else's server": version_of(folder, external=external),
        "weights cannot be read": version_of(folder.with_name("nowhere")),
        "nothing here serves it": version_of(unknown),
    }
    with store.transaction(read_only=True) as tx:
        for word, version in cases.items():
            with pytest.raises(NotOptimizable, match=word) as refused:
                carried_by(tx, version, data_dir=data_of(folder))
            assert refused.value.evidence


def test_without_a_staged_copy_the_machine_alone_makes_a_measurement_stale(store: Store, folder: Path) -> None:
    """A list of measurements asks no store for weights, so it neither waits for one nor says that one is away."""
    with undone(store) as tx:
        now = standing_now(tx, version_of(folder), weights_of(version_of(folder), data_of(folder)))
        stored = tx.get(ModelVersion, scope=SCOPE, model_id="m", version="1")
        assert stored is not None
        tx.update(msgspec.structs.replace(stored, fingerprint="never staged"))
        assert why_stale(tx, profile(1, now), data_of(folder)) == ""
        assert "The machine would be" in why_stale(tx, profile(1, now, hardware="another"), data_of(folder))
