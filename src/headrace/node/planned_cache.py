"""How large an engine's KV cache is to be: what control's plan set aside, counted again from the same files."""

from __future__ import annotations

import logging

from headrace.capacity import PLANNED_SEQUENCES, estimate
from headrace.resources.assignments import ReplicaOrder
from headrace.resources.errors import HeadraceError
from headrace.resources.layout import Layout
from headrace.storage import open_artifacts
from headrace.weights import inspect

_log = logging.getLogger(__name__)


def planned_cache_bytes(layout: Layout, order: ReplicaOrder) -> int:
    """Bytes for keys and values on each device of a replica; 0 where its model's folder tells nothing."""
    try:
        need = estimate(
            inspect(open_artifacts(str(layout.models_dir / order.fingerprint))),
            order.max_model_len,
            PLANNED_SEQUENCES,
            order.dtype,
            runtime=order.runtime,
            tensor_parallel=order.tensor_parallel,
        )
        return need.kv_bytes // order.tensor_parallel
    except HeadraceError as error:
        _log.warning("Replica %s: its engine chooses the size of its cache: %s", order.id, error)
        return 0
