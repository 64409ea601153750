"""Two projects with a key each, against stores that check keys: moto with its IAM through the whole product, azurite
with an account for each, the Hub's stand-in with a token.
"""

from __future__ import annotations

import base64
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import botocore.session
import fsspec
import pytest

from headrace.resources.errors import ArtifactsNotFound
from headrace.storage import Credentials, open_artifacts, stage
from hub_server import Hub
from object_stores import Store, running
from server_process import running_server

pytestmark = [pytest.mark.needs_node, pytest.mark.needs_npm]
PROJECTS = ("red", "blue")


class Keys(NamedTuple):
    """A key pair of a project, good for the bucket of the project's name only."""

    id: str
    secret: str

    def values(self, port: int) -> dict[str, str]:
        """As `headrace credentials set` takes them."""
        values = {"AWS_ACCESS_KEY_ID": self.id, "AWS_SECRET_ACCESS_KEY": self.secret}
        return values | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[tuple[Store, dict[str, Keys]]]:
    """The store, with the demonstration model in both buckets, and the keys; from then on nobody else is let in."""
    with running("s3", tmp_path_factory.mktemp("moto")) as store:
        owner = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        url, session = f"http://127.0.0.1:{store.port}", botocore.session.get_session()
        s3, iam = (session.create_client(name, endpoint_url=url, **owner) for name in ("s3", "iam"))
        keys = {}
        for project in PROJECTS:
            s3.create_bucket(Bucket=project)
            for path in demo_model.iterdir():
                s3.put_object(Bucket=project, Key=f"smollm2/{path.name}", Body=path.read_bytes())
            iam.create_user(UserName=project)
            resources = [f"arn:aws:s3:::{project}", f"arn:aws:s3:::{project}/*"]
            policy = {"Effect": "Allow", "Action": "s3:*", "Resource": resources}
            document = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
            iam.put_user_policy(UserName=project, PolicyName="own", PolicyDocument=document)
            made = iam.create_access_key(UserName=project)["AccessKey"]
            keys[project] = Keys(made["AccessKeyId"], made["SecretAccessKey"])
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", plain, method="POST"))
        yield store, keys


@pytest.fixture(autouse=True)
def no_keys_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine's own keys are nobody's here."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


def test_each_project_reads_with_its_own_key(guarded: tuple[Store, dict[str, Keys]], tmp_path: Path) -> None:
    """Its own bucket it lists, reads and stages; the other's it does not, nor does a project without a key."""
    store, keys = guarded
    credentials = Credentials(tmp_path / "credentials.json")
    for project in PROJECTS:
        credentials.set(project, "s3", keys[project].values(store.port))
    for project, other in (PROJECTS, PROJECTS[::-1]):
        own, foreign = f"s3://{project}/smollm2", f"s3://{other}/smollm2"
        staged = stage(open_artifacts(own, credentials.options(project, own)), tmp_path / project, lambda *_: None)
        assert (staged / "config.json").is_file()
        with pytest.raises(ArtifactsNotFound) as refused:
            open_artifacts(foreign, credentials.options(project, foreign))
        assert keys[project].secret not in f"{refused.value} {refused.value.evidence}"
        with pytest.raises(ArtifactsNotFound):
            open_artifacts(own, credentials.options("green", own) | {"endpoint_url": f"http://127.0.0.1:{store.port}"})


def test_a_deployment_fetches_with_its_projects_key_and_no_value_is_told(
    guarded: tuple[Store, dict[str, Keys]], tmp_path: Path
) -> None:
    """Red deploys from its bucket; blue, asking for red's, is refused; no secret in any log, row or answer."""
    store, keys = guarded
    with running_server(tmp_path / "data") as server:
        for project in PROJECTS:
            values = [f"{name}={value}" for name, value in keys[project].values(store.port).items()]
            server.cli("credentials", "set", "--project", project, "s3", *values, "--data-dir", str(server.data_dir))
        deploy = ("deploy", "s3://red/smollm2", "--wait", "--json")
        answers = [server.cli(*deploy, "--name", "smol", "--project", "red")]
        answers.append(server.cli(*deploy, "--name", "theft", "--project", "blue", check=False))
        assert "ARTIFACTS_NOT_FOUND" in answers[-1].stdout + answers[-1].stderr
        answers.append(server.cli("status", "--project", "red", "--json"))
        answers.append(server.cli("deployments", "list", "--project", "blue", "--json"))
        answers.append(server.cli("credentials", "list", "--data-dir", str(server.data_dir)))
    told = [text for answer in answers for text in (answer.stdout, answer.stderr)]
    told += [path.read_text(errors="replace") for path in server.data_dir.rglob("*.log")]
    told += [path.read_bytes().decode(errors="replace") for path in server.data_dir.glob("headrace.db*")]
    told += [path.read_text(errors="replace") for path in server.data_dir.rglob("replicas/*/*.json")]
    for project in PROJECTS:
        assert not [text for text in told if keys[project].secret in text]


FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * (1 << 13)}


def connection(port: int, account: str, key: str) -> str:
    """As `headrace credentials set` takes it for Azure."""
    parts = {"DefaultEndpointsProtocol": "http", "AccountName": account, "AccountKey": key}
    parts["BlobEndpoint"] = f"http://127.0.0.1:{port}/{account}"
    return ";".join(f"{name}={value}" for name, value in parts.items())


def content(folder: Path) -> dict[str, bytes]:
    """Every file of it."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def require_refused(credentials: Credentials, project: str, address: str, *secrets: str) -> None:
    """A project gets nothing from an address, and no secret is in what it is told."""
    with pytest.raises(ArtifactsNotFound) as refused:
        open_artifacts(address, credentials.options(project, address))
    told = f"{refused.value} {refused.value.evidence} {refused.value.fix}"
    assert not [secret for secret in secrets if secret in told]


def test_each_project_reads_its_azure_account_with_its_own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two accounts at one server: each key opens its own; the account with the other's key opens nothing."""
    keys = {project: base64.b64encode(f"the key of {project}".encode()).decode() for project in PROJECTS}
    monkeypatch.setenv("AZURITE_ACCOUNTS", ";".join(f"{project}:{key}" for project, key in keys.items()))
    credentials = Credentials(tmp_path / "credentials.json")
    (tmp_path / "azurite").mkdir()
    with running("az", tmp_path / "azurite") as store:
        for project, key in keys.items():
            owner = connection(store.port, project, key)
            driver = fsspec.filesystem("az", skip_instance_cache=True, connection_string=owner)
            driver.mkdir("weights")
            for name, data in FILES.items():
                driver.pipe_file(f"weights/model/{name}", data + project.encode())
            credentials.set(project, "az", {"AZURE_STORAGE_CONNECTION_STRING": owner})
        thief = connection(store.port, "red", keys["blue"])
        credentials.set("thief", "az", {"AZURE_STORAGE_CONNECTION_STRING": thief})
        address = "az://weights/model"
        for project in PROJECTS:
            artifacts = open_artifacts(address, credentials.options(project, address))
            staged = content(stage(artifacts, tmp_path / project, lambda *_: None))
            assert staged == {name: data + project.encode() for name, data in FILES.items()}
        require_refused(credentials, "thief", address, *keys.values())
        require_refused(credentials, "green", address, *keys.values())


def test_each_project_reads_the_hub_with_its_own_token(tmp_path: Path) -> None:
    """A private model is listed and staged with the token that it is shown for; with another, or none, it is absent."""
    folder = tmp_path / "hub" / "owner" / "private-model"
    folder.mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    credentials = Credentials(tmp_path / "credentials.json")
    address, tokens = "hf://owner/private-model", {"red": "hf_TokenOfRed", "blue": "hf_TokenOfBlue"}
    with Hub(tmp_path / "hub", token=tokens["red"]) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            for project, token in tokens.items():
                credentials.set(project, "hf", {"HF_TOKEN": token, "HF_ENDPOINT": hub.url})
            artifacts = open_artifacts(address, credentials.options("red", address))
            assert content(stage(artifacts, tmp_path / "red", lambda *_: None)) == FILES
            require_refused(credentials, "blue", address, *tokens.values())
            shown = {
                value for _, _, head in hub.asked for name, value in head.items() if name.lower() == "authorization"
            }
            assert shown == {f"Bearer {token}" for token in tokens.values()}
            with pytest.raises(ArtifactsNotFound):
                open_artifacts(address, {"endpoint": hub.url})
        finally:
            hub.shutdown()
            thread.join()
