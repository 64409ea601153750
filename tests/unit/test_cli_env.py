"""`headrace env`, and the options of `serve` for the ways in."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_server import ScriptedServer, serving
from tls_certificates import authority_in

from headrace.cli.app import run
from headrace.resources.addresses import Addresses
from headrace.resources.layout import Layout

KINDS = ("vertex", "openai", "gcloud", "genai", "databricks")
MACHINES_OWN = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


@pytest.fixture(autouse=True)
def _empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HEADRACE_URL", "HEADRACE_API_KEY", "HEADRACE_CA_FILE", *MACHINES_OWN):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedServer]:
    """The server of this machine, with all ways in, as it leaves its addresses."""
    layout = Layout(tmp_path / "data")
    authority, _ = authority_in(tmp_path / "data")
    with serving() as scripted, layout.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scripted.answers["GET /headrace/v1/whoami"] = (200, {"name": "me", "role": "admin", "project": "*"})
        layout.local_login.write_text(json.dumps({"url": scripted.url, "key": "hr-local"}))
        leave(
            layout,
            url=scripted.url,
            tls_url="https://127.0.0.1:8443",
            tls_authority=str(authority),
            grpc="127.0.0.1:8444",
            proxy_url="http://127.0.0.1:18090",
            proxy_authority=str(authority),
        )
        yield scripted


def leave(layout: Layout, **fields: str) -> None:
    """Write a server's addresses down."""
    layout.addresses.write_bytes(msgspec.json.encode(Addresses(**fields)))


