"""What a certificate that was killed left behind: told by its name, and taken off by the next one."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from cli_server import ScriptedServer, google_error, serving

from headrace.cli.certify.leftovers import name_for, remove_leftovers
from headrace.cli.client import Client
from headrace.cli.contexts import Login
from headrace.cli.output import Output
from headrace.cli.progress import Steps

ENDPOINTS = "/v1beta1/projects/default/locations/us-central1/endpoints"
KEYS = "/headrace/v1/keys"
OVER, RUNS = "certify-1700000000-0123abcd", name_for(60)
NOT_OURS = ("brook", "certify-1700000000", "certify-0123abcd", f"my-{OVER}")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """One with endpoints and keys of all kinds, that lets none of them go."""
    names = (OVER, RUNS, *NOT_OURS)
    listed = [{"name": f"{ENDPOINTS.removeprefix('/v1beta1/')}/{name}", "displayName": name} for name in names]
    keys = [{"id": f"id-of-{name}", "name": name, "revoked_at": None} for name in names]
    with serving() as scripted:
        scripted.answers[f"GET {ENDPOINTS}"] = (200, {"endpoints": listed})
        scripted.answers[f"GET {KEYS}"] = (200, {"keys": [*keys, {"id": "gone", "name": OVER, "revoked_at": 1.0}]})
        yield scripted


def removed(server: ScriptedServer) -> list[str]:
    """What the next certificate asks to be deleted."""
    login = Login(server.url, "hr-test", "default", "us-central1", "the test")
    with Client(login) as client:
        remove_leftovers(client, Steps(Output(as_json=False), live=False))
    return [line.partition("?")[0].rpartition("/")[2] for line, _, _ in server.requests if line.startswith("DELETE")]


def test_what_is_over_goes(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Endpoint and key, and it is said; what may still be in use stays, and whatever is called otherwise."""
    server.answers[f"DELETE {ENDPOINTS}/{OVER}"] = server.answers[f"DELETE {KEYS}/id-of-{OVER}"] = (200, {})
    assert removed(server) == [OVER, f"id-of-{OVER}"]
    assert len(re.findall("left by a certificate that was killed", capsys.readouterr().out)) == 2


@pytest.mark.parametrize(("status", "code"), [(403, "ROLE_MISSING"), (404, "ENDPOINT_NOT_FOUND")])
def test_what_cannot_be_removed_keeps_nobody_from_asking(server: ScriptedServer, status: int, code: str) -> None:
    """Another certificate may have removed it, and this key may see no keys."""
    error = status, google_error(status, code, "No.")
    server.answers[f"DELETE {ENDPOINTS}/{OVER}"] = server.answers[f"GET {KEYS}"] = error
    assert removed(server) == [OVER]


def test_a_name_outlives_what_it_is_for() -> None:
    """The time in it is behind the end of the load."""
    assert int(name_for(86_400).split("-")[1]) > time.time() + 86_400
