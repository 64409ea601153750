"""A gateway's second listening socket: HTTPS, by a certificate that is followed."""

from __future__ import annotations

import asyncio
import logging
import socket

from headrace.gateway import HttpServer
from headrace.resources.errors import TlsCertificateInvalid
from headrace.server.tls.files import FollowedCertificate

_LOGGER = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0


class TlsPort:
    """Serves HTTPS on a listening socket, once there is a certificate to show.

    Until then, who connects waits in the supervisor's socket: a pair that is broken just when a gateway is replaced
    does not end the port that needs none.

    Args:
        server: Takes the connections.
        listener: The socket.
        certificate: What clients are shown.
    """

    def __init__(self, server: HttpServer, listener: socket.socket, certificate: FollowedCertificate) -> None:
        self._server = server
        self._listener = listener
        self._certificate = certificate
        self._listens = False

    async def look(self) -> None:
        """Take up what is new in the certificate's files, and listen if that is not done yet."""
        try:
            if self._certificate.look() and self._listens:
                _LOGGER.info("new connections are shown the new TLS certificate")
        except TlsCertificateInvalid as error:
            meanwhile = "the one before it is shown on" if self._listens else "nobody can connect by TLS"
            _LOGGER.warning("no TLS certificate, %s: %s", meanwhile, error)
        context = self._certificate.context
        if context is not None and not self._listens and not self._server.retired:
            self._listens = True
            await self._server.start(self._listener, context)

    async def follow(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()
