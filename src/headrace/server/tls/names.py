"""What clients may call this machine: the names that a certificate is good for."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence

from headrace.resources.errors import BadField
from headrace.server.listening import EVERYWHERE

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

_FAMILIES = (socket.AF_INET, socket.AF_INET6)

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


def served_names(hosts: Sequence[str], wished: Iterable[str]) -> tuple[str, ...]:
    """What a server's certificate is to be good for: this machine's own names, and those that were asked for.

    Args:
        hosts: What it was told to listen on, and the address that this came to. Where that stands for all addresses,
            all that others may reach it by are meant, as of now.
        wished: More names, as `read_name` has them.
    """
    listening = _own_addresses() if EVERYWHERE.keys() & hosts else hosts
    found = [*LOCAL_NAMES]
    for own in (socket.gethostname(), *listening):
        with contextlib.suppress(BadField):  # a machine may be called what no certificate may
            found.append(read_name(own))
    return tuple(dict.fromkeys([*found, *wished]))


def _own_addresses() -> list[str]:
    """Addresses of this machine's interfaces, but for those that nobody else reaches it by."""
    import psutil  # noqa: PLC0415  # nobody else who reads names needs it

    interfaces = psutil.net_if_addrs().values()
    every = {one.address.partition("%")[0] for each in interfaces for one in each if one.family in _FAMILIES}
    addresses = sorted(map(ipaddress.ip_address, every), key=lambda one: (one.version, int(one)))
    return [str(one) for one in addresses if not (one.is_loopback or one.is_link_local or one.is_unspecified)]
