"""What was acknowledged is there after a kill -9, and what was not is there whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import DEFAULT_SCOPE
from headrace.store import Store, migrate

WRITER = """
import sys
from headrace.resources.models import Model, ModelVersion
from headrace.resources.names import DEFAULT_SCOPE as scope
from headrace.store import Store

store, number = Store(sys.argv[1]), int(sys.argv[2])
while True:
    number += 1
    with store.transaction() as tx:
        tx.insert(Model(scope=scope, id=str(number), display_name="m", created_at=number, updated_at=number))
        tx.insert(ModelVersion(scope=scope, model_id=str(number), version="1", artifact_uri="/m", created_at=number))
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 20, 75])
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path, after: int) -> None:
    """Kill -9 in the middle of a loop of writes: each acknowledged pair of rows is there, and no half pair is."""
    url = f"sqlite:///{tmp_path}/headrace.db"
    migrate(url)
    process = subprocess.Popen([sys.executable, "-c", WRITER, url, "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(after)]
    process.kill()
    acknowledged += [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    process.stdout.close()
    store = Store(url)
    with store.transaction() as tx:
        models = {int(row.id) for row in tx.list(Model, scope=DEFAULT_SCOPE)}
        versions = {int(row.model_id) for row in tx.list(ModelVersion, scope=DEFAULT_SCOPE)}
    store.close()
    assert set(acknowledged) <= models
    assert models == versions
