"""Service accounts: what Google's libraries sign is taken, and nothing else is."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from google.auth import crypt
from google.auth import jwt as google_jwt
from google.oauth2 import service_account
from hypothesis import given, settings
from hypothesis import strategies as st
from service_accounts import KEY_ID, PROJECT, account_file, other_pair, pair, token

from headrace.contracts.oauth import BadGrant, refusal_json
from headrace.contracts.vertex.service_accounts import (
    LEEWAY_S,
    LONGEST_TOKEN,
    client_email,
    is_ours,
    is_token,
    key_id_of,
    read_file,
    sign_token,
    verify_token,
)
from headrace.contracts.vertex.token_exchange import GRANT_TYPE, read_token_request
from headrace.resources.errors import BadToken, HeadraceError, TokenExpired, Unauthenticated, UnknownKey


def verified(signed: str, *, now: float | None = None) -> float:
    """Until when a token of the test's key is good."""
    key_id = key_id_of(signed)
    assert key_id == KEY_ID
    at = time.time() if now is None else now
    return verify_token(signed, key_id=key_id, project=PROJECT, public_key=pair().public_key, now=at)


def part(value: Any) -> str:
    """A part of a token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_googles_library_reads_the_file_and_signs_what_is_taken() -> None:
    """Its assertion and its self-signed token, made from our file, are both good for an hour."""
    credentials = service_account.Credentials.from_service_account_info(account_file())
    assert credentials.service_account_email == client_email(KEY_ID, PROJECT)
    assertion = credentials._make_authorization_grant_assertion().decode()
    self_signed = google_jwt.Credentials.from_signing_credentials(credentials, "https://aiplatform.googleapis.com/")
    self_signed.refresh(None)
    for signed in (assertion, self_signed.token.decode()):
        assert is_token(signed)
        assert 3590 < verified(signed) - LEEWAY_S - time.time() <= 3600


def test_our_own_tokens_are_taken() -> None:
    """What `headrace auth print-access-token` signs from the file is good for an hour."""
    account = read_file(json.dumps(account_file()).encode())
    assert account is not None
    assert "PRIVATE" not in repr(account)
    assert "PRIVATE" not in repr(pair())
    signed = sign_token(account, now=1_000_000.0)
    assert verified(signed, now=1_000_001.0) == 1_003_600 + LEEWAY_S
    with pytest.raises(ValueError, match="key"):
        sign_token(type(account)("a", "b", "no key"), now=0.0)


def test_googles_own_reading_of_our_token() -> None:
    """Google's verifier finds the signature good that we made: there is one standard."""
    account = read_file(json.dumps(account_file()).encode())
    assert account is not None
    signed = sign_token(account, now=time.time())
    claims = google_jwt.decode(signed, certs=None, verify=False)
    assert claims["iss"] == client_email(KEY_ID, PROJECT)
    verifier = crypt.RSAVerifier.from_string(pair().public_key)
    signing_input, _, signature = signed.rpartition(".")
    assert verifier.verify(signing_input.encode(), base64.urlsafe_b64decode(signature + "=="))


def test_clocks_may_differ_by_the_leeway() -> None:
    """A token of a clock five minutes ahead or behind is good; one second more, and it is told by how much."""
    now = 1_000_000.0
    for ahead in (LEEWAY_S, -LEEWAY_S):
        assert verified(token(iat=now + ahead, exp=now + ahead + 3600), now=now)
    with pytest.raises(BadToken, match=r"of the future.* 301 s from now"):
        verified(token(iat=now + 301, exp=now + 3901), now=now)
    with pytest.raises(BadToken, match="nbf is"):
        verified(token(iat=now, nbf=now + 301, exp=now + 3600), now=now)
    assert verified(token(iat=now - 3600, exp=now - LEEWAY_S + 1), now=now)
    with pytest.raises(TokenExpired, match="300 s ago"):
        verified(token(iat=now - 3600, exp=now - LEEWAY_S), now=now)


@pytest.mark.parametrize(
    ("different", "told"),
    [
        ({"exp": time.time() + 2 * 3600}, "at most"),
        ({"exp": 1e308}, "at most"),
        ({"iat": -1e308}, "at most"),
        ({"iat": time.time(), "exp": time.time() - 1}, "at most"),
        ({"iat": 1.0, "exp": 2.0}, "no longer good"),
        ({"exp": None}, "missing required field `exp`"),
        ({"iat": None}, "missing required field `iat`"),
        ({"exp": "soon"}, "claims cannot be read"),
        ({"exp": True}, "claims cannot be read"),
        ({"iss": None}, "missing required field `iss`"),
        ({"iss": "someone@my-project.iam.gserviceaccount.com"}, "somebody else"),
        ({"sub": "the-boss@example.com"}, "somebody else"),
        ({"project": "another"}, "somebody else"),
        ({"private_key": other_pair().private_key}, "signature is not that of key"),
    ],
)
def test_claims_that_may_not_be(different: dict[str, Any], told: str) -> None:
    """Each is refused with what is wrong, and with no word of the token itself."""
    signed = token(**different)
    with pytest.raises(Unauthenticated, match=told) as refusal:
        verified(signed)
    assert isinstance(refusal.value, BadToken | TokenExpired)
    assert signed.rpartition(".")[2] not in str(refusal.value)
    assert refusal.value.fix


