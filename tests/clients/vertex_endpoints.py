"""What a user of google-cloud-aiplatform does with endpoints; run by `test_vertex_endpoints.py` with its interpreter.

    python vertex_endpoints.py API_ENDPOINT KEY PROJECT MODEL

MODEL has two versions. The last line of stdout is a JSON object of what was seen.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Any

from google.api_core import exceptions
from google.cloud import aiplatform
from google.oauth2.credentials import Credentials

INSTANCE = {"prompt": "The capital of Japan is", "max_tokens": 4, "temperature": 0}


def answered_by(endpoint: Any, times: int) -> Counter[str]:
    """Which deployed models answered so many predictions."""
    answers = [endpoint.predict(instances=[INSTANCE]) for _ in range(times)]
    assert all("Tokyo" in answer.predictions[0] for answer in answers), answers
    return Counter(answer.deployed_model_id for answer in answers)


def comes_to(endpoint: Any, deployed_model: str) -> bool:
    """Whether all predictions are answered by one; a split holds within a second, or later on a busy machine."""
    deadline = time.monotonic() + 60
    while answered_by(endpoint, 3) != {deployed_model: 3}:
        if time.monotonic() > deadline:
            return False
    return True


def refusal(call: Any, *arguments: Any, **fields: Any) -> str:
    """Which of the client's exceptions a call ends with."""
    try:
        call(*arguments, **fields)
    except exceptions.GoogleAPICallError as error:
        return type(error).__name__
    return "none"


def main() -> None:
    """Make, fill, change, list, empty and delete endpoints."""
    api_endpoint, key, project, name = sys.argv[1:]
    aiplatform.init(
        project=project,
        location="us-central1",
        api_endpoint=api_endpoint,
        api_transport="rest",
        credentials=Credentials(token=key),
    )
    seen: dict[str, Any] = {}
    first, second = (aiplatform.Model(name, version=version) for version in ("1", "2"))
    machine = {"machine_type": "n1-standard-4", "min_replica_count": 1, "max_replica_count": 1}

    endpoint = aiplatform.Endpoint.create(display_name="e2", labels={"a": "b"}, description="For tests.")
    own = aiplatform.Endpoint.create(display_name="e3", endpoint_id="custom-id", dedicated_endpoint_enabled=True)
    seen["names"] = [endpoint.display_name, endpoint.labels, endpoint.gca_resource.description, own.name]
    seen["taken"] = refusal(aiplatform.Endpoint.create, display_name="e3", endpoint_id="custom-id")

    endpoint.deploy(first, deployed_model_display_name="d1", traffic_percentage=100, **machine)
    [one] = endpoint.list_models()
    seen["first answers"] = answered_by(endpoint, 1) == {one.id: 1}
    endpoint.deploy(second, deployed_model_display_name="d2", traffic_percentage=20, **machine)
    two = next(each for each in endpoint.list_models() if each.id != one.id)
    seen["split"] = [endpoint.traffic_split[each.id] for each in (one, two)]
    seen["answers"] = [answered_by(endpoint, 10)[each.id] for each in (one, two)]
    seen["versions"] = [each.model_version_id for each in (one, two)]
    seen["machine"] = one.dedicated_resources.machine_spec.machine_type

    own.deploy(first, traffic_percentage=100, **machine)
    seen["shared answers"] = sum(answered_by(own, 2).values())

    endpoint.update(traffic_split={one.id: 0, two.id: 100})
    seen["all to the second"] = comes_to(endpoint, two.id)
    endpoint.update(display_name="renamed", labels={"c": "d"})
    listed = aiplatform.Endpoint.list(filter='display_name="renamed"', order_by="create_time desc")
    seen["listed"] = [[each.display_name, dict(each.labels)] for each in listed]
    seen["not 100"] = refusal(
        endpoint.api_client.update_endpoint,
        endpoint={"name": endpoint.resource_name, "traffic_split": {one.id: 99}},
        update_mask={"paths": ["traffic_split"]},
    )
    seen["read-only"] = refusal(
        endpoint.api_client.update_endpoint,
        endpoint={"name": endpoint.resource_name},
        update_mask={"paths": ["create_time"]},
    )
    seen["in use"] = refusal(endpoint.api_client.delete_endpoint, name=endpoint.resource_name)
    mutated = endpoint.api_client.mutate_deployed_model(
        endpoint=endpoint.resource_name,
        deployed_model={"id": two.id, "dedicated_resources": {"max_replica_count": 2, "min_replica_count": 1}},
        update_mask={"paths": ["dedicated_resources.max_replica_count"]},
    ).result()
    seen["mutated"] = mutated.deployed_model.id == two.id

    endpoint.undeploy(two.id, traffic_split={one.id: 100})
    seen["left"] = endpoint.traffic_split == {one.id: 100} and answered_by(endpoint, 2) == {one.id: 2}
    endpoint.undeploy_all()
    seen["emptied"] = [list(endpoint.list_models()), endpoint.traffic_split]
    endpoint.delete()
    seen["other goes on"] = sum(answered_by(own, 2).values())
    own.delete(force=True)
    seen["gone"] = refusal(lambda: aiplatform.Endpoint("custom-id").list_models())
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
