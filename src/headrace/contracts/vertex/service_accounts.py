"""Service accounts as Google's libraries know them: the file with a private key, and the tokens that are signed by it.

A library with such a file either trades a token that it signed (an assertion, RFC 7523) for an access token at the
file's ``token_uri``, or shows what it signed at once (https://google.aip.dev/auth/4111); over gRPC always the latter.
Both are the same kind of token, and either is taken wherever a key is: who holds the private key is who the key says,
and there is nothing that another token would say better. So a token needs nothing but the key's public half to be
checked, and is worth nothing from the moment that the key is revoked.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWS, PyJWTError

from headrace.resources.access import EVERY_PROJECT
from headrace.resources.errors import BadToken, TokenExpired, UnknownKey
from headrace.resources.names import DEFAULT_PROJECT

ALGORITHM: Final = "RS256"
"""The only one that Google's libraries sign with an RSA key; no token chooses another for us."""

LONGEST_TOKEN: Final = 8192
"""Characters. Google's libraries make some 800; nothing is decoded of what is longer."""

LONGEST_VALIDITY_S: Final = 3600
"""From ``iat`` to ``exp``: what Google's libraries ask for, and the most that its servers take
(https://developers.google.com/identity/protocols/oauth2/service-account)."""

LEEWAY_S: Final = 300
"""By how much the clock of whoever signs may differ from ours."""

_DOMAIN = "headrace.internal"
"""``internal`` is nobody's: reserved by ICANN for names that are not the internet's."""

_HOW = "Sign again with the private key of a file that `headrace keys create --format service-account` made."
_KEY_ID = re.compile(r"[0-9]{1,20}", re.ASCII)
_LONGEST_ECHO, _LONGEST_TOLD = 64, 200
_SIGNATURES = PyJWS(algorithms=[ALGORITHM])


class Claims(msgspec.Struct, frozen=True):
    """What a token says, as far as it is looked at: its audience and scope are what its maker would ask of Google.

    Attributes:
        iss: Who signed it.
        iat: When, in Unix seconds.
        exp: Until when it is meant to be good.
        nbf: From when on; None: from the beginning.
        sub: Whom it speaks for; None: for whoever signed it.
    """

    iss: str
    iat: float
    exp: float
    nbf: float | None = None
    sub: str | None = None


def client_email(key_id: str, project: str) -> str:
    """The address-like name of a key's service account; no mail ever goes there."""
    place = "every-project" if project == EVERY_PROJECT else project
    return f"{key_id}@{place}.{_DOMAIN}"


def is_ours(email: str) -> bool:
    """Whether a service account is one of a Headrace server, by its name."""
    return email.endswith(f".{_DOMAIN}")


def service_account_file(*, key_id: str, project: str, private_key: str, token_uri: str) -> dict[str, str]:
    """The file that Google's libraries read.

    Args:
        key_id: The key's.
        project: The project that the key reaches, or ``*``.
        private_key: PEM.
        token_uri: Where a library trades its assertions.
    """
    return {
        "type": "service_account",
        "project_id": DEFAULT_PROJECT if project == EVERY_PROJECT else project,
        "private_key_id": key_id,
        "private_key": private_key,
        "client_email": client_email(key_id, project),
        "client_id": key_id,
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    }


class ServiceAccount(msgspec.Struct, frozen=True):
    """What of such a file is needed to sign."""

    client_email: str
    private_key_id: str
    private_key: str

    def __repr__(self) -> str:
        return f"ServiceAccount({self.client_email!r})"  # never the private key


def read_file(content: bytes) -> ServiceAccount | None:
    """The service account in a file; None if it is a file of another kind, or no JSON."""
    try:
        return msgspec.json.decode(content, type=ServiceAccount)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def sign_token(account: ServiceAccount, *, now: float) -> str:
    """A token that is good for an hour from now (Unix seconds), wherever a key is.

    Raises:
        ValueError: The private key is none.
    """
    claims = {"iss": account.client_email, "iat": int(now), "exp": int(now) + LONGEST_VALIDITY_S}
    try:
        return _SIGNATURES.encode(
            msgspec.json.encode(claims), account.private_key, ALGORITHM, headers={"kid": account.private_key_id}
        )
    except PyJWTError as error:
        raise ValueError(str(error)) from error


def is_token(secret: str) -> bool:
    """Whether what a request shows can be a signed token: three parts. Keys have one."""
    return secret.count(".") == 2


