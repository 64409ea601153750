"""Signed tokens at the gateway: what a service account signs opens what its key may open, without asking anybody."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_serving import BASE, CHAT, KEYS, Served, deployed, gateway_before, snapshot
from service_accounts import KEY_ID, key_route, other_pair, token

from headrace.contracts.vertex.token_exchange import GRANT_TYPE
from headrace.gateway import authentication
from headrace.gateway.verified_tokens import VerifiedToken, VerifiedTokens
from headrace.resources.access import Role
from headrace.resources.limits import KeyLimits
from headrace.resources.snapshot import KeyRoute
from standin import StandIn


def with_account(folder: Path, test: Callable[[Served], Awaitable[None]], account: KeyRoute | None = None) -> None:
    """Run a test before a gateway that knows the service account, and whose control plane is down."""

    folder.mkdir(exist_ok=True)

    async def main() -> None:
        async with StandIn(folder / "e") as engine, gateway_before(folder, deployed(engine.address)) as served:
            await served.push(snapshot(deployed(engine.address), generation=2, keys=(*KEYS, account or key_route())))
            del served.client.headers["authorization"]
            await test(served)

    asyncio.run(main())


def bearer(signed: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"authorization": f"Bearer {signed}"}


async def chat(served: Served, signed: str) -> httpx.Response:
    """A request for inference that shows a token."""
    return await served.client.post(f"{BASE}/chat/completions", json=CHAT, headers=bearer(signed))


async def exchange(served: Served, assertion: str, *, as_json: bool = False) -> httpx.Response:
    """Trade an assertion."""
    fields = {"grant_type": GRANT_TYPE, "assertion": assertion}
    return await served.client.post("/token", **({"json": fields} if as_json else {"data": fields}))  # type: ignore[arg-type]


def test_what_a_service_account_signs_opens_the_gateway(tmp_path: Path) -> None:
    """A self-signed token, and what `/token` gives for an assertion, answer as a key does, while control is down."""

    async def test(served: Served) -> None:
        assert (await chat(served, token())).status_code == 200
        for as_json in (False, True):
            assertion = token(aud="https://oauth2.googleapis.com/token", sub=None, scope="cloud-platform")
            answer = await exchange(served, assertion, as_json=as_json)
            assert answer.status_code == 200, answer.text
            assert answer.headers["cache-control"] == "no-store"
            got = answer.json()
            assert (got["token_type"], set(got)) == ("Bearer", {"access_token", "token_type", "expires_in"})
            assert 3590 < got["expires_in"] <= 3600
            assert (await chat(served, got["access_token"])).status_code == 200

    with_account(tmp_path, test)


def test_a_revoked_key_takes_its_tokens_along(tmp_path: Path) -> None:
    """With the first snapshot that lacks the key its tokens are refused, those verified before too, and at `/token`."""

    async def test(served: Served) -> None:
        signed = token()
        assert (await chat(served, signed)).status_code == 200
        await served.push(snapshot(generation=3))
        refused = await chat(served, signed)
        assert refused.status_code == 401
        assert refused.json()["error"]["details"][0]["reason"] == "UNKNOWN_KEY"
        traded = await exchange(served, signed)
        assert (traded.status_code, traded.json()["error"]) == (400, "invalid_grant")
        assert "revoked" in traded.json()["error_description"]

    with_account(tmp_path, test)


def test_a_token_may_what_its_key_may(tmp_path: Path) -> None:
    """Role, project and limits of the key hold for whatever it signs."""

    async def refused(served: Served) -> None:
        answer = await chat(served, token())
        assert (answer.status_code, answer.json()["error"]["details"][0]["reason"]) == (403, "ROLE_MISSING")
        assert KEY_ID in answer.text

    async def elsewhere(served: Served) -> None:
        assert (await chat(served, token(project="elsewhere"))).status_code == 403

    async def limited(served: Served) -> None:
        answers = [(await chat(served, token(exp=time.time() + more))).status_code for more in (60, 120, 180)]
        assert answers == [200, 200, 429]

    with_account(tmp_path / "viewer", refused, key_route(Role.VIEWER))
    with_account(tmp_path / "project", elsewhere, key_route(project="elsewhere"))
    with_account(tmp_path / "limits", limited, key_route(limits=KeyLimits(requests_per_minute=2)))


def test_bad_tokens_are_refused_in_googles_shape(tmp_path: Path) -> None:
    """Another key's signature, `none`, an expired one, one for a day, garbage, a huge one: 401, and what is wrong."""

    async def test(served: Served) -> None:
        now = time.time()
        unsigned = token().rpartition(".")[0] + "."
        bad = {
            token(private_key=other_pair().private_key): "BAD_TOKEN",
            unsigned: "BAD_TOKEN",
            token(iat=now - 7200, exp=now - 3600): "TOKEN_EXPIRED",
            token(iat=now + 3600, exp=now + 7200): "BAD_TOKEN",
            token(exp=now + 86_400): "BAD_TOKEN",
            token(headers={"kid": "7000000000000000002"}): "UNKNOWN_KEY",
            "a.b.c": "BAD_TOKEN",
            f"{'x' * 20_000}.y.z": "BAD_TOKEN",
        }
        for signed, reason in bad.items():
            answer = await chat(served, signed)
            assert answer.status_code == 401, signed
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["details"][0]["reason"] == reason
            traded = await exchange(served, signed)
            assert (traded.status_code, traded.json()["error"]) == (400, "invalid_grant"), signed

    with_account(tmp_path, test)