@pytest.mark.parametrize(
    ("signed", "told"),
    [
        (f"{part({'alg': 'none', 'kid': KEY_ID})}.{part({'iss': 'x'})}.", "alg is 'none'"),
        (f"{part({'alg': 'HS256', 'kid': KEY_ID})}.{part({})}.{part(b'x')}", "alg is 'HS256'"),
        (f"{part({'alg': ['RS256'], 'kid': KEY_ID})}.{part({})}.{part(b'x')}", "alg is"),
        (f"{part({'kid': KEY_ID})}.{part({})}.{part(b'x')}", "alg is None"),
        (f"{part({'alg': 'RS256'})}.{part({})}.{part(b'x')}", "does not say which key"),
        (f"{part({'alg': 'RS256', 'kid': 7})}.{part({})}.{part(b'x')}", "must be a string"),
        (f"{part({'alg': 'RS256', 'kid': KEY_ID, 'crit': ['exp']})}.{part({})}.{part(b'x')}", "crit"),
        (f"{part({'alg': 'RS256', 'kid': KEY_ID})}.{part({})}.", "signature is not that"),
        (f"{part([1])}.{part({})}.{part(b'x')}", "cannot be read"),
        (f"{part(b'[' * 4000)}.{part({})}.x", "cannot be read"),
        ("a.b.c", "cannot be read"),
        ("..", "cannot be read"),
        ("é.é.é", "cannot be read"),
        ("x" * LONGEST_TOKEN + ".a.b", "too long"),
    ],
)
def test_tokens_that_are_none(signed: str, told: str) -> None:
    """No algorithm but ours, no unsigned token, no garbage: each is told what is wrong."""
    with pytest.raises(BadToken, match=told):
        verified(signed)


@pytest.mark.parametrize("kid", ["", "0" * 21, "x", "\ud800", "../1", "１"])
def test_ids_that_no_key_has(kid: str) -> None:
    """They never get as far as a look-up, and the refusal can be written as it is."""
    with pytest.raises(UnknownKey) as refusal:
        key_id_of(f"{part({'alg': 'RS256', 'kid': kid})}.{part({})}.{part(b'x')}")
    assert str(refusal.value).isascii()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.fixed_dictionaries({"alg": st.just("RS256") | JSON, "kid": st.just(KEY_ID) | JSON}) | JSON
GARBAGE = st.text(max_size=40) | st.builds(
    lambda *parts: ".".join(parts),
    (HEADERS.map(part) | st.binary(max_size=20).map(part) | st.text(max_size=9)),
    (JSON.map(part) | st.binary(max_size=20).map(part)),
    (st.binary(max_size=300).map(part) | st.text(max_size=9)),
)


@settings(max_examples=300, deadline=None)
@given(GARBAGE)
def test_garbage_is_refused_and_nothing_else_happens(signed: str) -> None:
    """Whatever a stranger sends, it is 401 with a reason that can be sent back, and never another exception."""
    with pytest.raises(Unauthenticated) as refusal:
        verified(signed)
    assert str(refusal.value).encode()


CLAIMS = st.fixed_dictionaries({}, optional=dict.fromkeys(("iss", "sub", "iat", "exp", "nbf"), JSON))


@settings(max_examples=100, deadline=None)
@given(CLAIMS | JSON)
def test_garbage_that_is_well_signed(claims: Any) -> None:
    """Even the owner of a key gets a refusal, not a failure, for claims that make no sense."""
    signer = crypt.RSASigner.from_service_account_info(account_file())
    signed = google_jwt.encode(signer, claims).decode()
    with pytest.raises(Unauthenticated):
        verified(signed)


def test_whose_file_it_is() -> None:
    """A file for Google's cloud is told from ours by its address; other files are none."""
    assert is_ours(client_email("1", "*"))
    assert not is_ours("batch@my-project.iam.gserviceaccount.com")
    assert read_file(b"{}") is None
    assert read_file(b"\xff") is None


def test_an_exchange_is_a_form_or_json() -> None:
    """Both carry the assertion; what else is in them does not matter."""
    fields = {"grant_type": GRANT_TYPE, "assertion": "a.b.c", "scope": "x"}
    assert read_token_request(urlencode(fields).encode(), "application/x-www-form-urlencoded") == "a.b.c"
    assert read_token_request(json.dumps(fields).encode(), "application/json; charset=utf-8") == "a.b.c"


@pytest.mark.parametrize(
    ("body", "content_type", "error"),
    [
        (b"", "", "invalid_request"),
        (b"grant_type=refresh_token&refresh_token=x", "", "unsupported_grant_type"),
        (f"grant_type={GRANT_TYPE}".encode(), "", "invalid_request"),
        (f"grant_type={GRANT_TYPE}&assertion=a&assertion=b".encode(), "", "invalid_request"),
        (b"\xff", "", "invalid_request"),
        (b"&".join(b"a=b" for _ in range(99)), "", "invalid_request"),
        (b"[]", "application/json", "invalid_request"),
        (b'{"assertion": 7}', "application/json", "invalid_request"),
        (b"[" * 9000, "application/json", "invalid_request"),
    ],
)
def test_what_is_no_exchange(body: bytes, content_type: str, error: str) -> None:
    """It is refused in the words of RFC 6749."""
    with pytest.raises(BadGrant) as refusal:
        read_token_request(body, content_type)
    assert refusal_json(refusal.value, otherwise="invalid_grant")["error"] == error


def test_a_bad_assertion_is_an_invalid_grant() -> None:
    """With our sentence, its evidence and fix, and the address of the page about it."""
    error: HeadraceError = BadToken("No good.", evidence="It is so.", fix="Do this.")
    told = refusal_json(error, otherwise="invalid_grant")
    assert told["error"] == "invalid_grant"
    assert told["error_description"] == "No good. Evidence: It is so. Fix: Do this."
    assert told["error_uri"].endswith("/BAD_TOKEN.md")