def variables(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """What a command prints, as a shell that evaluates it has it."""
    assert run(["env", *arguments]) == 0
    printed = capsys.readouterr().out
    names = [line.removeprefix("export ").partition("=")[0] for line in printed.splitlines()]
    assert all(line.startswith("export ") for line in printed.splitlines())
    script = """eval "$1"; shift; for name; do printf '%s\\0' "${!name}"; done"""
    done = subprocess.run(["bash", "-uc", script, "-", printed, *names], capture_output=True, check=True, env={})
    return dict(zip(names, done.stdout.decode().split("\0"), strict=False))


def test_openai(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Address and key, and nothing of TLS where the address has none."""
    found = variables(capsys, "openai")
    assert found == {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "hr-local"}


def test_vertex(server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Region and whom to trust; what only code can say stands on stderr."""
    assert run(["env", "vertex"]) == 0
    notes = capsys.readouterr().err
    assert 'api_endpoint="127.0.0.1:8444"' in notes
    assert f'api_endpoint="{server.url}", api_transport="rest"' in notes
    assert "service-account" in notes
    account = tmp_path / "account file.json"
    account.write_text("{}")
    found = variables(capsys, "vertex", "--credentials", str(account))
    assert found["GOOGLE_CLOUD_REGION"] == "us-central1"
    assert found["GOOGLE_APPLICATION_CREDENTIALS"] == str(account)
    assert "GOOGLE_CLOUD_PROJECT" not in found
    bundle = Path(found["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"])
    assert found["REQUESTS_CA_BUNDLE"] == str(bundle)
    authority = Layout(tmp_path / "data").tls_authority.read_text()
    assert authority in bundle.read_text()
    assert bundle.read_text().count("BEGIN CERTIFICATE") > 50, "what was trusted before is trusted still"


def test_gcloud(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Its properties by their variables; the key in a file that only its owner may read."""
    found = variables(capsys, "gcloud")
    assert found["CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"] == f"{server.url}/"
    assert (found["CLOUDSDK_CORE_PROJECT"], found["CLOUDSDK_AI_REGION"]) == ("default", "us-central1")
    token = Path(found["CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"])
    assert token.read_text() == "hr-local"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE" not in found


def test_genai(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The address alone: the client loses its path where project and location come from the environment, too."""
    assert variables(capsys, "genai") == {"GOOGLE_VERTEX_BASE_URL": server.url}


def test_databricks(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Address and key; how a service shows itself is said on stderr. The proxy is not for it."""
    assert run(["env", "databricks"]) == 0
    assert "DATABRICKS_CLIENT_SECRET" in capsys.readouterr().err
    found = variables(capsys, "databricks")
    assert found == {"DATABRICKS_HOST": server.url, "DATABRICKS_TOKEN": "hr-local"}
    assert run(["env", "databricks", "--proxy"]) == 2


@pytest.mark.parametrize("kind", ["vertex", "gcloud", "genai"])
def test_the_proxy(server: ScriptedServer, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In both spellings, past what the machine has said before, and with a warning."""
    assert run(["env", kind, "--proxy"]) == 0
    assert "nowhere" in capsys.readouterr().err
    found = variables(capsys, kind, "--proxy")
    assert found["HTTPS_PROXY"] == found["https_proxy"] == "http://127.0.0.1:18090"
    assert found["NO_PROXY"] == found["no_proxy"] == "localhost,127.0.0.1,::1"
    trusted = {"vertex": "REQUESTS_CA_BUNDLE", "gcloud": "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "genai": "SSL_CERT_FILE"}
    assert Path(found[trusted[kind]]).is_file()
    assert not [name for name in found if name.startswith("CLOUDSDK_API") or name == "GOOGLE_VERTEX_BASE_URL"]
    if kind == "gcloud":
        assert found["REQUESTS_CA_BUNDLE"] == found[trusted[kind]]
    if kind == "genai":
        assert found["GOOGLE_GENAI_USE_VERTEXAI"] == "true"


def test_a_second_time_is_the_same(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a shell that has it already nothing grows: neither names past the proxy, nor authorities."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.org")
    monkeypatch.setenv("NO_PROXY", "example.org")
    first = variables(capsys, "vertex")
    assert first["NO_PROXY"] == first["no_proxy"] == "example.org,localhost,127.0.0.1,::1"
    for name, value in first.items():
        monkeypatch.setenv(name, value)
    second = variables(capsys, "vertex")
    assert second == {name: value for name, value in first.items() if name.lower() != "no_proxy"}


def test_authorities_of_the_machine_are_kept(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom a machine's own variable trusts stays trusted."""
    own, _ = authority_in(tmp_path / "other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(own))
    bundle = Path(variables(capsys, "vertex")["REQUESTS_CA_BUNDLE"]).read_text()
    assert own.read_text() in bundle
    assert bundle.count("BEGIN CERTIFICATE") == 2


def test_for_programs(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One document with the variables and the notes; nothing on stderr."""
    assert run(["env", "vertex", "--json"]) == 0
    captured = capsys.readouterr()
    document: dict[str, Any] = json.loads(captured.out)
    assert document["variables"]["GOOGLE_CLOUD_REGION"] == "us-central1"
    assert document["notes"]
    assert captured.err == ""


def test_ports_that_are_off(server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a server was not started with is told with the option that starts it."""
    leave(Layout(tmp_path / "data"), url=server.url)
    assert run(["env", "vertex", "--proxy", "--json"]) == 2
    assert "--vertex-proxy-port" in json.loads(capsys.readouterr().err)["error"]["fix"]
    assert set(variables(capsys, "vertex")) == {"GOOGLE_CLOUD_REGION"}
    assert run(["env", "vertex"]) == 0
    assert "--tls-port" in capsys.readouterr().err
    assert run(["env", "openai", "--proxy"]) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_no_server(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed that could be evaluated, and the error says what to start."""
    assert run(["env", kind]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "headrace serve" in captured.err


def test_a_server_elsewhere(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known by its login alone: address, key and authority; the ways into this machine's server are not its."""
    layout = Layout(tmp_path / "elsewhere")
    authority, _ = authority_in(tmp_path / "elsewhere")
    with serving(layout.tls_certificate) as other:
        other.answers["GET /headrace/v1/whoami"] = (200, {"name": "me", "role": "admin", "project": "*"})
        assert run(["login", other.url, "--ca-file", str(authority), "--key", "hr-other", "--name", "there"]) == 0
        capsys.readouterr()
        found = variables(capsys, "openai", "--context", "there")
        assert (found["OPENAI_BASE_URL"], found["OPENAI_API_KEY"]) == (f"{other.url}/v1", "hr-other")
        assert authority.read_text() in Path(found["SSL_CERT_FILE"]).read_text()
        assert run(["env", "vertex", "--context", "there", "--proxy"]) == 2


def test_a_key_that_is_unknown(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not handed on to a client that would only be refused."""
    server.answers["GET /headrace/v1/whoami"] = (
        401,
        {"error": {"code": 401, "message": "no", "status": "UNAUTHENTICATED"}},
    )
    assert run(["env", "openai"]) == 4
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--grpc-port", "0"], "--tls-port"),
        (["--vertex-proxy-host", "0.0.0.0"], "--vertex-proxy-port"),
        (["--grpc-port", "70000"], "65535"),
    ],
)
def test_options_that_go_nowhere(
    tmp_path: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are refused before anything is made."""
    assert run(["serve", "--port", "0", "--json", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_without_the_extra(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--grpc-port` says what to install."""
    from headrace.server import vertex_grpc

    monkeypatch.setattr(vertex_grpc, "_NEEDED", ("google.cloud.nothing_of_the_kind",))
    assert run(["serve", "--port", "0", "--json", "--tls-port", "0", "--grpc-port", "0"]) == 2
    assert "headrace[vertex-grpc]" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_the_environment_of_others_is_left_alone(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Printing changes nothing for this process."""
    before = dict(os.environ)
    variables(capsys, "gcloud")
    assert dict(os.environ) == before
