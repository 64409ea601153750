"""The private certificate authority of one data directory, and the certificates that it signs.

It is made once and is good for ten years, so that clients have to be given it once. What it signs is good for 90 days
and is renewed when a third of them is left, as Let's Encrypt has it: a key that leaked is of no use for long, and a
renewal that fails can be tried for a month.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headrace.resources.errors import TlsAuthorityNotFound, TlsCertificateInvalid
from headrace.resources.files import write_private
from headrace.resources.layout import Layout

AUTHORITY_GOOD_FOR = datetime.timedelta(days=3650)
GOOD_FOR = datetime.timedelta(days=90)
RENEWED_BEFORE_END = datetime.timedelta(days=30)
_CLOCKS_DIFFER_BY = datetime.timedelta(hours=1)
"""A certificate begins this long before it is made: a client's clock may be behind."""

_KEY_USES = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


class Authority:
    """Signs certificates for this machine's server.

    Args:
        certificate: What clients trust.
        key: What it signs with.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def of(cls, layout: Layout, *, now: datetime.datetime) -> Authority:
        """That of a data directory: the one that is there, else a new one, which is kept there.

        Raises:
            TlsCertificateInvalid: The one that is there is damaged, or has run out.
            OSError: The folder cannot be read or written.
        """
        if not layout.tls_authority.exists():
            made = cls._new(now)
            write_private(layout.tls_authority_key, _key_pem(made._key))
            write_private(layout.tls_authority, made.certificate.public_bytes(serialization.Encoding.PEM))
            return made
        certificate = authority_certificate(layout)
        try:
            key = serialization.load_pem_private_key(layout.tls_authority_key.read_bytes(), None)
        except (FileNotFoundError, ValueError, TypeError) as error:
            raise _unusable(layout.tls_authority_key, f"{error}.") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise _unusable(layout.tls_authority_key, f"It is not the key of {layout.tls_authority}.")
        if certificate.not_valid_after_utc <= now:
            raise _unusable(layout.tls_authority, f"It was good until {certificate.not_valid_after_utc:%Y-%m-%d}.")
        return cls(certificate, key)

    @classmethod
    def _new(cls, now: datetime.datetime) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        # The name differs from one authority to the next: clients that trust several find theirs by it.
        name = _named(f"Headrace private authority {secrets.token_hex(4)}")
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            _begun(name, name, key.public_key(), now)
            .not_valid_after(now + AUTHORITY_GOOD_FOR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(**_KEY_USES | {"key_cert_sign": True, "crl_sign": True}), critical=True)
            .add_extension(identifier, critical=False)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue(self, names: tuple[str, ...], *, now: datetime.datetime) -> bytes:
        """A new key and a certificate of it for these names, in one PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _begun(_named("headrace"), self.certificate.subject, key.public_key(), now)
            .not_valid_after(min(now + GOOD_FOR, self.certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**_KEY_USES | {"digital_signature": True}), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
        )
        signed = builder.sign(self._key, hashes.SHA256())
        return _key_pem(key) + signed.public_bytes(serialization.Encoding.PEM)

    def is_due(self, pem: bytes, names: tuple[str, ...], *, now: datetime.datetime) -> bool:
        """Whether a certificate is to be replaced: not one of ours, not for these names, or near its end."""
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            certificate.verify_directly_issued_by(self.certificate)
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return True
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        last = end >= self.certificate.not_valid_after_utc  # a new one would end no later
        near = end - now <= RENEWED_BEFORE_END and not last
        return set(found) != {_general(name) for name in names} or not begin <= now < end or near


def authority_certificate(layout: Layout) -> x509.Certificate:
    """What the clients of a data directory's server are to trust.

    Raises:
        TlsAuthorityNotFound: There is none.
        TlsCertificateInvalid: It is damaged.
    """
    try:
        return x509.load_pem_x509_certificate(layout.tls_authority.read_bytes())
    except FileNotFoundError:
        raise TlsAuthorityNotFound(
            f"{layout.data_dir} has no private certificate authority.",
            evidence=f"There is no {layout.tls_authority}.",
            fix=f"It is made once: `headrace serve --tls-port 8443 --data-dir {layout.data_dir}`.",
        ) from None
    except (ValueError, OSError) as error:
        raise _unusable(layout.tls_authority, f"{error}.") from error


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, as ``openssl x509 -fingerprint -sha256`` shows it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER_BY)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _unusable(path: Path, evidence: str) -> TlsCertificateInvalid:
    return TlsCertificateInvalid(
        f"The private certificate authority in {path.parent} cannot be used.",
        evidence=f"{path.name}: {evidence}",
        fix=f"Put a backup in its place, or move {path.parent} aside: the next start makes a new one, which clients "
        "have to be given anew (`headrace ca export`).",
    )