def key_id_of(token: str) -> str:
    """The id of the key that a token says it is signed by; nothing of it is verified yet.

    Raises:
        BadToken: It is too long, cannot be read, or is signed in another way than ours.
        UnknownKey: No key of ours can have such an id.
    """
    if len(token) > LONGEST_TOKEN:
        raise _bad("The token is too long.", f"It has {len(token):,} characters; at most {LONGEST_TOKEN:,} are read.")
    try:
        header = _SIGNATURES.get_unverified_header(token)
    except (PyJWTError, ValueError, RecursionError) as error:
        raise _bad("The token cannot be read.", _told(error)) from error
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm != ALGORITHM:
        raise _bad("The token is not signed as it must be.", f"alg is {_shown(algorithm)}; it must be {ALGORITHM}.")
    if "crit" in header:
        raise _bad("The token demands something that is not understood.", f"crit is {_shown(header['crit'])}.")
    if not isinstance(key_id, str):
        raise _bad("The token does not say which key signed it.", f"kid is {_shown(key_id)}.")
    if not _KEY_ID.fullmatch(key_id):
        raise unknown_signer(key_id)
    return key_id


def verify_token(token: str, *, key_id: str, project: str, public_key: str, now: float) -> float:
    """Hold that a token was signed by a key's private half, and is good now.

    Args:
        token: As it was shown, of the key that `key_id_of` tells.
        key_id: That key's.
        project: The key's.
        public_key: PEM.
        now: Unix seconds.

    Returns:
        Until when it is good, our leeway included.

    Raises:
        BadToken: It was signed by another key, or says what it may not.
        TokenExpired: It was good.
    """
    try:
        signed: bytes = _SIGNATURES.decode_complete(token, _loaded(public_key), [ALGORITHM])["payload"]
    except (PyJWTError, ValueError, RecursionError) as error:
        raise _bad(f"The token's signature is not that of key {key_id}.", _told(error)) from error
    try:
        claims = msgspec.json.decode(signed, type=Claims)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _bad("The token's claims cannot be read.", _told(error)) from error
    email = client_email(key_id, project)
    for name, said in (("iss", claims.iss), ("sub", claims.sub)):
        if said not in (email, None):
            raise _bad(f"The token speaks for somebody else than key {key_id}.", f"{name} is {_shown(said)}.")
    _check_times(claims, now)
    return claims.exp + LEEWAY_S


def _check_times(claims: Claims, now: float) -> None:
    if claims.exp - claims.iat > LONGEST_VALIDITY_S + LEEWAY_S or claims.exp <= claims.iat:
        told = f"iat is {claims.iat:.0f} and exp {claims.exp:.0f}: {claims.exp - claims.iat:.0f} s"
        raise _bad(f"A token is good for {LONGEST_VALIDITY_S} s at most, and for some time.", f"{told}.")
    for name, begin_at in (("iat", claims.iat), ("nbf", claims.nbf)):
        if begin_at is not None and begin_at > now + LEEWAY_S:
            late = f"{name} is {begin_at:.0f}, {begin_at - now:.0f} s from now; {LEEWAY_S} s are let pass."
            raise _bad("The token is of the future.", late, fix="Set the clock of the machine that signs it, or ours.")
    if now >= claims.exp + LEEWAY_S:
        late = f"exp is {claims.exp:.0f}, {now - claims.exp:.0f} s ago; {LEEWAY_S} s are let pass."
        raise TokenExpired("The token is no longer good.", evidence=late, fix=_HOW)


def unknown_signer(key_id: str) -> UnknownKey:
    """The refusal of a token whose key is not there."""
    return UnknownKey(
        "The key that signed the token is unknown or was revoked.", evidence=f"kid is {_shown(key_id)}.", fix=_HOW
    )


@functools.lru_cache(maxsize=1024)
def _loaded(public_key: str) -> RSAPublicKey:
    """The key behind a PEM: reading one takes longer than to verify a signature by it."""
    key = load_pem_public_key(public_key.encode("ascii"))
    assert isinstance(key, RSAPublicKey), "we made it"
    return key


def _bad(message: str, evidence: str, *, fix: str = _HOW) -> BadToken:
    return BadToken(message, evidence=evidence, fix=fix)


def _shown(value: Any) -> str:
    """A piece of what a stranger sent, for a message: short, and nothing that a text cannot hold."""
    return ascii(value)[:_LONGEST_ECHO]


def _told(error: Exception) -> str:
    return f"{ascii(str(error))[1:-1][:_LONGEST_TOLD]}."
