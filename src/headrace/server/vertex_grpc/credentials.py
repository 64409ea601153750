"""A certificate and its key as gRPC shows them, followed as they change."""

from __future__ import annotations

import logging
from typing import Any

import grpc

from headrace.resources.errors import TlsCertificateInvalid
from headrace.server.tls.files import CertificateFiles

_LOGGER = logging.getLogger(__name__)


class FollowedPair:
    """Looks at the files before each handshake. A pair that is broken changes nothing.

    Args:
        files: The two.
    """

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._state: tuple[object, ...] = ()

    def credentials(self) -> Any:
        """What a port is opened with.

        Raises:
            TlsCertificateInvalid: There is nothing to show.
        """
        self._state = self._files.state()
        return grpc.dynamic_ssl_server_credentials(self._read(), self._newer)

    def _newer(self) -> Any:
        """What to show from now on; None for the same as before. Called by gRPC's threads."""
        state = self._files.state()
        if state == self._state:
            return None
        self._state = state
        try:
            return self._read()
        except (TlsCertificateInvalid, OSError) as error:
            _LOGGER.warning("no new TLS certificate, the one before it is shown on: %s", error)
            return None

    def _read(self) -> Any:
        self._files.context()  # tells what cannot be used; gRPC would show nothing, and say nothing
        pair = self._files.key.read_bytes(), self._files.certificate.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair])
