"""A data directory's certificates made ready. A process of its own, so that `cryptography` costs no memory later."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

from headrace.resources.files import private_dir, write_private
from headrace.resources.layout import Layout
from headrace.server.errand import ended
from headrace.server.tls.authority import Authority


def certify(layout: Layout, names: tuple[str, ...], *, now: datetime.datetime) -> bool:
    """See that there is an authority, and a certificate of it that is good for these names and for long enough.

    Returns:
        Whether there is a new one.

    Raises:
        TlsCertificateInvalid: The authority that is there cannot be used.
        OSError: The folder cannot be read or written.
    """
    private_dir(layout.tls_dir)
    authority = Authority.of(layout, now=now)
    kept = layout.tls_certificate
    if kept.exists() and not authority.is_due(kept.read_bytes(), names, now=now):
        return False
    write_private(kept, authority.issue(names, now=now))
    return True


def main() -> int:
    """Entry of the process."""
    data_dir, *names = sys.argv[1:]
    now = datetime.datetime.now(datetime.UTC)
    return ended(lambda: certify(Layout(Path(data_dir)), tuple(names), now=now), data_dir)


if __name__ == "__main__":
    sys.exit(main())
