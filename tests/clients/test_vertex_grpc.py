"""The vendor's SDK over gRPC, its default transport, and through the proxy that needs no change of its code."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from vendor_client import MACHINES_OWN, run_client

from server_process import PROJECT, RECOVERY_S, ServerProcess, eventually, running_server

PROGRAM = Path(__file__).with_name("sdk_grpc.py")
NEWEST, LAST_1 = "HEADRACE_TEST_VERTEX_SDK_2_PYTHON", "HEADRACE_TEST_VERTEX_SDK_1_PYTHON"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(scope="module")
def ways_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with all of them."""
    folder = tmp_path_factory.mktemp("ways") / "data"
    with running_server(folder, "--tls-port", "0", "--grpc-port", "0", "--vertex-proxy-port", "0") as server:
        eventually(lambda: "gRPC (Vertex AI) at" in server.output)
        yield server


def test_a_way_in_is_told_of_once_it_is_open(ways_in: ServerProcess) -> None:
    """HTTP is not kept back until gRPC is open, nor is gRPC told of before: until then it says that more is to come."""
    said = [line for line in ways_in.output.splitlines() if line]
    places = [
        next(place for place, line in enumerate(said) if line.startswith(beginning))
        for beginning in ("Headrace serves at", "TLS at", "Vertex AI's other ways in", "gRPC (Vertex AI) at")
    ]
    assert places == sorted(places)


def addresses(server: ServerProcess) -> dict[str, str]:
    """All ways into it, as it tells its own commands."""
    found: dict[str, str] = json.loads((server.data_dir / "addresses.json").read_text())
    return found


def variables(server: ServerProcess, *arguments: str) -> dict[str, str]:
    """What `headrace env` prints, as a shell has it afterwards; and no proxy of the machine's own."""
    quiet = {name: value for name, value in server.environment.items() if name.upper() not in PROXIES}
    quiet = {name: value for name, value in quiet.items() if name not in MACHINES_OWN}
    printed = subprocess.run(
        [sys.executable, "-m", "headrace.cli", "env", *arguments, "--data-dir", str(server.data_dir), "--json"],
        env=quiet,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(printed.stdout)["variables"]
    return {**dict.fromkeys((*PROXIES, *(name.lower() for name in PROXIES)), ""), **found}


def asked(server: ServerProcess, sdk: str, what: str, *, proxy: bool = False, **more: str) -> dict[str, Any]:
    """What the SDK came to."""
    told = {"what": what, "project": PROJECT, "key": server.key, "grpc": addresses(server)["grpc"]} | more
    if proxy:
        del told["grpc"], told["key"]
    env = variables(server, "vertex", *(["--proxy", "--credentials", service_account(server)] if proxy else []))
    found: dict[str, Any] = run_client(sdk, PROGRAM, json.dumps(told), env=env)
    return found


def service_account(server: ServerProcess) -> str:
    """The file of a key that may deploy, as Google's libraries read it."""
    file = server.data_dir.parent / "service-account.json"
    if not file.exists():
        kind = ("--format", "service-account", "--role", "deployer", "--project", PROJECT)
        server.cli("keys", "create", "by-proxy", *kind, "--out", str(file))
    return str(file)


def through(server: ServerProcess) -> httpx.Client:
    """A client that knows the proxy, and whom to trust."""
    told = addresses(server)
    trusted = ssl.create_default_context(cafile=told["proxy_authority"])
    return httpx.Client(proxy=told["proxy_url"], verify=trusted, trust_env=False, timeout=20)


@pytest.fixture(scope="module")
def deployed(ways_in: ServerProcess, demo_model: Path) -> dict[str, Any]:
    """What the document's Python makes over gRPC."""
    return asked(ways_in, NEWEST, "deploy", model=str(demo_model), display_name="by-grpc")


def test_the_documents_python_over_grpc(deployed: dict[str, Any]) -> None:
    """`CustomModel.deploy` waits for its operation over gRPC, and its endpoint answers at its dedicated address."""
    assert deployed["version"].startswith("2.")
    [prediction] = deployed["predictions"]
    assert "Tokyo" in prediction


@pytest.mark.parametrize("sdk", [NEWEST, LAST_1])
def test_what_an_endpoint_is_asked_over_grpc(ways_in: ServerProcess, deployed: dict[str, Any], sdk: str) -> None:
    """Get, list, predict, a stream piece by piece, operations; errors are the SDK's own with our reason."""
    found = asked(ways_in, sdk, "use", endpoint=deployed["endpoint"])
    assert "Grpc" in found["transport"]
    assert found["got"] == "by-grpc"
    assert found["listed"] == [deployed["endpoint"]]
    assert found["models"]
    assert found["operations"] >= 1
    assert "Tokyo" in found["predicted"][0]
    assert len(found["pieces"]) > 1
    assert "Tokyo" in "".join(json.loads(line)["predictions"][0] for line in "".join(found["pieces"]).splitlines())
    missing, nobody = found["missing"], found["nobody"]
    assert (missing["type"], missing["reason"], missing["domain"]) == ("NotFound", "ENDPOINT_NOT_FOUND", "headrace")
    assert nobody["type"] == "Unauthenticated"
    assert found["impatient"]["type"] == "DeadlineExceeded"


def test_no_line_of_code_names_this_server(ways_in: ServerProcess, demo_model: Path) -> None:
    """The same Python, told nothing but a project: its environment leads it here, and says who it is."""
    found = asked(ways_in, NEWEST, "deploy", proxy=True, model=str(demo_model), display_name="by-proxy", delete="yes")
    assert "Tokyo" in found["predictions"][0]
    assert found["missing"]["type"] == "NotFound"


def test_the_proxy_leads_nowhere_else(ways_in: ServerProcess) -> None:
    """The warning is told at the start; other names are refused; the TLS port does not show Google's."""
    assert "Vertex proxy at" in ways_in.output
    told = addresses(ways_in)
    with through(ways_in) as client:
        assert client.get("https://europe-west4-aiplatform.googleapis.com/healthz").status_code == 200
        with pytest.raises(httpx.ProxyError, match="403"):
            client.get("https://storage.googleapis.com/")
    host, port = told["tls_url"].removeprefix("https://").split(":")
    shown = x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode())
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert not [name for name in names.get_values_for_type(x509.DNSName) if "google" in name]


