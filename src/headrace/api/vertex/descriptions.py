"""What each of Vertex AI's routes takes and answers.

https://cloud.google.com/vertex-ai/docs/reference/rest says more.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.api.description import BOOLEAN, STRING, Description, Query, Shape, listed, record
from headrace.api.vertex.paths import (
    ENDPOINT,
    EULA,
    LOCATION,
    MODEL,
    PUBLISHER_MODELS,
    QUOTA_INFO,
    TIME_SERIES,
    UI_LOCATION,
)
from headrace.contracts.vertex.deploy import DeployBody
from headrace.contracts.vertex.deploy_model import DeployModelBody, MutateBody
from headrace.contracts.vertex.endpoint_bodies import EndpointBody, LongUpdateBody
from headrace.contracts.vertex.endpoints import UndeployBody
from headrace.contracts.vertex.json_schema import message_schema
from headrace.contracts.vertex.model_bodies import MergeBody, ModelBody, UploadBody
from headrace.contracts.vertex.operations import WaitBody

_TIME: Shape = {"type": "string", "format": "date-time"}
_LABELS: Shape = {"type": "object", "additionalProperties": STRING}
_COUNT: Shape = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
_OBJECTS: Shape = {"type": "array", "items": {"type": "object"}}

_OPERATION: Shape = {
    "title": "Operation",
    "description": "A google.longrunning.Operation: with `error` or `response` once it is done.",
    "type": "object",
    "properties": {
        "name": STRING,
        "metadata": {"type": "object"},
        "done": {"type": "boolean"},
        "error": record(code={"type": "integer"}, message=STRING, details=_OBJECTS),
        "response": {"type": "object"},
    },
    "required": ["name", "metadata"],
}
_MODEL: Shape = {
    "title": "Model",
    **record(
        name=STRING,
        versionId=STRING,
        versionAliases={"type": "array", "items": STRING},
        displayName=STRING,
        artifactUri=STRING,
        deployedModels=_OBJECTS,
        createTime=_TIME,
        updateTime=_TIME,
        etag=STRING,
        labels=_LABELS,
        headrace={"type": "object"},
    ),
}
_ENDPOINT: Shape = {
    "title": "Endpoint",
    **record(
        name=STRING,
        displayName=STRING,
        deployedModels=_OBJECTS,
        trafficSplit={"type": "object", "additionalProperties": {"type": "integer"}},
        etag=STRING,
        labels=_LABELS,
        createTime=_TIME,
        updateTime=_TIME,
        dedicatedEndpointEnabled={"type": "boolean"},
    ),
}
_EMPTY: Shape = {"type": "object", "maxProperties": 0}

_PAGES = (
    Query("pageSize", "How many at most; 100 if not told or 0, at most 1,000.", _COUNT),
    Query("pageToken", "Where the page before ended: its `nextPageToken`."),
)
_LIST = (
    Query("filter", 'Comparisons joined by AND: display_name="a name", labels.KEY="value", labels.KEY:*.'),
    Query("orderBy", "create_time, update_time or display_name, with ` desc` behind it for the other direction."),
    *_PAGES,
)
_MASKED = (*_LIST, Query("readMask", "Which fields are told: names, with commas between them; else all."))


def _pages(field: str, item: Shape) -> Shape:
    page = listed(field, item)
    return {**page, "properties": {**page["properties"], "nextPageToken": STRING}}


def _operations(parent: str) -> dict[str, Description]:
    one = f"{parent}/operations/{{operation:id}}"
    done = Query("filter", "done=true or done=false.", {"enum": ["", "done=true", "done=false"]})
    return {
        f"GET {parent}/operations": Description(
            query=(done, *_LIST[1:]),
            answer=_pages("operations", _OPERATION),
        ),
        f"GET {one}": Description(answer=_OPERATION),
        f"POST {one}:wait": Description(body=message_schema(WaitBody), body_required=False, answer=_OPERATION),
        f"POST {one}:cancel": Description(answer=_EMPTY),
        f"DELETE {one}": Description(answer=_EMPTY),
    }


_MASK = (Query("updateMask", "What of the body is meant: names of fields, with commas between them."),)
_EULA: Shape = {"type": "object", "properties": {"publisherModel": STRING}}

_UI = (UI_LOCATION, f"{UI_LOCATION}/models/{{model:id}}", f"{UI_LOCATION}/endpoints/{{endpoint:id}}")

DESCRIPTIONS: Mapping[str, Description] = {
    f"POST {LOCATION}:deploy": Description(
        query=(Query("endpointId", "The endpoint's identifier, as endpointConfig.endpointUserId."),),
        body=message_schema(DeployBody),
        answer=_OPERATION,
    ),
    **{route: one for parent in (LOCATION, MODEL, ENDPOINT, *_UI) for route, one in _operations(parent).items()},
    f"GET {LOCATION}/models": Description(query=_MASKED, answer=_pages("models", _MODEL)),
    f"GET {MODEL}": Description(answer=_MODEL),
    f"GET {MODEL}:listVersions": Description(query=_MASKED, answer=_pages("models", _MODEL)),
    f"POST {LOCATION}/models:upload": Description(body=message_schema(UploadBody), answer=_OPERATION),
    f"PATCH {MODEL}": Description(query=_MASK, body=message_schema(ModelBody), answer=_MODEL),
    f"POST {MODEL}:mergeVersionAliases": Description(body=message_schema(MergeBody), answer=_MODEL),
    f"DELETE {MODEL}:deleteVersion": Description(answer=_OPERATION),
    f"DELETE {MODEL}": Description(answer=_OPERATION),
    f"GET {LOCATION}/endpoints": Description(query=_MASKED, answer=_pages("endpoints", _ENDPOINT)),
    f"POST {LOCATION}/endpoints": Description(
        query=(Query("endpointId", "The endpoint's identifier; one is made up where there is none."),),
        body=message_schema(EndpointBody),
        answer=_OPERATION,
    ),
    f"GET {ENDPOINT}": Description(answer=_ENDPOINT),
    f"PATCH {ENDPOINT}": Description(query=_MASK, body=message_schema(EndpointBody), answer=_ENDPOINT),
    f"POST {ENDPOINT}:update": Description(body=message_schema(LongUpdateBody), answer=_OPERATION),
    f"POST {ENDPOINT}:deployModel": Description(body=message_schema(DeployModelBody), answer=_OPERATION),
    f"POST {ENDPOINT}:mutateDeployedModel": Description(body=message_schema(MutateBody), answer=_OPERATION),
    f"DELETE {ENDPOINT}": Description(
        query=(Query("force", "What is deployed on it goes, too.", BOOLEAN),), answer=_OPERATION
    ),
    f"POST {ENDPOINT}:undeployModel": Description(body=message_schema(UndeployBody), answer=_OPERATION),
    f"GET {PUBLISHER_MODELS}": Description(query=_LIST, answer=_pages("publisherModels", {"type": "object"})),
    f"GET {PUBLISHER_MODELS}/{{model:id}}": Description(answer=record(name=STRING)),
    f"POST {EULA}:check": Description(body=_EULA, answer={"type": "object"}),
    f"POST {EULA}:accept": Description(body=_EULA, answer={"type": "object"}),
    f"GET {QUOTA_INFO}": Description(answer={"type": "object"}),
    f"GET {TIME_SERIES}": Description(answer={"type": "object"}),
}
"""By ``"METHOD /path"``, as `headrace.api.vertex.ROUTES` has them, without those that take every path that is left."""
