"""Pairs of RSA keys for service accounts."""

from __future__ import annotations

from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

RSA_BITS: Final = 2048
"""As Google's own service accounts have them."""


class KeyPair(msgspec.Struct, frozen=True):
    """Both halves, as PEM."""

    private_key: str
    public_key: str

    def __repr__(self) -> str:
        return "KeyPair()"  # never the private one


def new_key_pair() -> KeyPair:
    """A fresh pair. Takes some 50 to 300 ms of a processor, so it is made outside of any transaction."""
    private = generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return KeyPair(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii"),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii"),
    )
