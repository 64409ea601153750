"""Keys whose holders sign tokens: made, shown once, never stored, and known to control as to the gateway."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from api_world import World

from headrace.contracts.vertex.service_accounts import read_file, sign_token, verify_token
from headrace.resources.access import Role
from headrace.resources.operations import ApiKey

BODY = {"name": "batch jobs", "project": "my-proj", "role": "viewer", "format": "service-account"}


def signed(made: dict[str, Any], *, now: float | None = None) -> str:
    """A token by the file in an answer."""
    account = read_file(json.dumps(made["service_account"]).encode())
    assert account is not None
    return sign_token(account, now=time.time() if now is None else now)


def test_a_service_account_is_made_and_opens_what_its_role_may(world: World) -> None:
    """Its file names this server, and what its private key signs is taken by control, within its role and project."""
    made = world.json("POST", "/headrace/v1/keys", json=BODY)
    file = made["service_account"]
    assert "secret" not in made
    assert (file["type"], file["project_id"], file["private_key_id"]) == ("service_account", "my-proj", made["id"])
    assert file["token_uri"] == "http://headrace.test:8080/token"
    assert made["format"] == "service-account"
    who = world.json("GET", "/headrace/v1/whoami", key=signed(made))
    assert (who["key_id"], who["role"], who["project"]) == (made["id"], "viewer", "my-proj")
    assert world.error("GET", "/headrace/v1/keys", key=signed(made)) == (403, "ROLE_MISSING")


def test_behind_tls_the_file_says_so(world: World) -> None:
    """The gateway tells how it was reached, and so by which address tokens are asked for."""
    headers = {"x-forwarded-proto": "https"}
    made = world.json("POST", "/headrace/v1/keys", json=BODY | {"project": "*"}, headers=headers)
    assert made["service_account"]["token_uri"] == "https://headrace.test:8080/token"
    assert made["service_account"]["project_id"] == "default"


def test_the_private_key_is_shown_once_and_stored_nowhere(world: World) -> None:
    """Neither a list nor a byte of the database has it; the stored public half is its other half."""
    made = world.json("POST", "/headrace/v1/keys", json=BODY)
    private = made["service_account"]["private_key"]
    listed = world.call("GET", "/headrace/v1/keys")
    (one,) = [key for key in listed.json()["keys"] if key["id"] == made["id"]]
    assert (one["format"], one["hint"]) == ("service-account", "")
    assert "PRIVATE KEY" not in listed.text
    assert "public_key" not in one
    lines = [line for line in private.splitlines() if not line.startswith("-")]
    for path in world.layout.data_dir.glob("headrace.db*"):
        stored = path.read_bytes()
        assert not [line for line in lines if line.encode() in stored]
    with world.store.transaction(read_only=True) as tx:
        row = tx.get(ApiKey, id=made["id"])
    assert row is not None
    token = signed(made, now=1000.0)
    assert verify_token(token, key_id=row.id, project="my-proj", public_key=row.public_key, now=1000.0)


def test_tokens_that_control_refuses(world: World) -> None:
    """A revoked account's, an expired one, a plain key's id as signer, garbage: 401 with the reason."""
    made = world.json("POST", "/headrace/v1/keys", json=BODY)
    good, expired = signed(made), signed(made, now=1.0)
    plain = world.json("POST", "/headrace/v1/keys", json={"name": "x"})
    posing = {**made, "service_account": {**made["service_account"], "private_key_id": plain["id"]}}
    for token, reason in (
        (expired, "TOKEN_EXPIRED"),
        (good[:-4] + "AAAA", "BAD_TOKEN"),
        (signed(posing), "UNKNOWN_KEY"),
        ("a.b.c", "BAD_TOKEN"),
    ):
        assert world.error("GET", "/headrace/v1/whoami", key=token) == (401, reason)
    assert world.call("GET", "/headrace/v1/whoami", key=good).status_code == 200
    world.json("DELETE", f"/headrace/v1/keys/{made['id']}")
    assert world.error("GET", "/headrace/v1/whoami", key=good) == (401, "UNKNOWN_KEY")


def test_a_key_of_before_is_a_plain_one(world: World) -> None:
    """Without a format a key is a secret, as ever, and the list says which is which."""
    made = world.json("POST", "/headrace/v1/keys", json={"name": "x"})
    assert made["secret"].startswith("hr-")
    assert made["format"] == "plain"
    assert "service_account" not in made


@pytest.mark.parametrize("wanted", ["p12", "", 7])
def test_formats_that_there_are_not(world: World, wanted: object) -> None:
    """They are refused, and nothing is made."""
    before = len(world.json("GET", "/headrace/v1/keys")["keys"])
    assert world.error("POST", "/headrace/v1/keys", json=BODY | {"format": wanted}) == (400, "BAD_FIELD")
    assert len(world.json("GET", "/headrace/v1/keys")["keys"]) == before


def test_only_admins_make_them(world: World) -> None:
    """As with every key."""
    for role in (Role.VIEWER, Role.DEPLOYER):
        key = world.key("my-proj", role)
        assert world.error("POST", "/headrace/v1/keys", json=BODY, key=key) == (403, "ROLE_MISSING")
