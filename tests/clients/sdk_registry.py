"""Run by the environment of the vendor's SDK, never by ours: a model's life in the registry, as the SDK's users do it.

Its arguments: the server's address, a key, project and location, and a model that is deployed. Its last line is JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from google.api_core import exceptions
from google.cloud import aiplatform, aiplatform_v1
from google.oauth2.credentials import Credentials
from google.protobuf import field_mask_pb2

IMAGE = "us-docker.pkg.dev/vertex-ai/vertex-vision-model-garden-dockers/pytorch-vllm-serve:20250101_0000_RC00"
PROBES = {
    "startup_probe": {"exec_": {"command": ["cat", "/x"]}, "period_seconds": 5, "timeout_seconds": 3},
    "health_probe": {"http_get": {"path": "/h", "port": 8080, "http_headers": [{"name": "a", "value": "b"}]}},
    "liveness_probe": {"grpc": {"port": 9000, "service": "s"}, "failure_threshold": 2},
}


def refused(work: Callable[[], Any]) -> dict[str, Any]:
    """What an error of the SDK says of itself."""
    try:
        work()
    except exceptions.GoogleAPICallError as error:
        return {"type": type(error).__name__, "reason": error.reason, "message": error.message}
    return {"type": "nothing"}


def versions_of(model: aiplatform.Model) -> dict[str, list[str]]:
    """The aliases of each version."""
    return {one.version_id: sorted(one.version_aliases) for one in model.versioning_registry.list_versions()}


def upload() -> tuple[aiplatform.Model, aiplatform.Model, dict[str, Any]]:
    """A model and another version of it."""
    first = aiplatform.Model.upload(
        display_name="river",
        model_id="river_1",
        description="It flows.",
        artifact_uri="gs://bkt/river",
        serving_container_image_uri=IMAGE,
        serving_container_command=["python", "-m", "vllm.entrypoints.api_server"],
        serving_container_args=["--model=gs://bkt/river", "--max-model-len=512", "--dtype=bfloat16"],
        serving_container_environment_variables={"A": "b"},
        serving_container_ports=[8080],
        serving_container_grpc_ports=[9000],
        serving_container_predict_route="/v1/completions",
        serving_container_health_route="/health",
        serving_container_deployment_timeout=600,
        serving_container_shared_memory_size_mb=4096,
        serving_container_startup_probe_exec=["cat", "/x"],
        serving_container_startup_probe_period_seconds=5,
        labels={"k": "v"},
        version_aliases=["v-one"],
        version_description="first",
    )
    told = {
        "name": first.resource_name,
        "version": first.version_id,
        "aliases": sorted(first.version_aliases),
        "description": first.description,
        "labels": dict(first.labels),
        "container": json.loads(type(first.container_spec).to_json(first.container_spec)),
    }
    second = aiplatform.Model.upload(
        parent_model=first.resource_name,
        artifact_uri="gs://bkt/river-2",
        serving_container_image_uri="example.com/mine:1",
        is_default_version=False,
    )
    return first, second, told


def aliases(first: aiplatform.Model, told: dict[str, Any]) -> None:
    """Aliases come, move and go."""
    registry = first.versioning_registry
    told["uploaded"] = versions_of(first)
    registry.add_version_aliases(["prod", "default"], version="2")
    told["moved"] = versions_of(first)
    told["by_alias"] = registry.get_model(version="prod").version_id
    told["by_nothing"] = aiplatform.Model("river_1").version_id
    registry.remove_version_aliases(["prod"], version="2")
    told["removed"] = versions_of(first)
    told["no_default"] = refused(lambda: registry.remove_version_aliases(["default"], version="2"))
    told["no_version"] = refused(lambda: registry.get_model(version="7"))


def update(first: aiplatform.Model, client: Any, told: dict[str, Any]) -> None:
    """What can be changed is; what is read-only is refused."""
    first.update(display_name="stream", description="It flowed.", labels={"k": "w"})
    told["updated"] = [first.display_name, first.description, dict(first.labels)]
    first.versioning_registry.update_version("2", version_description="second", labels={"of": "two"})
    told["version"] = told["version"], first.versioning_registry.get_version_info("2").version_description
    two, one = first.versioning_registry.get_model("2"), first.versioning_registry.get_model("1")
    told["version_labels"] = [dict(two.labels), dict(one.labels)]
    body = aiplatform_v1.Model(name=first.resource_name, artifact_uri="gs://bkt/else")
    mask = field_mask_pb2.FieldMask(paths=["artifact_uri"])
    told["read_only"] = refused(lambda: client.update_model(model=body, update_mask=mask))


def lists(told: dict[str, Any]) -> None:
    """Filters and orders."""
    for name in ("lake", "delta"):
        aiplatform.Model.upload(
            display_name=name,
            model_id=name,
            artifact_uri=f"gs://bkt/{name}",
            serving_container_image_uri=IMAGE,
            labels={"w": name},
        )
    told["filtered"] = [one.name for one in aiplatform.Model.list(filter='display_name="stream"')]
    told["labelled"] = sorted(one.name for one in aiplatform.Model.list(filter="labels.w:*"))
    told["ordered"] = [one.name for one in aiplatform.Model.list(filter="labels.w:*", order_by="display_name")]


def probes(client: Any, parent: str, told: dict[str, Any]) -> None:
    """A container with every kind of probe comes back as it was sent."""
    spec = aiplatform_v1.ModelContainerSpec(image_uri="example.com/mine:1", **PROBES)
    model = aiplatform_v1.Model(display_name="probed", container_spec=spec, artifact_uri="gs://bkt/p")
    made = client.upload_model(parent=parent, model=model).result()
    read = client.get_model(name=f"{made.model}@{made.model_version_id}")
    told["probes_kept"] = read.container_spec == spec
    client.delete_model(name=made.model).result()


def delete(first: aiplatform.Model, second: aiplatform.Model, deployed: str, told: dict[str, Any]) -> None:
    """What is used stays; the rest goes."""
    told["in_use"] = refused(lambda: aiplatform.Model(deployed).delete())
    told["default_version"] = refused(lambda: first.versioning_registry.delete_version("2"))
    second.versioning_registry.delete_version("1")
    told["left"] = versions_of(second)
    told["last_version"] = refused(lambda: second.versioning_registry.delete_version("2"))
    second.delete()
    told["gone"] = refused(lambda: aiplatform.Model("river_1"))


def main() -> None:
    """The whole life of a model."""
    url, key, project, location, deployed = sys.argv[1:]
    credentials = Credentials(token=key)
    aiplatform.init(project=project, location=location, api_endpoint=url, api_transport="rest", credentials=credentials)
    client = aiplatform_v1.ModelServiceClient(
        transport="rest", client_options={"api_endpoint": url}, credentials=credentials
    )
    first, second, told = upload()
    told["sdk"] = aiplatform.__version__
    aliases(first, told)
    update(first, client, told)
    lists(told)
    probes(client, f"projects/{project}/locations/{location}", told)
    delete(first, second, deployed, told)
    for name in ("lake", "delta"):
        aiplatform.Model(name).delete()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
