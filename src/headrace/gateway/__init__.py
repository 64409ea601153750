"""Floor 4: the data plane: authenticate, route, admit, balance, stream, meter."""

from __future__ import annotations

from headrace.gateway.cors import Cors
from headrace.gateway.gateway import Gateway
from headrace.gateway.http1 import HttpServer
from headrace.gateway.limits import Limits
from headrace.gateway.routes import RouteEntry
from headrace.gateway.siblings import Sibling

__all__ = ["Cors", "Gateway", "HttpServer", "Limits", "RouteEntry", "Sibling"]
