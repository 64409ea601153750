"""What each native route takes and answers."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.api.description import (
    BOOLEAN,
    NUMBER,
    STRING,
    Description,
    Noun,
    Query,
    Shape,
    listed,
    maybe,
    record,
)
from headrace.api.native import ROOT, deployments, keys, models, profiles, quotas, registry, rollouts
from headrace.resources.access import KeyFormat, Permission, Principal
from headrace.resources.deployments import Deployment, Replica
from headrace.resources.endpoints import DeployedModel, Endpoint
from headrace.resources.errors import Failure
from headrace.resources.models import Model, ModelVersion
from headrace.resources.nodes import Node
from headrace.resources.operations import ApiKey, Operation
from headrace.resources.profiles import Profile
from headrace.resources.quotas import Quota
from headrace.resources.rollouts import Rollout
from headrace.resources.states import OperationState

_REACH = (
    Query("project", "Only what is of this project; `*` for every one that the key reaches."),
    Query("location", "Only what is at this location."),
)
_PROJECT = _REACH[:1]

_NUMBER: Shape = {"type": "number"}
_INTEGER: Shape = {"type": "integer"}
_TIMELINE: Shape = {
    "type": "array",
    "items": record(state=STRING, at=_NUMBER, detail=STRING, failure=maybe(Failure)),
    "description": "Every move between states with its time (Unix seconds), oldest first.",
}
_ENDPOINT = Noun(Endpoint, {"deployed_models": {"type": "array", "items": Noun(DeployedModel)}})
_CHANGED = Noun(
    Endpoint,
    {
        "deployed_models": {"type": "array", "items": Noun(DeployedModel)},
        "operations": {"type": "array", "items": Noun(Operation), "description": "Of throughputs that were changed."},
    },
)
_KEY_FORMAT: Shape = {"type": "string", "enum": [each.value for each in KeyFormat]}
_KEY = Noun(ApiKey, {"format": _KEY_FORMAT}, frozenset({"public_key"}))
_NEW_KEY = Noun(
    ApiKey,
    {
        "format": _KEY_FORMAT,
        "secret": {"type": "string", "description": "Of a plain key. Shown only here, stored nowhere."},
        "service_account": {
            "type": "object",
            "additionalProperties": STRING,
            "description": "Of a service account: the file for Google's libraries, with its private key. As `secret`.",
        },
    },
    frozenset({"public_key"}),
)
_SIDE = record(count=_INTEGER, mean=maybe(_NUMBER))
_MEASURE = record(
    measure=STRING,
    limit=STRING,
    trials=_INTEGER,
    bad=_INTEGER,
    bound=_NUMBER,
    evidence=_NUMBER,
    threshold=_NUMBER,
    canary=_SIDE,
    stable=_SIDE,
)
_MEASURED: Mapping[str, Shape] = {
    "percent": _NUMBER,
    "waits_for": STRING,
    "measures": {"type": "array", "items": _MEASURE},
}
_ROLLOUT = Noun(Rollout, _MEASURED, frozenset({"tallies"}))
_PROFILE = Noun(
    Profile,
    {
        "stale": {"type": "boolean", "description": "Whether a deployment that is made now would be another one."},
        "stale_because": {"type": "string", "description": "In what; empty where it would not."},
        "tokens_per_s": {"type": "number", "description": "Of the stated mix, that a full replica carries."},
        "chunk": {"type": "integer", "description": "Tokens a second of the smallest slice that is sold."},
        "model_units_per_minute": {"type": "number", "description": "That a full replica has."},
        "summary": {"type": "string", "description": "What it says, for a person."},
    },
)
_DEPLOYMENT = Noun(Deployment, {"wanted_replicas": _INTEGER})
_WATCHED = Noun(Operation, {"done": {"type": "boolean"}, "deployment": maybe(_DEPLOYMENT), "timeline": _TIMELINE})
_USAGE = record(requests=_INTEGER, prompt_tokens=_INTEGER, completion_tokens=_INTEGER, total_tokens=_INTEGER)

DESCRIPTIONS: Mapping[str, Description] = {
    f"GET {ROOT}/version": Description(answer=record(version=STRING, python=STRING)),
    f"GET {ROOT}/whoami": Description(
        answer={
            "allOf": [
                Principal,
                record(permissions={"type": "array", "items": {"enum": [each.value for each in Permission]}}),
            ]
        }
    ),
    f"GET {ROOT}/status": Description(
        query=_REACH,
        answer=record(
            version=STRING,
            at=_NUMBER,
            endpoints={"type": "array", "items": Noun(Endpoint)},
            draining={"type": "array", "items": _DEPLOYMENT},
            resident_bytes=_INTEGER,
            last_error=maybe(record(at=_NUMBER, kind=STRING, id=STRING, failure=Failure)),
            nodes={"type": "array", "items": Noun(Node)},
            nodes_shown={"type": "boolean"},
        ),
    ),
    f"GET {ROOT}/nodes": Description(answer=listed("nodes", Noun(Node))),
    f"GET {ROOT}/runtimes": Description(answer=listed("runtimes", record(node=STRING))),
    f"GET {ROOT}/models": Description(
        query=_REACH, answer=listed("models", Noun(Model, {"versions": {"type": "array", "items": Noun(ModelVersion)}}))
    ),
    f"POST {ROOT}/models": Description(body=models.UploadBody, answer=Noun(Operation)),
    f"GET {ROOT}/catalogue": Description(answer=listed("models", {"type": "object"})),
    f"GET {ROOT}/catalogue/{{publisher}}/{{model}}": Description(answer={"type": "object"}),
    f"GET {ROOT}/catalogue/{{publisher}}/{{model}}/notebook": Description(answer={"type": "object"}),
    f"GET {ROOT}/endpoints": Description(query=_REACH, answer=listed("endpoints", _ENDPOINT)),
    f"PATCH {ROOT}/endpoints/{{endpoint}}": Description(query=_REACH, body=registry.ChangeBody, answer=_CHANGED),
    f"GET {ROOT}/deployments": Description(
        query=(*_REACH, Query("all", "Those that are gone, too.", BOOLEAN)),
        answer=listed("deployments", _DEPLOYMENT),
    ),
    f"POST {ROOT}/deployments": Description(body=deployments.DeployBody, answer=Noun(Operation)),
    f"GET {ROOT}/deployments/{{deployment}}": Description(
        query=_REACH,
        answer=Noun(
            Deployment,
            {
                "wanted_replicas": _INTEGER,
                "external": maybe(record(base_url=STRING, model=STRING)),
                "spec": maybe({"type": "object"}),
                "pending": {"type": "string", "description": "What replicas that should run wait for; empty: nothing."},
                "doubt": {"type": "string", "description": "Why what is sold of it may not be kept; empty: it may."},
                "timeline": _TIMELINE,
                "replicas": {"type": "array", "items": Noun(Replica, {"timeline": _TIMELINE})},
            },
        ),
    ),
    f"PATCH {ROOT}/deployments/{{deployment}}": Description(
        query=_REACH, body=deployments.ChangeBody, answer=_DEPLOYMENT
    ),
    f"DELETE {ROOT}/deployments/{{deployment}}": Description(
        query=_REACH, answer=listed("operations", Noun(Operation))
    ),
    f"GET {ROOT}/rollouts": Description(
        query=(*_REACH, Query("endpoint", "Only those of this endpoint.")), answer=listed("rollouts", _ROLLOUT)
    ),
    f"POST {ROOT}/rollouts": Description(body=rollouts.RolloutBody, answer=_ROLLOUT),
    f"GET {ROOT}/rollouts/{{rollout}}": Description(
        query=_REACH, answer=Noun(Rollout, {**_MEASURED, "timeline": _TIMELINE}, frozenset({"tallies"}))
    ),
    f"PATCH {ROOT}/rollouts/{{rollout}}": Description(query=_REACH, body=rollouts.RolloutChange, answer=_ROLLOUT),
    f"GET {ROOT}/profiles": Description(
        query=(
            *_REACH,
            Query("model", "Only those of this model, or of one version of it: ID@VERSION."),
            Query("limit", "At most so many, the newest; 100 if not told.", NUMBER),
        ),
        answer=listed("profiles", _PROFILE),
    ),
    f"POST {ROOT}/profiles": Description(body=profiles.ProfileBody, answer=_PROFILE),
    f"GET {ROOT}/profiles/{{profile}}": Description(query=_REACH, answer=_PROFILE),
    f"DELETE {ROOT}/profiles/{{profile}}": Description(query=_REACH, answer=Noun(Profile)),
    f"GET {ROOT}/replicas/{{replica}}/logs": Description(
        query=(Query("lines", "How many lines, counted from the end; 100 if not told, at most 10,000.", NUMBER),),
        answer=listed("lines", STRING, replica=STRING, path=STRING),
    ),
    f"GET {ROOT}/operations": Description(
        query=(
            *_REACH,
            Query(
                "state",
                "Only those in this state.",
                {"type": "string", "enum": [each.value for each in OperationState]},
            ),
            Query("limit", "At most so many, the newest; 100 if not told.", NUMBER),
        ),
        answer=listed("operations", Noun(Operation)),
    ),
    f"GET {ROOT}/operations/{{operation}}": Description(
        query=(
            *_REACH,
            Query("wait_s", "Seconds to wait for news, at most 30.", NUMBER),
            Query("seen", "How many moves of the timeline are known already: more are news.", NUMBER),
        ),
        answer=_WATCHED,
    ),
    f"GET {ROOT}/usage": Description(
        query=(
            *_REACH,
            Query("from", "Unix seconds, widened to whole hours; a day before `to` if not told.", NUMBER),
            Query("to", "Unix seconds, widened to whole hours; now if not told.", NUMBER),
            Query(
                "by",
                "Any of key, endpoint and model, with commas; all three if not told, one sum if empty.",
                {"type": "string", "pattern": "^((key|endpoint|model)(,(key|endpoint|model)){0,2})?$"},
            ),
        ),
        answer={
            "type": "object",
            "properties": {
                "from": _NUMBER,
                "to": _NUMBER,
                "by": {"type": "array", "items": STRING},
                "usage": {"type": "array", "items": _USAGE},
            },
            "required": ["from", "to", "by", "usage"],
        },
    ),
    f"GET {ROOT}/keys": Description(query=_PROJECT, answer=listed("keys", _KEY)),
    f"POST {ROOT}/keys": Description(body=keys.KeyBody, answer=_NEW_KEY),
    f"PATCH {ROOT}/keys/{{key}}": Description(body=keys.ChangeBody, answer=_KEY),
    f"DELETE {ROOT}/keys/{{key}}": Description(answer=_KEY),
    f"GET {ROOT}/quota": Description(
        query=_PROJECT,
        answer=listed(
            "deployments",
            record(id=STRING, size=STRING, share=_NUMBER),
            project=STRING,
            shares=_NUMBER,
            used=_NUMBER,
        ),
    ),
    f"PUT {ROOT}/quota": Description(body=quotas.QuotaBody, answer=Noun(Quota)),
}
"""By ``"METHOD /path"``, as `headrace.api.native.ROUTES` has them."""
