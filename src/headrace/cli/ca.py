"""``headrace ca``: the private certificate authority of this machine's server, for clients to trust."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.endpoints import YesOption, confirm
from headrace.cli.help import MANAGE
from headrace.cli.invocation import Invocation, command, list_command
from headrace.cli.serve import DataDirOption
from headrace.resources.errors import BadField
from headrace.resources.layout import Layout, default_data_dir

if TYPE_CHECKING:
    from cryptography import x509

STDOUT = "-"


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="The authority behind the certificate of this machine's TLS port; for clients to trust.")
    list_command(group, "show", server=False)(show)
    command(group, "export", server=False)(export)
    app.add_typer(group, name="ca", rich_help_panel=MANAGE)


def show(invocation: Invocation, data_dir: DataDirOption = None) -> None:
    """Where it is, its fingerprint, and until when it is good."""
    from headrace.server.tls.authority import fingerprint  # noqa: PLC0415  # brings cryptography

    layout, certificate = _authority(data_dir)
    until = certificate.not_valid_after_utc
    found = {"file": str(layout.tls_authority), "sha256": fingerprint(certificate), "good_until": until.isoformat()}
    invocation.output.document(found)
    rows = [("file", found["file"]), ("SHA-256", found["sha256"]), ("good until", f"{until:%Y-%m-%d}")]
    invocation.output.table(("", ""), rows, empty="")


def export(
    invocation: Invocation,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="Where to; without, or -: to stdout.")] = STDOUT,
    yes: YesOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Write its certificate as PEM: `headrace login URL --ca-file FILE`, `curl --cacert FILE`. Its key stays here."""
    from headrace.server.tls.authority import fingerprint  # noqa: PLC0415  # see above

    layout, certificate = _authority(data_dir)
    pem = layout.tls_authority.read_bytes()
    if file == STDOUT:
        invocation.output.document({"certificate": pem.decode("ascii")})
        invocation.output.piece(pem.decode("ascii"))
        return
    path = Path(file)
    try:
        if path.exists() and path.read_bytes() != pem:
            confirm(invocation, f"{path} has something else in it. Replace it?", yes=yes)
        path.write_bytes(pem)
    except OSError as error:
        raise BadField(f"{path} cannot be written.", evidence=error.strerror or str(error)) from error
    told = {"file": str(path), "sha256": fingerprint(certificate)}
    invocation.output.document(told)
    invocation.output.line(f"Written to {told['file']}. SHA-256 {told['sha256']}")


def _authority(data_dir: Path | None) -> tuple[Layout, x509.Certificate]:
    from headrace.server.tls.authority import authority_certificate  # noqa: PLC0415  # see above

    layout = Layout(data_dir or default_data_dir())
    return layout, authority_certificate(layout)
