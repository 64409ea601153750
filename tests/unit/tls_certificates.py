"""Certificates for tests: of a private authority, and self-signed ones with a key of either kind."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from headrace.resources.layout import Layout
from headrace.server.tls.certify import certify
from headrace.server.tls.files import CertificateFiles
from headrace.server.tls.names import LOCAL_NAMES


def now() -> datetime.datetime:
    """The time, for certificates that are really shown."""
    return datetime.datetime.now(datetime.UTC)


def authority_in(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A private authority's certificate, and what a server shows that has one of it for the local names."""
    layout = Layout(folder)
    certify(layout, LOCAL_NAMES, now=now())
    return layout.tls_authority, CertificateFiles(layout.tls_certificate, layout.tls_certificate).context()


def self_signed(folder: Path, *, kind: str = "ec", password: bytes | None = None) -> CertificateFiles:
    """A certificate for ``localhost`` that nobody signed, and its key, in files of these names in the folder."""
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"a test, {kind}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - datetime.timedelta(days=1))
        .not_valid_after(now() + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = CertificateFiles(folder / "certificate.pem", folder / "key.pem")
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    encoding = serialization.Encoding.PEM
    files.certificate.write_bytes(certificate.public_bytes(encoding))
    files.key.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, encryption))
    return files
