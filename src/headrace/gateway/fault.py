"""Whose fault an error is: what counts against the deployed model that was to answer, and so against a canary."""

from __future__ import annotations

from headrace.resources.errors import ClientTimeout, Draining, HeadraceError, InternalError, NotSupported, QueueFull

_NOT_ITS_OWN = (ClientTimeout, Draining, InternalError, NotSupported)
"""From 500 on, and yet the gateway's own, or the client's; or a question that the model is not made for."""


def is_its_fault(error: HeadraceError) -> bool:
    """Whether the deployed model failed, and not the request, its key, its client or the gateway.

    A full line (429) is the model's own: it is too slow for what it gets.
    """
    return isinstance(error, QueueFull) or (error.http_status >= 500 and not isinstance(error, _NOT_ITS_OWN))
