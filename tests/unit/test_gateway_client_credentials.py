"""OAuth for machines at the gateway: what Databricks' clients discover, and the tokens that they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from gateway_serving import BASE, CHAT, KEY, KEYS, Served, deployed, gateway_before, snapshot
from service_accounts import KEY_ID, key_route, token

from standin import StandIn

TOKEN = "/oidc/v1/token"
GRANT = {"grant_type": "client_credentials", "scope": "all-apis"}


def with_gateway(folder: Path, test: Callable[[Served], Awaitable[None]]) -> None:
    """Run a test before a gateway that knows some keys and a service account, and whose control plane is down."""

    async def main() -> None:
        async with StandIn(folder / "e") as engine, gateway_before(folder, deployed(engine.address)) as served:
            await served.push(snapshot(deployed(engine.address), generation=2, keys=(*KEYS, key_route())))
            del served.client.headers["authorization"]
            await test(served)

    asyncio.run(main())


async def ask(served: Served, client_id: str, secret: str) -> httpx.Response:
    """Ask for a token as the SDK does."""
    return await served.client.post(TOKEN, data=GRANT, auth=(client_id, secret))


async def chat(served: Served, bearer: str) -> int:
    """The status of a request for inference that shows a token."""
    headers = {"authorization": f"Bearer {bearer}"}
    return (await served.client.post(f"{BASE}/chat/completions", json=CHAT, headers=headers)).status_code


def test_a_client_finds_its_way_to_a_token(tmp_path: Path) -> None:
    """From the first question, without a key, to an answer of a model; while control is down."""

    async def test(served: Served) -> None:
        config = (await served.client.get("/.well-known/databricks-config")).json()
        assert set(config) == {"oidc_endpoint", "workspace_id", "cloud"}
        base = str(served.client.base_url).rstrip("/")
        assert config["oidc_endpoint"] == f"{base}/oidc"
        for path in ("oauth-authorization-server", "openid-configuration"):
            found = (await served.client.get(f"{config['oidc_endpoint']}/.well-known/{path}")).json()
            assert found["token_endpoint"] == f"{base}{TOKEN}"
        answer = await ask(served, f"id-{KEY}", KEY)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        got = answer.json()
        assert (got["token_type"], got["expires_in"] > 0) == ("Bearer", True)
        assert await chat(served, got["access_token"]) == 200
        form = {**GRANT, "client_id": f"id-{KEY}", "client_secret": KEY}
        assert (await served.client.post(TOKEN, data=form)).json()["access_token"] == KEY

    with_gateway(tmp_path, test)


def test_a_service_account_shows_what_it_signed(tmp_path: Path) -> None:
    """It has no secret but its private key: what that signed stands in the secret's place."""

    async def test(served: Served) -> None:
        answer = await ask(served, KEY_ID, token())
        assert answer.status_code == 200, answer.text
        assert await chat(served, answer.json()["access_token"]) == 200

    with_gateway(tmp_path, test)


def test_a_wrong_client_is_refused_as_oauth_has_it(tmp_path: Path) -> None:
    """401 and ``invalid_client`` for a secret that is unknown, or another key's; other faults are 400."""

    async def test(served: Served) -> None:
        for client_id, secret in ((f"id-{KEY}", "hr-wrong"), ("id-hr-other", KEY), (KEY_ID, KEY), ("7", "a.b.c")):
            answer = await ask(served, client_id, secret)
            assert answer.status_code == 401, (client_id, answer.text)
            assert answer.json()["error"] == "invalid_client"
            assert answer.headers["www-authenticate"] == "Basic"
            assert KEY not in answer.text
        other = await served.client.post(TOKEN, data={"grant_type": "authorization_code"}, auth=("a", "b"))
        assert (other.status_code, other.json()["error"]) == (400, "unsupported_grant_type")
        assert (await served.client.post(TOKEN, content=b"x" * 40_000)).status_code == 413
        assert (await served.client.get(TOKEN)).status_code == 405

    with_gateway(tmp_path, test)


def test_a_revoked_key_gets_no_token_any_more(tmp_path: Path) -> None:
    """Nor is the one that it had of any use."""

    async def test(served: Served) -> None:
        held = (await ask(served, f"id-{KEY}", KEY)).json()["access_token"]
        left = tuple(key for key in KEYS if key.principal.key_id != f"id-{KEY}")
        await served.push(snapshot(generation=3, keys=left))
        assert (await ask(served, f"id-{KEY}", KEY)).status_code == 401
        assert await chat(served, held) == 401

    with_gateway(tmp_path, test)