def test_what_is_no_exchange_is_told(tmp_path: Path) -> None:
    """`/token` refuses whatever is not an exchange, in the words that Google's libraries show."""

    async def test(served: Served) -> None:
        answer = await served.client.post("/token", data={"grant_type": "client_credentials"})
        assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")
        assert (await served.client.post("/token")).json()["error"] == "invalid_request"
        assert (await served.client.post("/token", content=b"x" * 40_000)).status_code == 413
        wrong = await served.client.get("/token")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")

    with_account(tmp_path, test)


def test_the_id_of_a_service_account_is_no_key(tmp_path: Path) -> None:
    """Nothing public of it opens anything: not its id, its public key, or the hash of the secret that nobody has."""

    async def test(served: Served) -> None:
        account = key_route()
        for shown in (KEY_ID, account.secret_hash, account.public_key.replace("\n", "")):
            assert (await chat(served, shown)).status_code == 401

    with_account(tmp_path, test)


def test_a_signature_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was verified is known by a dictionary from then on, also by the tables that follow."""
    looked: Counter[str] = Counter()
    verify = authentication.verify_token

    def counting(signed: str, **options: Any) -> float:
        looked[signed] += 1
        return verify(signed, **options)

    monkeypatch.setattr(authentication, "verify_token", counting)

    async def test(served: Served) -> None:
        signed = token()
        for generation in (3, 4):
            for _ in range(3):
                assert (await served.client.get(f"{BASE}/models", headers=bearer(signed))).status_code == 200
            await served.push(snapshot(generation=generation, keys=(*KEYS, key_route())))
        assert looked == {signed: 1}

    with_account(tmp_path, test)


def test_verified_tokens_are_bounded_and_expire() -> None:
    """No more are remembered than may be, the oldest goes first, and none longer than it is good."""
    tokens = VerifiedTokens(most=3)
    for number in range(5):
        tokens.keep(f"t{number}", VerifiedToken("1", good_until=10.0 + number))
    assert len(tokens) == 3
    assert tokens.find("t1", 0.0) is None
    assert tokens.find("t2", 11.9) == VerifiedToken("1", 12.0)
    assert tokens.find("t2", 12.0) is None
    tokens.keep("t2", VerifiedToken("1", good_until=99.0))
    assert len(tokens) == 3
    assert tokens.find("t2", 98.0) is not None


def test_a_service_account_outlives_the_gateway(tmp_path: Path) -> None:
    """The snapshot on disk carries its public key, so a gateway that starts without control knows it."""

    async def test(served: Served) -> None:
        kept = json.loads((tmp_path / "snapshot.json").read_text())
        (account,) = [one for one in kept["keys"] if one["public_key"]]
        assert account["public_key"].startswith("-----BEGIN PUBLIC KEY-----")
        assert "PRIVATE" not in json.dumps(kept)

    with_account(tmp_path, test)
