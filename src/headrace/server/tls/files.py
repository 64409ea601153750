"""A certificate and its key in files that may change, and the TLS context that follows them."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec

from headrace.resources.errors import TlsCertificateInvalid

PROTOCOLS = ("http/1.1",)
"""What a client may choose from (ALPN, RFC 7301). One that offers none of them gets HTTP/1.1 all the same."""


class CertificateFiles(msgspec.Struct, frozen=True):
    """Where a certificate and its key lie, each as PEM.

    Attributes:
        certificate: With those that lead from it to an authority that clients know.
        key: May be the same file.
    """

    certificate: Path
    key: Path

    def state(self) -> tuple[object, ...]:
        """Differs once one of them was replaced, written to, or put elsewhere."""
        return tuple(_state(path) for path in (self.certificate, self.key))

    def context(self, protocols: tuple[str, ...] = PROTOCOLS) -> ssl.SSLContext:
        """What a server shows with them: TLS 1.2 or newer, without renegotiation.

        Args:
            protocols: What a client may choose from (ALPN), the preferred one first.

        Raises:
            TlsCertificateInvalid: They are no certificate and its key.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(list(protocols))
        try:
            # An encrypted key fails for its empty passphrase, instead of OpenSSL asking a terminal for one.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except OSError as error:  # `ssl.SSLError` is one
            raise TlsCertificateInvalid(
                f"{self.certificate} and {self.key} cannot be used for TLS.",
                evidence=f"{_why(error)}.",
                fix="Both have to be PEM, readable for the server's user; the key has to be the certificate's own, and "
                "not encrypted.",
            ) from error
        return context


class FollowedCertificate:
    """Shows what two files hold to each new connection; connections that stand keep what they were shown.

    Args:
        files: The two.
        protocols: What a client may choose from (ALPN), the preferred one first.

    Attributes:
        context: For the listening side; None until there was a pair that can be shown.
    """

    def __init__(self, files: CertificateFiles, protocols: tuple[str, ...] = PROTOCOLS) -> None:
        self.context: ssl.SSLContext | None = None
        self._files = files
        self._protocols = protocols
        self._state: tuple[object, ...] = ()
        self._newest: ssl.SSLContext | None = None

    def look(self) -> bool:
        """Take up the files, if they have changed since the last look. Returns whether there is something new to show.

        Raises:
            TlsCertificateInvalid: They have changed to what cannot be shown; what was shown before still is.
        """
        state = self._files.state()
        if state == self._state:
            return False
        self._state = state
        self._newest = self._files.context(self._protocols)
        if self.context is None:
            self.context = self._newest
            # Called at each handshake, whether or not the client names a host. A context can be given another
            # certificate, but keeps one of each kind of key: a new one on an elliptic curve beside an old one of RSA.
            self.context.sni_callback = self._show_newest
        return True

    def _show_newest(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _host: str | None, _context: ssl.SSLContext
    ) -> None:
        assert self._newest is not None
        connection.context = self._newest


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"{error.reason or error}".replace("_", " ").capitalize()
    return error.strerror or str(error)
