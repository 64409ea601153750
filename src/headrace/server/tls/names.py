"""What clients may call this machine: the names that a certificate is good for."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable

from headrace.resources.errors import BadField

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

PROXY = "--proxy"
"""On `certify`'s command line: the names after it are for what the proxy for the names of Vertex AI shows."""

_LONGEST_NAME = 253
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
"""A host's name as DNS has it, with the underscores that machines in private networks have; or all names below one."""


def read_name(text: str) -> str:
    """A host's name or address as certificates have it: in lower case, other scripts in Punycode.

    >>> read_name("Models.Example.org."), read_name("::0001")
    ('models.example.org', '::1')

    Raises:
        BadField: It is neither.
    """
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text.strip().strip("[]").partition("%")[0]))
    try:
        name = text.strip().rstrip(".").lower().encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        raise BadField(
            f"{text[:60]!r} is no name of a host, and no address.",
            fix="Write it without https:// and without a port: models.example.org, *.example.org, 10.1.2.3.",
        )
    return name


def served_names(host: str, wished: Iterable[str]) -> tuple[str, ...]:
    """What a server's certificate is to be good for: this machine's own names, and those that were asked for.

    Args:
        host: The address that it listens on; none, where that stands for all of them.
        wished: More names, as `read_name` has them.
    """
    found = [*LOCAL_NAMES]
    for own in (socket.gethostname(), host):
        with contextlib.suppress(BadField):  # a machine may be called what no certificate may
            found.append(read_name(own))
    found = [name for name in found if name not in ("0.0.0.0", "::")]  # noqa: S104 - compared, not bound
    return tuple(dict.fromkeys([*found, *wished]))
