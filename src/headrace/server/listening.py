"""Listening sockets: the public ports, which the supervisor opens and holds, one for each gateway; and unix sockets."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from headrace.resources.errors import BadField, PortTaken

PORTS_TO_TRY = 50
BACKLOG = 2048
"""Connections that may wait for a gateway: while it is replaced, too."""


_ALL_IPV4 = "0.0.0.0"  # noqa: S104 - compared, not bound
EVERYWHERE = {_ALL_IPV4: "127.0.0.1", "::": "::1"}
"""What stands for all addresses of a machine, and by which of them it is reached from the machine itself. The first is
all of IPv4 and nothing else, the second all of both kinds, whatever the system's ``net.ipv6.bindv6only`` says."""


def place_of(host: str, port: object) -> str:
    """Host and port as addresses have them, an IPv6 one in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def place_here(host: str, port: object) -> str:
    """As `place_of`, for who asks from this machine: no certificate is good for what stands for all addresses."""
    return place_of(EVERYWHERE.get(host, host), port)


@contextlib.contextmanager
def listening(
    host: str, port: int, *, search: bool, sockets: int, say: Callable[[str], None]
) -> Iterator[list[socket.socket]]:
    """Sockets on one port, among which the kernel deals out what comes (``SO_REUSEPORT``).

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        search: Whether a taken port means the next free one.
        sockets: How many.
        say: Takes the sentences meant for a person.

    Raises:
        BadField: The host is no address of this machine.
        PortTaken: The port is taken, and no other was to be tried.
    """
    with contextlib.ExitStack() as held:
        first = held.enter_context(_bound(host, port, search=search, say=say))
        opened = [first]
        if sockets > 1:
            # One that shares its port gets it although somebody else's shares it already. The first one did not, so
            # that is shown to be not the case; but nobody could share with it either.
            port = first.getsockname()[1]
            first.close()
            opened = [held.enter_context(_bind(host, port, shared=True)) for _ in range(sockets)]
        for each in opened:
            each.listen(BACKLOG)
            each.set_inheritable(True)
        yield opened


@contextlib.contextmanager
def reserved(host: str, port: int, *, search: bool, say: Callable[[str], None]) -> Iterator[str]:
    """A port that is kept for one process of ours, which opens it by itself, shared (``SO_REUSEPORT``).

    Nobody is connected to the socket that keeps it, for it does not listen. Yielded is what that process is to open: an
    address, for a name may be several to it. For ``0.0.0.0`` the port is kept in IPv6 as well, and shared with nobody:
    gRPC would open it there too, unless it finds it taken.

    Args:
        host: Address of the port.
        port: The port; 0 takes a free one.
        search: Whether a taken port means the next free one.
        say: Takes the sentences meant for a person.

    Raises:
        BadField: The host is no address of this machine.
        PortTaken: The port is taken, and no other was to be tried.
    """
    with _bound(host, port, search=search, say=say) as first:
        address, found = first.getsockname()[:2]
    with contextlib.ExitStack() as held:
        held.enter_context(_bind(address, found, shared=True))
        if address == _ALL_IPV4:
            with contextlib.suppress(OSError):  # it is taken, or there is no IPv6: for gRPC, too
                held.enter_context(_kept_in_ipv6(found))
        yield place_of(address, found)


def _bound(host: str, wanted: int, *, search: bool, say: Callable[[str], None]) -> socket.socket:
    taken: PortTaken | None = None
    for port in range(wanted, wanted + 1 + (PORTS_TO_TRY if search and wanted else 0)):
        try:
            bound = _bind(host, port)
        except PortTaken as error:
            taken = taken or error
            continue
        if port != wanted:
            say(f"Port {wanted} is taken; using {port}.")
        return bound
    assert taken is not None, "at least one was tried"
    raise taken


def _kept_in_ipv6(port: int) -> socket.socket:
    """A port that nobody else gets: not even with ``SO_REUSEADDR``, which this has not."""
    kept = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    kept.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
    try:
        kept.bind(("::", port))
    except OSError:
        kept.close()
        raise
    return kept


def _bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, False)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError as problem:
        bound.close()
        if isinstance(problem, socket.gaierror) or problem.errno == errno.EADDRNOTAVAIL:
            raise BadField(
                f"{host!r} is no address of this machine.",
                evidence=f"{problem}.",
                fix="Listen on one that it has: 127.0.0.1 for this machine alone, 0.0.0.0 for all of them (`ip addr`).",
            ) from None
        raise PortTaken(
            f"Cannot listen on {host}:{port}.",
            evidence=str(problem),
            fix="Stop what listens there, or choose another port (`headrace serve --help`; 0 takes a free one).",
        ) from None
    return bound


def unix_socket(path: Path) -> socket.socket:
    """A listening unix socket at `path`, in the place of whatever a dead process left there."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(2048)
    listener.setblocking(False)
    return listener
