"""Prometheus's text from several sources put together: the series of a family stand together, each with its source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Families(Collector):
    """Families of several sources."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def add(self, families: Iterable[Metric], **labels: str) -> None:
        """Add what one source says, with these labels besides its own."""
        for family in families:
            whole = self._families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            whole.samples += [sample._replace(labels=sample.labels | labels) for sample in family.samples]

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield from self._families.values()

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)
