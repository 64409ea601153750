"""Run by the environment of the vendor's SDK, never by ours: what it does over its default transport, which is gRPC.

Takes what it needs as JSON on its command line, and prints what happened as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import vertexai
from google.api_core import exceptions
from google.cloud import aiplatform, aiplatform_v1
from google.oauth2.credentials import Credentials
from vertexai.preview import model_garden

PROMPT = {"prompt": "The capital of Japan is", "max_tokens": 4, "temperature": 0}
LOCATION = "us-central1"


def begin(told: dict[str, str]) -> None:
    """Point the SDK at a gRPC address, with a key; without one, nowhere: the environment tells both."""
    where = {"api_endpoint": told["grpc"], "credentials": Credentials(token=told["key"])} if told.get("grpc") else {}
    vertexai.init(project=told["project"], location=LOCATION, **where)


def deploy(told: dict[str, str]) -> dict[str, Any]:
    """The document's Python: deploy, ask the dedicated endpoint."""
    model = model_garden.CustomModel(gcs_uri=told["model"])
    endpoint = model.deploy(
        machine_type="g2-standard-12",
        accelerator_type="NVIDIA_L4",
        accelerator_count=1,
        model_display_name="custom-model",
        endpoint_display_name=told["display_name"],
    )
    answer = endpoint.predict(instances=[PROMPT], use_dedicated_endpoint=True)
    found = {"endpoint": endpoint.resource_name, "predictions": answer.predictions}
    return found | delete(endpoint.resource_name) if "delete" in told else found


def use(told: dict[str, str]) -> dict[str, Any]:
    """Everything that there is for an endpoint that stands, by messages alone."""
    name = told["endpoint"]
    options = {"client_options": {"api_endpoint": told["grpc"]}, "credentials": Credentials(token=told["key"])}
    endpoints = aiplatform_v1.EndpointServiceClient(**options)
    predictions = aiplatform_v1.PredictionServiceClient(**options)
    raw = aiplatform_v1.StreamRawPredictRequest(endpoint=name)
    raw.http_body.data = json.dumps({"instances": [PROMPT | {"stream": True}]}).encode()
    raw.http_body.content_type = "application/json"
    pieces = [piece.data.decode() for piece in predictions.stream_raw_predict(request=raw)]
    found = {
        "transport": type(predictions.transport).__name__,
        "got": endpoints.get_endpoint(name=name).display_name,
        "listed": [each.name for each in endpoints.list_endpoints(parent=name.rpartition("/endpoints/")[0])],
        "models": [model.resource_name for model in aiplatform.Model.list()],
        "predicted": [str(each) for each in predictions.predict(endpoint=name, instances=[PROMPT]).predictions],
        "pieces": pieces,
        "missing": raised(lambda: endpoints.get_endpoint(name=f"{name}404")),
        "nobody": raised(lambda: _nobody(told).get_endpoint(name=name)),
        "impatient": raised(lambda: predictions.predict(endpoint=name, instances=_long(), timeout=0.3)),
    }
    operations = endpoints.list_operations({"name": name.rpartition("/endpoints/")[0]})
    return found | {"operations": len(operations.operations)}


def delete(name: str) -> dict[str, Any]:
    """Undeploy and delete, and wait for the operations of both."""
    aiplatform.Endpoint(name).delete(force=True)
    return {"missing": raised(lambda: aiplatform.Endpoint(name).traffic_split)}


def _long() -> list[dict[str, Any]]:
    return [{"prompt": "On and on", "max_tokens": 400, "ignore_eos": True} for _ in range(64)]


def _nobody(told: dict[str, str]) -> Any:
    options = {"api_endpoint": told["grpc"]}
    return aiplatform_v1.EndpointServiceClient(client_options=options, credentials=Credentials(token="hr-unknown"))


def raised(work: Callable[[], Any]) -> dict[str, Any]:
    """What an error of the SDK says of itself."""
    try:
        work()
    except exceptions.GoogleAPICallError as error:
        told = {"type": type(error).__name__, "reason": error.reason, "domain": error.domain}
        return told | {"message": error.message, "metadata": dict(error.metadata or {})}
    return {"type": "nothing"}


def main() -> None:
    """One of them."""
    told = json.loads(sys.argv[1])
    begin(told)
    found = {"deploy": deploy, "use": use}[told["what"]](told)
    print(json.dumps(found | {"version": aiplatform.__version__}))


if __name__ == "__main__":
    main()
