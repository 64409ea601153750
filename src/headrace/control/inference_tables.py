"""Fills the inference tables of endpoints that have one, from what gateways wrote to the request log.

Control does it, and not a gateway: so there is one writer of each table, and one that is killed goes on where its
table says that it was.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.contracts.databricks.inference_tables import InferenceTable, inference_table
from headrace.control.access_lists import ai_gateway_of
from headrace.control.restarts import delay_s
from headrace.request_log.settings import delta_available
from headrace.resources.endpoints import Endpoint
from headrace.resources.layout import Layout
from headrace.resources.names import Scope
from headrace.store import Store, Transaction

if TYPE_CHECKING:
    from headrace.request_log.delta import InferenceTableWriter

FILL_EVERY_S = 15.0
"""How much later than its request a row is in its table, at most, while all is well."""

_LOGGER = logging.getLogger(__name__)


class InferenceTables:
    """From the gateways' files to tables.

    Args:
        store: Where it is said which endpoints have one.
        layout: Where the request log and the tables are.
    """

    def __init__(self, store: Store, layout: Layout) -> None:
        self._store = store
        self._layout = layout
        self._writers: dict[tuple[Scope, str, Path], InferenceTableWriter] = {}

    async def run(self) -> None:
        """Fill until cancelled; no failure ends it. Nothing where the packages for it are not installed."""
        failures = 0
        while delta_available():
            try:
                await asyncio.to_thread(self.fill)
                failures = 0
            except Exception:
                failures += 1
                _LOGGER.exception("Inference tables could not be filled; trying again.")
            await asyncio.sleep(max(FILL_EVERY_S, delay_s(failures)))

    def fill(self) -> int:
        """Append what is new to every table; returns how many rows that was."""
        with self._store.transaction() as tx:
            wanted = self.wanted(tx)
        self._writers = {place: writer for place, writer in self._writers.items() if place in wanted}
        if not wanted:
            return 0
        from headrace.request_log.delta import InferenceTableWriter  # noqa: PLC0415 - an extra, and a large one
        from headrace.request_log.payloads import log_segments  # noqa: PLC0415

        segments, added = log_segments(self._layout.request_log), 0
        for place in wanted:
            scope, endpoint_id, path = place
            if place not in self._writers:
                self._writers[place] = InferenceTableWriter(
                    path, project=scope.project, location=scope.location, endpoint=endpoint_id
                )
            try:
                added += self._writers[place].append(segments)
            except Exception:  # the other tables are filled nevertheless
                del self._writers[place]  # what it remembers is read from the table again
                _LOGGER.exception("The inference table at %s could not be filled; trying again.", path)
        return added

    def wanted(self, tx: Transaction) -> set[tuple[Scope, str, Path]]:
        """The endpoints that have a table, each with its place; those of one project may share one."""
        wanted = set()
        for endpoint in tx.list(Endpoint):
            config = ai_gateway_of(endpoint).inference_table_config
            if config is not None and config.enabled:
                table = inference_table(config, endpoint.display_name)
                wanted.add((endpoint.scope, endpoint.id, table_path(self._layout, endpoint.scope.project, table)))
        return wanted


def table_path(layout: Layout, project: str, table: InferenceTable) -> Path:
    """Where a table is: below its project, for each has catalogs of its own."""
    return layout.tables_dir / project / table.catalog / table.schema / table.name
