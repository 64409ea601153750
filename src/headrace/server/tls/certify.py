"""A data directory's certificates made ready. A process of its own, so that `cryptography` costs no memory later."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

from headrace.resources.files import private_dir, write_private
from headrace.resources.layout import Layout
from headrace.server.errand import ended
from headrace.server.tls.authority import Authority
from headrace.server.tls.names import PROXY


def certify(layout: Layout, names: tuple[str, ...], *, now: datetime.datetime, certificate: Path | None = None) -> bool:
    """See that there is an authority, and a certificate of it that is good for these names and for long enough.

    Args:
        layout: Of the data directory.
        names: What the certificate is to be good for.
        now: The time.
        certificate: Its file; None: that of the TLS port.

    Returns:
        Whether there is a new one.

    Raises:
        TlsCertificateInvalid: The authority that is there cannot be used.
        OSError: The folder cannot be read or written.
    """
    private_dir(layout.tls_dir)
    authority = Authority.of(layout, now=now)
    kept = certificate or layout.tls_certificate
    if kept.exists() and not authority.is_due(kept.read_bytes(), names, now=now):
        return False
    write_private(kept, authority.issue(names, now=now))
    return True


def main() -> int:
    """Entry of the process."""
    data_dir, *words = sys.argv[1:]
    at = words.index(PROXY) if PROXY in words else len(words)
    return ended(lambda: _certify_all(Layout(Path(data_dir)), tuple(words[:at]), tuple(words[at + 1 :])), data_dir)


def _certify_all(layout: Layout, names: tuple[str, ...], proxy_names: tuple[str, ...]) -> None:
    now = datetime.datetime.now(datetime.UTC)
    for wanted, certificate in ((names, layout.tls_certificate), (proxy_names, layout.tls_proxy_certificate)):
        if wanted:
            certify(layout, wanted, now=now, certificate=certificate)


if __name__ == "__main__":
    sys.exit(main())
