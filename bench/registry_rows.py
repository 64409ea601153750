"""The rows of a large registry, written past the API, which would take minutes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import insert, text

from headrace.resources.access import Role, secret_hash
from headrace.resources.deployments import Deployment
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.models import Model, ModelVersion, ServingSpec
from headrace.resources.names import Scope
from headrace.resources.operations import ApiKey, Operation
from headrace.resources.states import DeploymentState, OperationState
from headrace.store import migrate
from headrace.store.database import open_engine
from headrace.store.rows import NOUNS
from headrace.store.schema import labels

SCOPE = Scope("bench", "us-central1")
KEY = "hr-bench"
MODELS_OF_A_LABEL = 0.01
AT = 1_795_000_000.0
BATCH = 2_000
CONTAINER = {
    "imageUri": "vllm/vllm-openai:v0.11.0",
    "args": ["--max-model-len=4096", "--dtype=bfloat16"],
    "env": [{"name": "A", "value": "b"}],
    "ports": [{"containerPort": 8080}],
    "startupProbe": {"exec": {"command": ["cat", "/ready"]}, "periodSeconds": 5},
}


class Size(NamedTuple):
    """How much there is."""

    models: int
    endpoints: int
    operations: int


def rows(size: Size) -> Iterator[Any]:
    """All of it, in an order that foreign keys like: every tenth model has ten versions, and each endpoint a model."""
    for number in range(size.models):
        at, versions = AT + number, 10 if number % 10 == 0 else 1
        labels = {"team": f"t{number % 100}", "env": ("prod", "test")[number % 2], "only": f"o{number}"}
        yield Model(
            scope=SCOPE,
            id=f"m-{number}",
            display_name=f"model {number}",
            description="It answers.",
            labels=labels,
            last_version=versions,
            created_at=at,
            updated_at=at,
        )
        for version in range(1, versions + 1):
            yield ModelVersion(
                scope=SCOPE,
                model_id=f"m-{number}",
                version=str(version),
                artifact_uri=f"gs://weights/model-{number}/{version}",
                spec=ServingSpec(container=CONTAINER, max_model_len=4096, dtype="bfloat16"),
                aliases=("default",) if version == versions else (),
                created_at=at + version / 100,
            )
    for number in range(size.endpoints):
        at = AT + number
        yield Endpoint(scope=SCOPE, id=f"e-{number}", display_name=f"endpoint {number}", created_at=at, updated_at=at)
        yield Deployment(
            scope=SCOPE,
            id=f"d-{number}",
            model_id=f"m-{number % size.models}",
            model_version="1",
            runtime="openvino",
            state=DeploymentState.READY,
            deadline_at=at,
            created_at=at,
            updated_at=at,
        )
        yield DeployedModel(
            scope=SCOPE, id=f"b-{number}", endpoint_id=f"e-{number}", deployment_id=f"d-{number}", created_at=at
        )
    for number in range(size.operations):
        at, model = AT + number, f"m-{number % size.models}"
        running = number % 1000 == 0
        yield Operation(
            scope=SCOPE,
            id=f"o-{number}",
            parent=SCOPE.name("models", model),
            kind="upload_model",
            contract="vertex/v1",
            targets={"model": model, "version": "1"},
            state=OperationState.RUNNING if running else OperationState.SUCCEEDED,
            created_at=at,
            updated_at=at,
        )


def labels_of(model: Model) -> Iterator[dict[str, str]]:
    """The rows that its lists are looked up by."""
    for key, value in model.labels.items():
        place = {"project": SCOPE.project, "location": SCOPE.location, "kind": "model", "resource_id": model.id}
        yield place | {"key": key, "value": value}


def fill(url: str, size: Size) -> None:
    """Make the tables of an empty database, and what is in them."""
    migrate(url)
    key = ApiKey(
        id="1", name="bench", secret_hash=secret_hash(KEY), hint="hr", project="*", role=Role.ADMIN, created_at=AT
    )
    engine = open_engine(url, connections=1)
    waiting = iter([key, *rows(size)])
    with engine.begin() as connection:
        while batch := list(islice(waiting, BATCH)):
            for kind in NOUNS:  # in the order of their foreign keys
                if records := [NOUNS[kind].record(row) for row in batch if type(row) is kind]:
                    connection.execute(insert(NOUNS[kind].table), records)
            if labelled := [label for row in batch if isinstance(row, Model) for label in labels_of(row)]:
                connection.execute(insert(labels), labelled)
    if engine.dialect.name == "postgresql":  # as its autovacuum does by itself; SQLite never does
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
    engine.dispose()
