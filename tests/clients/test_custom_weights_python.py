"""The Python of Vertex AI's page on models with custom weights, by both generations of the vendor's unmodified SDK.

`documents/` holds it as the page has it. Replaced are only the page's placeholders (the number of accelerators by a
number: the SDK itself refuses the page's quoted one) and, in ``init``, where it points: address, REST instead of
gRPC, and whom it is. `print` is added where the page shows no result.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vendor_client import run_client

from server_process import LOCATION, PROJECT, ServerProcess, running_server

DOCUMENTS = Path(__file__).parent / "documents"
PROMPT = "How to tell the time by looking at the sky?"
RESULT = "\nimport json\nprint(json.dumps([endpoint.resource_name, response.predictions]))"

pytestmark = pytest.mark.parametrize("sdk", ["HEADRACE_TEST_VERTEX_SDK_2_PYTHON", "HEADRACE_TEST_VERTEX_SDK_1_PYTHON"])


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a TLS port: the SDK asks dedicated endpoints by nothing else."""
    with running_server(tmp_path_factory.mktemp("secure") / "data", "--tls-port", "0") as server:
        yield server


@pytest.fixture(scope="module")
def authority(secure: ServerProcess) -> Path:
    """Whom to trust."""
    file = secure.data_dir.parent / "ca.pem"
    secure.cli("ca", "export", str(file), "--data-dir", str(secure.data_dir))
    return file


@pytest.mark.parametrize("document", ["custom_model_machine", "custom_model"])
def test_deploy_and_ask(
    secure: ServerProcess, authority: Path, demo_model: Path, tmp_path: Path, sdk: str, document: str
) -> None:
    """Both variants deploy and answer by the dedicated endpoint; the page's query asks it by its short id."""
    weights = {"GCS_URI": repr(f"file://{demo_model}")}
    endpoint, deployed = _run(secure, authority, sdk, tmp_path / "deploy.py", _deploys(document), weights)
    short_id = endpoint.rpartition("/")[2]
    query = (DOCUMENTS / "query.py.txt").read_text().replace('endpoint_id = ""', f'endpoint_id = "{short_id}"')
    query = query.replace('project_id = ""', f'project_id = "{PROJECT}"')
    query = query.replace('location = ""', f'location = "{LOCATION}"')
    _, asked = _run(secure, authority, sdk, tmp_path / "query.py", query + RESULT, {})
    for [prediction] in (deployed, asked):
        assert prediction.startswith(f"Prompt:\n{PROMPT}\nOutput:\n")
    with secure.client() as client:
        assert client.delete(f"/v1/{endpoint}", params={"force": "true"}).status_code == 200


def _deploys(document: str) -> str:
    """A variant of the page's deployment, which keeps what it was answered."""
    text = (DOCUMENTS / f"{document}.py.txt").read_text()
    text = text.replace('"${ACCELERATOR_COUNT}"', "1").replace("${PROJECT_ID}", repr(PROJECT))
    text = text.replace("${REGION}", repr(LOCATION)).replace("${PROMPT}", PROMPT)
    text = text.replace("${MACHINE_TYPE}", "g2-standard-12").replace("${ACCELERATOR_TYPE}", "NVIDIA_L4")
    return text.replace("\nendpoint.predict(", "\nresponse = endpoint.predict(") + RESULT


def _run(
    server: ServerProcess, authority: Path, sdk: str, script: Path, text: str, names: dict[str, str]
) -> tuple[str, Any]:
    """The endpoint and the predictions that a script ends with."""
    where = f"api_endpoint={server.url!r}, api_transport='rest', credentials=Credentials({server.key!r}))"
    init, _, rest = text.partition("init(")
    arguments, _, rest = rest.partition(")")
    head = "from google.oauth2.credentials import Credentials\n"
    head += "".join(f"{name} = {value}\n" for name, value in names.items())
    script.write_text(f"{head}{init}init({arguments}, {where}{rest}")
    endpoint, predictions = run_client(sdk, script, env={"REQUESTS_CA_BUNDLE": str(authority)})
    return str(endpoint), predictions
