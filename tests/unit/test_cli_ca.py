"""`headrace ca`, the TLS options of `serve`, and logins to a server with an authority of its own."""

import json
import ssl
import stat

import pytest
from cli_server import serving
from tls_certificates import authority_in, self_signed

from headrace.cli import contexts
from headrace.cli.app import run
from headrace.resources.layout import Layout

LIST = "GET /v1beta1/projects/default/locations/us-central1/endpoints"


@pytest.fixture(autouse=True)
def _empty_home(tmp_path, monkeypatch):
    for variable in ("HEADRACE_URL", "HEADRACE_API_KEY", "HEADRACE_CA_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def authority(tmp_path):
    """The certificate of this machine's authority."""
    return authority_in(tmp_path / "data")[0]


@pytest.fixture
def server(tmp_path, authority):
    """A server with a certificate of that authority."""
    with serving(Layout(tmp_path / "data").tls_certificate) as scripted:
        scripted.answers["GET /headrace/v1/whoami"] = (200, {"name": "me", "role": "admin", "project": "*"})
        scripted.answers[LIST] = (200, {"endpoints": []})
        yield scripted


# --- headrace ca ----------------------------------------------------------------------------------------------------


def test_it_is_shown_with_its_fingerprint(authority, capsys):
    """Where it lies, what to compare, until when it is good; for people and for programs."""
    assert run(["ca"]) == 0
    shown = capsys.readouterr().out
    assert run(["ca", "show", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(authority)
    assert found["file"] in shown
    assert found["sha256"] in shown
    assert found["good_until"][:10] in shown


def test_it_is_exported_without_its_key(authority, tmp_path, capsys):
    """To a file, or to stdout; the same certificate each time."""
    for arguments in ([], ["-"]):
        assert run(["ca", "export", *arguments]) == 0
        assert capsys.readouterr().out.encode() == authority.read_bytes()
    assert run(["ca", "export", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["certificate"].encode() == authority.read_bytes()
    file = tmp_path / "exported.pem"
    for _ in range(2):
        assert run(["ca", "export", str(file)]) == 0
        assert str(file) in capsys.readouterr().out
    assert file.read_bytes() == authority.read_bytes()
    assert b"PRIVATE" not in file.read_bytes()


def test_another_file_is_not_lost(authority, tmp_path, capsys):
    """What would be overwritten is asked about first; what cannot be written is told of."""
    file = tmp_path / "exported.pem"
    file.write_bytes(b"something else")
    assert run(["ca", "export", str(file)]) == 2
    assert file.read_bytes() == b"something else"
    assert run(["ca", "export", str(file), "--yes"]) == 0
    assert file.read_bytes() == authority.read_bytes()
    assert run(["ca", "export", str(tmp_path / "no" / "folder.pem")]) == 2


def test_there_is_none_before_it_is_wanted(capsys):
    """A server that never served TLS has none, and the error says how it is made."""
    for command in ("show", "export"):
        assert run(["ca", command, "--json"]) == 3
        error = json.loads(capsys.readouterr().err)["error"]
        assert error["code"] == "TLS_AUTHORITY_NOT_FOUND"
        assert "--tls-port" in error["fix"]


# --- logins ---------------------------------------------------------------------------------------------------------


def test_a_login_keeps_whom_to_trust(server, authority, tmp_path, capsys):
    """Given once, the authority is trusted by every later command, although its file is gone."""
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.read_bytes())
    assert run(["login", server.url, "--ca-file", str(file), "--key", "hr-k"]) == 0
    file.unlink()
    assert run(["endpoints", "list"]) == 0
    assert run(["login", server.url, "--key", "hr-other"]) == 0
    assert contexts.load().contexts["default"].ca.encode() == authority.read_bytes()
    assert stat.S_IMODE(contexts.contexts_path().stat().st_mode) == 0o600
    assert [headers["authorization"] for _, headers, _ in server.requests] == [
        "Bearer hr-k",
        "Bearer hr-k",
        "Bearer hr-other",
    ]


def test_the_environment_names_whom_to_trust(server, authority, monkeypatch, capsys):
    """Where it names server and key, it can name the authority as well; no login is needed."""
    monkeypatch.setenv("HEADRACE_URL", server.url)
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-k")
    monkeypatch.setenv("HEADRACE_CA_FILE", str(authority))
    assert run(["endpoints", "list"]) == 0


def test_who_is_not_trusted_gets_no_key(server, capsys):
    """Without the authority nothing is sent, and the error says how to get it."""
    assert run(["login", server.url, "--key", "hr-k", "--json"]) == 5
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["code"] == "SERVER_UNREACHABLE"
    assert "headrace ca export" in error["fix"]
    assert "--ca-file" in error["fix"]
    assert not server.requests


def test_another_authority_is_not_enough(server, tmp_path, capsys):
    """Whom a login names is trusted alone; the other one is not there."""
    other, _ = authority_in(tmp_path / "other")
    assert run(["login", server.url, "--ca-file", str(other), "--key", "hr-k"]) == 5


@pytest.mark.parametrize("content", [None, b"", b"nothing", b"-----BEGIN CERTIFICATE-----\n", b"\xff"])
def test_a_file_without_authorities(tmp_path, content, capsys):
    """It is refused as wrong usage, with its name."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    assert run(["login", "https://a", "--ca-file", str(file), "--key", "hr-k", "--json"]) == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["code"], str(file) in error["message"]) == ("BAD_FIELD", True)


# --- headrace serve -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tls-name", "a.example.org"],
        ["--tls-host", "0.0.0.0"],
        ["--tls-certificate", "CERTIFICATE"],
        ["--tls-port", "0", "--tls-key", "KEY"],
        ["--tls-port", "0", "--tls-certificate", "CERTIFICATE", "--tls-name", "a.example.org"],
        ["--tls-port", "0", "--tls-name", "https://a.example.org"],
        ["--cors-origin", "a.example.org"],
        ["--cors-origin", "*", "--cors-origin", "https://a.example.org"],
    ],
)
def test_options_that_go_nowhere(tmp_path, arguments, capsys):
    """They are refused before anything is made, not ignored."""
    files = self_signed(tmp_path)
    named = {"CERTIFICATE": str(files.certificate), "KEY": str(files.key)}
    assert run(["serve", "--port", "0", *(named.get(each, each) for each in arguments)]) == 2
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "both"),
    [
        (["--port", "18090", "--tls-port", "18090"], "--port and --tls-port"),
        (["--port", "0", "--tls-port", "18090", "--grpc-port", "18090"], "--tls-port and --grpc-port"),
    ],
)
def test_one_port_is_not_given_twice(tmp_path, arguments, both, capsys):
    """Nobody else has it, so it is not called taken: the two options that name it are told."""
    assert run(["serve", "--json", *arguments]) == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["code"], error["evidence"]) == ("USAGE", f"{both} are both 18090.")
    assert not (tmp_path / "data").exists()


def test_a_certificate_that_cannot_be_shown(tmp_path, capsys):
    """A server does not start with it, and says why."""
    files = self_signed(tmp_path, password=b"secret")
    arguments = ["--tls-port", "0", "--tls-certificate", str(files.certificate), "--tls-key", str(files.key)]
    assert run(["serve", "--port", "0", "--json", *arguments]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "TLS_CERTIFICATE_INVALID"
    assert not (tmp_path / "data").exists()


def test_the_exported_certificate_is_an_authority(authority):
    """Python's own client takes it for one."""
    [found] = ssl.create_default_context(cafile=authority).get_ca_certs()
    assert found["subject"] == found["issuer"]
