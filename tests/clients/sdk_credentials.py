"""Run by the environment of a vendor's SDK, never by ours: everything about credentials and errors that it can show.

Reads what it needs as JSON from stdin, and writes what happened as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import google.auth
import google.auth.jwt
import requests
from google.api_core import exceptions
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request
from google.cloud import aiplatform, aiplatform_v1, aiplatform_v1beta1
from google.oauth2 import service_account
from google.rpc import error_details_pb2

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
INSTANCES = [{"prompt": "The capital of Japan is", "max_tokens": 4, "temperature": 0}]


class Told:
    """What the test told this program."""

    def __init__(self, said: dict[str, str]) -> None:
        self.url, self.endpoint, self.parent = said["url"], said["endpoint"], said["parent"]
        self.file, self.key_id, self.admin = said["file"], said["key_id"], said["admin"]


def client(kind: Any, told: Told, credentials: Any) -> Any:
    """A client of the SDK's own over REST."""
    return kind(transport="rest", client_options={"api_endpoint": told.url}, credentials=credentials)


def predicted(told: Told, credentials: Any) -> str:
    """A real prediction."""
    answer = client(aiplatform_v1.PredictionServiceClient, told, credentials).predict(
        endpoint=told.endpoint, instances=INSTANCES
    )
    return str(answer.predictions[0])


def raised(work: Callable[[], Any]) -> dict[str, Any]:
    """What an error of the SDK says of itself."""
    try:
        work()
    except exceptions.GoogleAPICallError as error:
        return {
            "type": type(error).__name__,
            "message": error.message,
            "reason": error.reason,
            "domain": error.domain,
            "metadata": dict(error.metadata or {}),
            "details": [str(each) for each in error.details],
        }
    except RefreshError as error:
        return {"type": "RefreshError", "message": str(error)}
    return {"type": "nothing"}


def refused(work: Callable[[], Any]) -> dict[str, Any]:
    """As `raised`, once it is so: the promise is a second, and tests/system holds it."""
    deadline = time.monotonic() + 10
    while (told := raised(work))["type"] == "nothing" and time.monotonic() < deadline:
        pass
    return told


def failed_operation(told: Told, credentials: Any) -> dict[str, Any]:
    """What an operation that failed says: a deployment of weights that are not there."""
    garden = client(aiplatform_v1beta1.ModelGardenServiceClient, told, credentials)
    request = {"custom_model": {"gcs_uri": "file:///nothing/here"}, "destination": told.parent}
    operation = garden.deploy(request=request)
    with contextlib.suppress(exceptions.GoogleAPICallError):
        operation.result(timeout=60)
    info, page = error_details_pb2.ErrorInfo(), error_details_pb2.Help()
    found = {"error": type(operation.exception()).__name__, "code": operation.operation.error.code}
    for detail in operation.operation.error.details:
        if detail.Unpack(info):
            found |= {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)}
        elif detail.Unpack(page):
            found |= {"page": page.links[0].url}
    return found


def main() -> None:
    """Everything in turn; the last thing is that the key is revoked."""
    told = Told(json.load(sys.stdin))
    found: dict[str, Any] = {"version": aiplatform.__version__}
    traded = service_account.Credentials.from_service_account_file(told.file, scopes=SCOPES)
    traded.refresh(Request())
    found["seconds"] = (traded.expiry - google.auth._helpers.utcnow()).total_seconds()
    found["traded"] = predicted(told, traded)
    audience = "https://us-central1-aiplatform.googleapis.com/"
    self_signed = google.auth.jwt.Credentials.from_service_account_file(told.file, audience=audience)
    found["self_signed"] = predicted(told, self_signed)
    default, project = google.auth.default(scopes=SCOPES)  # by GOOGLE_APPLICATION_CREDENTIALS
    found["project"], found["default"] = project, predicted(told, default)
    aiplatform.init(project=project, location="us-central1", api_endpoint=told.url, api_transport="rest")
    found["listed"] = [endpoint.resource_name for endpoint in aiplatform.Endpoint.list()]
    endpoints = client(aiplatform_v1.EndpointServiceClient, told, traded)
    found["missing"] = raised(lambda: endpoints.get_endpoint(name=f"{told.parent}/endpoints/404"))
    found["forbidden"] = raised(lambda: endpoints.delete_endpoint(name=told.endpoint))
    found["failed"] = failed_operation(told, google.oauth2.credentials.Credentials(token=told.admin))
    revoked = requests.delete(
        f"{told.url}/headrace/v1/keys/{told.key_id}", headers={"Authorization": f"Bearer {told.admin}"}, timeout=30
    )
    found["revoked"] = revoked.status_code
    found["afterwards"] = refused(lambda: predicted(told, self_signed))
    found["refresh"] = raised(lambda: traded.refresh(Request()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
