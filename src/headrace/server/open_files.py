"""How many clients' connections the limit of open files allows a gateway."""

from __future__ import annotations

import resource

PER_CONNECTION = 2
"""Descriptors: one to the client, one to the engine that answers it."""

KEPT_FREE = 128
"""Descriptors: half of them for the process itself (sockets, log, control), half for clients that are turned away."""


def most() -> int:
    """How many files a process of ours may have open at once, if it asks: the hard limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def raise_limit() -> int:
    """Take all that this process may have, and return how many that is.

    Only for a process that starts no others: they inherit it, and some, with ``select``, cannot live with many files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a kernel that has lowered what it allows since
        return soft
    return hard


def connections(files: int) -> int:
    """How many clients may be connected at once, each with a request under way, where so many files may be open."""
    return max(1, (files - KEPT_FREE) // PER_CONNECTION)


def sentence(files: int, gateways: int = 1) -> str:
    """The same for a person, of all gateways together."""
    opened = f"{files:,} files may be open{f' in each of {gateways} gateways' if gateways > 1 else ''} (`ulimit -Hn`)"
    return f"Up to {gateways * connections(files):,} connections at once: {opened}."
