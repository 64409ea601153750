"""The real application on a real store: only the reconciler's hands are ours."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from headrace.api import create_app
from headrace.contracts.databricks.paths import is_databricks_path
from headrace.control import commands
from headrace.control.operations import GATEWAY_WAIT_S, settle_operations
from headrace.control.sight import Sight
from headrace.resources.access import Role
from headrace.resources.deployments import Deployment
from headrace.resources.errors import Failure
from headrace.resources.layout import Layout
from headrace.resources.names import Scope
from headrace.resources.operations import Operation
from headrace.resources.states import DeploymentState
from headrace.store import Store, Transaction, migrate

SCOPE = Scope("my-proj", "us-central1")
INTERNAL_TOKEN = "our-own-processes"
PATH_TO_READY = "CHECKING STAGING PLACING STARTING WARMING READY"


class Woken:
    """Stands where the reconciler stands, and counts how often it was woken."""

    def __init__(self) -> None:
        self.times = 0

    def wake(self) -> None:
        """Count."""
        self.times += 1


class World:
    """An application, its store, and keys of every role.

    Args:
        data_dir: Where it lives.
    """

    def __init__(self, data_dir: Path) -> None:
        self.layout = Layout(data_dir)
        data_dir.mkdir(exist_ok=True)
        url = f"sqlite:///{self.layout.database}"
        migrate(url)
        self.store = Store(url)
        self.woken = Woken()
        self.app: FastAPI = create_app(
            self.store,
            self.woken,  # type: ignore[arg-type] # everything but its waking is out of these tests' sight
            self.layout,
            internal_token=INTERNAL_TOKEN,
        )
        self.admin = self.key("*", Role.ADMIN)

    def key(self, project: str, role: Role) -> str:
        """The secret of a fresh key."""
        with self.store.transaction() as tx:
            return commands.create_key(tx, name=f"{role} of {project}", project=project, role=role, now=1.0)[1]

    def call(self, method: str, path: str, *, key: str | None = "", **options: Any) -> httpx.Response:
        """One request; with the admin's key unless told, without any for None."""
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers.setdefault("authorization", f"Bearer {key or self.admin}")

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://headrace.test:8080") as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(send())

    def json(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a request that must succeed."""
        response = self.call(method, path, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def error(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """Status and code of a request that must fail in Google's shape; below Databricks' paths in theirs."""
        response = self.call(method, path, **options)
        if is_databricks_path(path):
            told = response.json()
            assert set(told) == {"error_code", "message", "details"}, response.text
            return response.status_code, told["details"][0]["reason"]
        error = response.json()["error"]
        assert set(error) == {"code", "message", "status", "details"}, response.text
        assert error["code"] == response.status_code
        assert error["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
        assert set(error["details"][0]["metadata"]) <= {"evidence", "fix"}
        assert "Traceback" not in response.text
        return response.status_code, error["details"][0]["reason"]

    def deploy(self, *, version: str = "v1beta1", scope: Scope = SCOPE, **body: Any) -> Any:
        """Ask for a deployment; its operation's JSON."""
        body = {"customModel": {"gcsUri": "file:///weights/smol"}} | body
        return self.json("POST", f"/{version}/{scope}:deploy", json=body)

    def advance(self, operation: dict[str, Any], states: str = PATH_TO_READY, failure: Failure | None = None) -> None:
        """Do what the reconciler would: move an operation's deployment, and settle what is done by it."""

        def work(tx: Transaction) -> None:
            deployment = self.deployment(tx, operation)
            for state in states.split():
                last = state == states.rsplit(maxsplit=1)[-1]
                deployment = tx.move(deployment, DeploymentState(state), failure=failure if last else None)
            settle_operations(tx, deployment.scope, Sight(now=time.time() + GATEWAY_WAIT_S))  # no gateway is here

        with self.store.transaction() as tx:
            work(tx)

    def deployment(self, tx: Transaction, operation: dict[str, Any]) -> Deployment:
        """The deployment that an operation is about."""
        (row,) = tx.list(Operation, id=operation["name"].rsplit("/", 1)[1])
        deployment = tx.get(Deployment, scope=row.scope, id=row.targets["deployment"])
        assert deployment is not None
        return deployment
