"""The public port: one socket, or one for each gateway, and never one that somebody else has."""

from __future__ import annotations

import select
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack

import grpc
import pytest

from headrace.resources.errors import BadField, PortTaken
from headrace.server.listening import listening, place_here, reserved
from headrace.server.vertex_grpc.serving import OPTIONS

HOST = "127.0.0.1"
SAID: list[str] = []


def opened(port: int = 0, *, sockets: int, search: bool = False) -> AbstractContextManager[list[socket.socket]]:
    """Sockets on a port."""
    return listening(HOST, port, search=search, sockets=sockets, say=SAID.append)


def test_the_kernel_deals_connections_out() -> None:
    """Each of two sockets on one port gets some of many connections, and together they get all."""
    with opened(sockets=2) as both, ExitStack() as clients:
        port = both[0].getsockname()[1]
        assert both[1].getsockname()[1] == port
        for _ in range(64):
            clients.enter_context(socket.create_connection((HOST, port), timeout=20))
        taken = [0, 0]
        while sum(taken) < 64:
            for number, each in enumerate(both):
                while select.select([each], [], [], 0)[0]:
                    each.accept()[0].close()
                    taken[number] += 1
        assert min(taken) > 0


@pytest.mark.parametrize("sockets", [1, 2])
@pytest.mark.parametrize("theirs", [1, 2])
def test_nobody_shares_the_port_of_another_server(sockets: int, theirs: int) -> None:
    """Not even one that shares it among its own; with a search it is the next one."""
    with opened(sockets=theirs) as others:
        port = others[0].getsockname()[1]
        with pytest.raises(PortTaken, match=f"{HOST}:{port}"), opened(port, sockets=sockets):
            pass
        with opened(port, sockets=sockets, search=True) as ours:
            used = {each.getsockname()[1] for each in ours}
        assert len(used) == 1
        assert port not in used
        assert SAID[-1] == f"Port {port} is taken; using {used.pop()}."


@pytest.mark.parametrize("host", ["300.1.1.1", "192.0.2.1"])
def test_an_address_of_another_machine_is_no_taken_port(host: str) -> None:
    """Whoever mistyped the address is told of the address, and no other port is tried at it."""
    for opening in (
        listening(host, 0, search=True, sockets=1, say=SAID.append),
        reserved(host, 0, search=True, say=SAID.append),
    ):
        with pytest.raises(BadField, match=f"{host!r} is no address of this machine"), opening:
            pass


def reached(host: str, port: int) -> bool:
    """Whether a connection to this port comes about."""
    try:
        socket.create_connection((host, port), timeout=20).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "both"),
    [("0.0.0.0", (True, False)), ("::", (True, True)), ("127.0.0.1", (True, False)), ("localhost", (True, False))],
)
def test_a_host_means_the_same_for_all_ports(host: str, both: tuple[bool, bool]) -> None:
    """Whoever opens all of IPv4 has not opened IPv6 by it: gRPC's port is reached by the addresses of the others."""
    server = grpc.server(ThreadPoolExecutor(1), options=OPTIONS)
    with (
        listening(host, 0, search=False, sockets=1, say=SAID.append) as [listener],
        reserved(host, 0, search=False, say=SAID.append) as place,
    ):
        assert server.add_insecure_port(place) == int(place.rpartition(":")[2])
        server.start()
        for port in (listener.getsockname()[1], int(place.rpartition(":")[2])):
            assert (reached("127.0.0.1", port), reached("::1", port)) == both
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("0.0.0.0", "127.0.0.1:8443"),
        ("::", "[::1]:8443"),
        ("10.0.0.0", "10.0.0.0:8443"),
        ("2001:db8::7", "[2001:db8::7]:8443"),
        ("models.example.org", "models.example.org:8443"),
    ],
)
def test_what_listens_everywhere_is_told_by_an_address_that_can_be_asked(host: str, place: str) -> None:
    """And any other by itself, in brackets if need be."""
    assert place_here(host, 8443) == place
