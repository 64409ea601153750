"""Serving endpoints: make, list, get, change, delete."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.api.access import Route
from headrace.api.description import Description

ROUTES: tuple[Route, ...] = ()
DESCRIPTIONS: Mapping[str, Description] = {}
