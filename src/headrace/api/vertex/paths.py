"""The path templates of Vertex AI's resources.

A resource's id holds no slash and no colon (a colon begins a custom method). Paths arrive percent-decoded.
"""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor

from headrace.contracts.vertex.paths import VERSIONS


class _Version(Convertor[str]):
    regex = "|".join(VERSIONS)

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Id(_Version):
    regex = "[^/:]+"


register_url_convertor("version", _Version())
register_url_convertor("id", _Id())

LOCATION = "/{version:version}/projects/{project}/locations/{location}"
UI_LOCATION = "/ui/projects/{project}/locations/{location}"
MODEL = f"{LOCATION}/models/{{model:id}}"
ENDPOINT = f"{LOCATION}/endpoints/{{endpoint:id}}"
PUBLISHER_MODELS = "/{version:version}/publishers/{publisher:id}/models"
EULA = "/{version:version}/projects/{project}/modelGardenEula"
QUOTA_INFO = f"{LOCATION}/services/aiplatform.googleapis.com/quotaInfos/{{quota:id}}"
TIME_SERIES = "/v3/projects/{project}/timeSeries"
REST = "/{version:version}/{rest:path}"
