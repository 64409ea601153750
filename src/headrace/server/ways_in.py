"""The ways in beside the gateways' own ports: gRPC, and the proxy for the names of Vertex AI.

Each is a process of its own before the gateways: one that is not wanted costs nothing, and one that crashes takes no
other way in with it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import msgspec

from headrace.resources.layout import Layout
from headrace.server import vertex_grpc
from headrace.server.children import Child
from headrace.server.listening import listening, reserved
from headrace.server.tls.files import CertificateFiles

LOOPBACK = "127.0.0.1"

GRPC = "grpc"
"""What the process that speaks it is called, and its logs."""


class WaysIn(msgspec.Struct, frozen=True, kw_only=True):
    """Which of them there are to be.

    Attributes:
        grpc_port: Port for gRPC, on the server's address and with the TLS port's certificate; 0 takes a free one.
        proxy_port: Port of the proxy; 0 takes a free one.
        proxy_host: Address that the proxy listens on.
    """

    grpc_port: int | None = None
    proxy_port: int | None = None
    proxy_host: str = LOOPBACK


class Opened(msgspec.Struct, frozen=True):
    """Their ports, held.

    Attributes:
        grpc: Host and port for gRPC, as an address is written; empty without.
        proxy: The proxy's socket.
    """

    grpc: str = ""
    proxy: socket.socket | None = None

    @property
    def speaks_grpc(self) -> bool:
        """Whether there is to be a process for it: for its port, or behind the proxy where that can be."""
        return bool(self.grpc) or (self.proxy is not None and vertex_grpc.available())

    def children(
        self,
        layout: Layout,
        *,
        gateway_url: str,
        https_host: str,
        files: CertificateFiles | None,
        drain_timeout_s: float,
    ) -> tuple[Child, ...]:
        """The processes, those first that are to be told first that the server stops.

        Args:
            layout: Of the data directory.
            gateway_url: The plain port.
            https_host: Host and port of the TLS port, as clients know it; empty without.
            files: What the TLS port shows.
            drain_timeout_s: How long running requests may go on once they are told to stop.
        """
        common = ("--gateway-url", gateway_url, "--drain-timeout-s", str(drain_timeout_s))
        found = []
        if self.speaks_grpc:
            arguments = [*common]
            if self.grpc and files is not None:
                pair = (f"--tls-certificate={files.certificate}", f"--tls-key={files.key}")
                arguments += ["--grpc-address", self.grpc, "--https-host", https_host, *pair]
            found.append(Child("vertex_grpc", layout, label=GRPC, arguments=tuple(arguments)))
        if self.proxy is not None:
            arguments = [*common, "--listen-fd", str(self.proxy.fileno())]
            if self.speaks_grpc:
                arguments += ["--grpc-socket", str(layout.grpc_socket)]
            fds = (self.proxy.fileno(),)
            found.append(Child("vertex_proxy", layout, label="proxy", arguments=tuple(arguments), pass_fds=fds))
        return tuple(found)


@contextlib.contextmanager
def opened(ways: WaysIn, host: str, *, search: bool, say: Callable[[str], None]) -> Iterator[Opened]:
    """Hold their ports.

    Args:
        ways: Which.
        host: Address of what is served with TLS.
        search: Whether a taken port means the next free one.
        say: Takes the sentences meant for a person.

    Raises:
        BadField: A host is no address of this machine.
        PortTaken: One is taken, and no other was to be tried.
    """
    grpc, proxy = "", None
    with contextlib.ExitStack() as held:
        if ways.grpc_port is not None:
            grpc = held.enter_context(reserved(host, ways.grpc_port, search=search, say=say))
        if ways.proxy_port is not None:
            [proxy] = held.enter_context(listening(ways.proxy_host, ways.proxy_port, search=search, sockets=1, say=say))
        yield Opened(grpc, proxy)


PROXY_WARNING = (
    "Vertex proxy at {url}: whoever has it for an HTTPS proxy and trusts {authority} talks to this server where they "
    "call aiplatform.googleapis.com (of any region), oauth2 or iamcredentials. It shows a certificate for "
    "*.googleapis.com. It is meant for development: keep tls/ca.key to yourself."
)
"""What is said at the start, so that nobody has the proxy without knowing."""