def test_openai_by_its_environment(ways_in: ServerProcess, deployed: dict[str, Any]) -> None:
    """What `headrace env openai` prints is all that OpenAI's client needs."""
    program = (
        "import json, openai\n"
        "client = openai.OpenAI()\n"
        f"print(json.dumps(client.chat.completions.create(model='by-grpc', **{CHAT!r}).usage.completion_tokens))\n"
    )
    env = {name: value for name, value in os.environ.items() if name not in MACHINES_OWN}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=env | variables(ways_in, "openai"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == 4


def test_processes_that_die_are_replaced(ways_in: ServerProcess, deployed: dict[str, Any]) -> None:
    """Clients find both again at the same addresses; what was deployed is not disturbed."""
    before = [ways_in.pids(f"headrace.server.{module}")[0] for module in ("vertex_grpc", "vertex_proxy")]
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: all(f"{label} ended (killed by SIGKILL)" in ways_in.output for label in ("grpc", "proxy")))
    told = addresses(ways_in)
    trusted = grpc.ssl_channel_credentials(Path(told["tls_authority"]).read_bytes())
    name = deployed["endpoint"].encode()
    soon = [("grpc.max_reconnect_backoff_ms", 1000), ("grpc.enable_http_proxy", 0)]
    with grpc.secure_channel(told["grpc"], trusted, options=soon) as channel:
        get = channel.unary_unary("/google.cloud.aiplatform.v1.EndpointService/GetEndpoint")
        got = get(
            b"\x0a%c%s" % (len(name), name),  # field 1 of a GetEndpointRequest
            metadata=[("authorization", f"Bearer {ways_in.key}")],
            wait_for_ready=True,
            timeout=3 * RECOVERY_S,  # it imports the vendor's whole library
        )
    assert b"by-grpc" in got
    with through(ways_in) as client:
        assert client.get("https://aiplatform.googleapis.com/healthz").status_code == 200
