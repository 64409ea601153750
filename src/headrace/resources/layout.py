"""Where things lie in a data directory: path arithmetic only, shared by every process that lives in it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import platformdirs

from headrace.resources.request_log import REQUEST_LOG_FOLDER
from headrace.resources.usage import USAGE_FOLDER

_LONGEST_SOCKET = len("/") + 19 + len(".engine")
_SUN_PATH_MAX = 107  # sockaddr_un.sun_path is 108 bytes with its final NUL, unix(7)


class Layout:
    """The folders and sockets of one Headrace installation.

    Args:
        data_dir: The data directory; everything durable is in it.
        runtimes_dir: Where runtimes' environments live; default ``$HEADRACE_RUNTIMES_DIR``, else inside `data_dir`.
            They are addressed by content, so several installations may share one folder.
    """

    def __init__(self, data_dir: Path, *, runtimes_dir: Path | None = None) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        configured = os.environ.get("HEADRACE_RUNTIMES_DIR")
        self.runtimes_dir = runtimes_dir or (Path(configured) if configured else self.data_dir / "runtimes")

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data_dir / "headrace.db"

    @property
    def database_url(self) -> Path:
        """Where another database is, if not that file; private, because the address may hold a password."""
        return self.run_dir / "database-url"

    @property
    def models_dir(self) -> Path:
        """Staged artifacts, one folder per fingerprint."""
        return self.data_dir / "models"

    @property
    def uploads_dir(self) -> Path:
        """Files that clients upload: of registered models and of volumes."""
        return self.data_dir / "uploads"

    @property
    def snapshot(self) -> Path:
        """The first gateway's last routing snapshot."""
        return self.snapshot_of(0)

    def snapshot_of(self, number: int) -> Path:
        """A gateway's last routing snapshot, in the folder of all that it keeps."""
        return self.data_dir / gateway_name(number) / "snapshot.json"

    @property
    def usage_dir(self) -> Path:
        """What requests used, as gateways wrote it and control has not taken in yet."""
        return self.snapshot.with_name(USAGE_FOLDER)

    @property
    def request_log(self) -> Path:
        """What all gateways logged of requests."""
        return self.snapshot.with_name(REQUEST_LOG_FOLDER)

    @property
    def tables_dir(self) -> Path:
        """Inference tables, as ``project/catalog/schema/table``."""
        return self.data_dir / "tables"

    @property
    def internal_token(self) -> Path:
        """The secret that our own processes show each other; mode 0600."""
        return self.data_dir / "internal.token"

    @property
    def local_login(self) -> Path:
        """Address and first admin key of this server for commands of the same user; mode 0600."""
        return self.data_dir / "login.json"

    @property
    def addresses(self) -> Path:
        """Where this server can be reached, for commands of the same user; mode 0600."""
        return self.data_dir / "addresses.json"

    @property
    def credentials(self) -> Path:
        """What projects' weights are fetched with from object stores; mode 0600."""
        return self.data_dir / "credentials.json"

    @property
    def tls_dir(self) -> Path:
        """The private certificate authority and what it signed; folder of mode 0700, files of mode 0600."""
        return self.data_dir / "tls"

    @property
    def tls_authority(self) -> Path:
        """The authority's certificate, which clients are given."""
        return self.tls_dir / "ca.pem"

    @property
    def tls_authority_key(self) -> Path:
        """The authority's key, which nobody is given."""
        return self.tls_dir / "ca.key"

    @property
    def tls_certificate(self) -> Path:
        """The server's certificate of that authority, with its key in the same file, so that they change as one."""
        return self.tls_dir / "server.pem"

    @property
    def tls_proxy_certificate(self) -> Path:
        """What only the proxy for the names of Vertex AI shows: a certificate of that authority, with its key."""
        return self.tls_dir / "proxy.pem"

    @property
    def logs_dir(self) -> Path:
        """Logs of gateway, control and node."""
        return self.data_dir / "logs"

    @property
    def lock(self) -> Path:
        """Held by the one `headrace serve` that runs here."""
        return self.data_dir / "serve.lock"

    def replica_dir(self, replica_id: str) -> Path:
        """State, log and exit status of one replica; outlives it."""
        return self.data_dir / "replicas" / replica_id

    @property
    def run_dir(self) -> Path:
        """Folder (mode 0700) of unix sockets: in the data directory, or a temporary one where paths get too long."""
        inside = self.data_dir / "run"
        if len(os.fsencode(inside)) + _LONGEST_SOCKET <= _SUN_PATH_MAX:
            return inside
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}-{digest}"

    @property
    def control_socket(self) -> Path:
        """Where control listens."""
        return self.run_dir / "control.sock"

    @property
    def gateway_socket(self) -> Path:
        """Where the first gateway takes snapshots."""
        return self.gateway_socket_of(0)

    def gateway_socket_of(self, number: int) -> Path:
        """Where a gateway takes snapshots."""
        return self.run_dir / f"{gateway_name(number)}.sock"

    @property
    def grpc_socket(self) -> Path:
        """Where gRPC is spoken without TLS, with the proxy for the names of Vertex AI."""
        return self.run_dir / "grpc.sock"

    def engine_socket(self, replica_id: str) -> Path:
        """Where a replica's engine listens."""
        return self.run_dir / f"{replica_id}.engine"

    def shim_socket(self, replica_id: str) -> Path:
        """Where a replica's shim listens."""
        return self.run_dir / f"{replica_id}.shim"


def gateway_name(number: int) -> str:
    """What a gateway's files are called: ``gateway``, ``gateway-1``, and so on."""
    return f"gateway-{number}" if number else "gateway"


def default_data_dir() -> Path:
    """``$HEADRACE_DATA_DIR``, else the user's data folder as the XDG specification names it."""
    configured = os.environ.get("HEADRACE_DATA_DIR")
    return Path(configured) if configured else Path(platformdirs.user_data_dir("headrace"))
