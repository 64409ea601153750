"""Databricks' serving endpoints as bodies and answers, without rows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.databricks.bodies import ConfigBody, CreateBody, UpdatePtBody, read_body
from headrace.contracts.databricks.errors import databricks_error
from headrace.contracts.databricks.invocations import Asked, read_invocation
from headrace.contracts.databricks.paths import invoked, is_databricks_path
from headrace.contracts.databricks.served import UNITS_OF_A_CHUNK, Config, check_endpoint_name
from headrace.contracts.databricks.state import Pending, ServingState, state_in, with_state
from headrace.contracts.openai.paths import is_openai_path
from headrace.contracts.openai.requests import read_object
from headrace.contracts.vertex.predict import read_instances
from headrace.resources.errors import CODES, BadField, InvalidArgument, NotSupported
from headrace.resources.profiles import Provision

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
FIELDS = st.sampled_from([*ConfigBody.__struct_fields__, "entity_name", "name", "routes", "provisioned_model_units"])


def read(config: dict[str, Any]) -> Config:
    """A config as it is to be served."""
    return read_body(msgspec.json.encode(config), ConfigBody).read()


def one(**fields: Any) -> dict[str, Any]:
    """A config of one entity."""
    return {"served_entities": [{"entity_name": "ml.llm.fm", "entity_version": "3"} | fields]}


def test_the_documents_own_body() -> None:
    """A version that is a number, and two throughputs: as the document's script sends them."""
    body = {
        "name": "prov-throughput-endpoint",
        "config": {
            "served_entities": [
                {
                    "entity_name": "ml.llm-catalog.foundation-model",
                    "entity_version": 3,
                    "min_provisioned_throughput": 1960,
                    "max_provisioned_throughput": 2940,
                }
            ]
        },
    }
    config = read_body(msgspec.json.encode(body), CreateBody).read()
    (entity,) = config.entities
    assert (entity.name, entity.entity_version, entity.provisioned) == ("foundation-model-3", "3", True)
    assert config.routes == {"foundation-model-3": 100}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"config": {"served_entity": []}}, "The fields of config are: name, served_entities, "),
        ({"config": {"served_entities": [{"entity": 1}]}}, "of config.served_entities are: entity_name, "),
        ({"config": {"served_entities": [{"workload_size": 1}]}}, "of config.served_entities are: entity_name, "),
        ({"config": {"traffic_config": {"routes": [{}]}}}, "of config.traffic_config.routes are: traffic_percentage, "),
        ({"configuration": {}}, "The fields are: name, config, "),
        ([], "The fields are: name, config, "),
    ],
)
def test_a_wrong_field_is_told_with_those_that_belong_there(body: Any, told: str) -> None:
    """The fix names the fields of the object in which the fault is, not always those of the whole body."""
    whole = {"name": "n"} | body if isinstance(body, dict) else body
    with pytest.raises(BadField) as caught:
        read_body(msgspec.json.encode(whole), CreateBody)
    assert told in caught.value.fix


def test_the_older_name_of_entities() -> None:
    """`served_models` with `model_name` and `model_version` say the same."""
    old = {"served_models": [{"model_name": "ml.llm.fm", "model_version": "3", "scale_to_zero_enabled": True}]}
    (entity,) = read(old).entities
    assert (entity.entity_name, entity.entity_version, entity.scale_to_zero_enabled) == ("ml.llm.fm", "3", True)


def test_the_config_of_a_pt_endpoint_is_wrapped() -> None:
    """Its update has the config under `config`, and may leave the version out."""
    body = {"config": {"served_entities": [{"entity_name": "system.ai.llama", "provisioned_model_units": 100}]}}
    (entity,) = read_body(msgspec.json.encode(body), UpdatePtBody).config.read().entities
    assert (entity.entity_version, entity.provisioned_model_units) == ("", 100)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "at least one entity"),
        ({"served_entities": []}, "at least one entity"),
        (one(provisioned_model_units=70), "50 or 100"),
        (one(provisioned_model_units=0), "50"),
        (one(provisioned_model_units=50, max_provisioned_throughput=10), "model units"),
        (one(workload_size="Huge"), "Small, Medium, Large"),
        (one(min_provisioned_concurrency=6), "4 or 8"),
        (one(min_provisioned_concurrency=8, max_provisioned_concurrency=4), "max_provisioned_concurrency"),
        (one(entity_name=" "), "names its model"),
        (one(name="no spaces"), "name of a served entity"),
        (one(workload_type="TPU"), "workload_type"),
        (one(wrong=1), "wrong"),
        (one(entity_version=1.5), "entity_version"),
        (one() | {"traffic_config": {"routes": [{"served_model_name": "x", "traffic_percentage": 100}]}}, "not served"),
        (one() | {"traffic_config": {"routes": [{"served_model_name": "fm-3", "traffic_percentage": 90}]}}, "100"),
        ({"served_entities": [{"entity_name": "a"}, {"entity_name": "b"}]}, "traffic_config"),
        ({"served_entities": [{"entity_name": "a"}, {"entity_name": "a"}]}, "called 'a-newest'"),
    ],
)
def test_a_config_that_cannot_be(config: dict[str, Any], told: str) -> None:
    """It is refused, with what it should be."""
    with pytest.raises(BadField) as refused:
        read(config)
    assert told in str(refused.value)


def test_a_throughput_alone_decides() -> None:
    """A workload size beside it, as Databricks' SDK sends it, is taken and kept, and is no second scale."""
    both = one(min_provisioned_throughput=0, max_provisioned_throughput=980, workload_size="Large")
    (entity,) = read(both).entities
    assert (entity.provisioned, entity.max_provisioned_throughput, entity.workload_size) == (True, 980, "Large")


@pytest.mark.parametrize("field", ["external_model", "environment_vars", "instance_profile_arn"])
def test_what_is_not_done_here_is_refused_where_it_says_something(field: str) -> None:
    """And let pass where it says nothing, as clients send whole objects."""
    says, nothing = ("arn", "") if field == "instance_profile_arn" else ({"a": "b"}, {})
    with pytest.raises(NotSupported):
        read(one(**{field: says}))
    assert read(one(**{field: nothing})).entities


@given(units=st.integers(-10_000, 10_000))
def test_model_units_come_in_fifties(units: int) -> None:
    """Any other number is refused with the nearest ones, which are taken."""
    try:
        (entity,) = read(one(provisioned_model_units=units)).entities
    except BadField as error:
        near = [int(word.replace(",", "")) for word in error.fix.rstrip(".").split() if word[0].isdigit()]
        assert near, "the nearest ones are named"
        for each in near:
            assert read(one(provisioned_model_units=each)).entities
    else:
        assert entity.provisioned_model_units == units > 0 == units % UNITS_OF_A_CHUNK


@given(shares=st.lists(st.integers(-5, 105), min_size=1, max_size=4))
def test_routes_give_away_all_requests_or_are_refused(shares: list[int]) -> None:
    """What is taken adds up to 100, with none below 0."""
    names = [f"e{number}" for number in range(len(shares))]
    entities = [{"entity_name": "m", "name": name} for name in names]
    routes = [
        {"served_entity_name": name, "traffic_percentage": share} for name, share in zip(names, shares, strict=True)
    ]
    good = sum(shares) == 100 and min(shares) >= 0
    config = {"served_entities": entities, "traffic_config": {"routes": routes}}
    if good:
        assert read(config).routes == dict(zip(names, shares, strict=True))
    else:
        with pytest.raises(BadField):
            read(config)


@given(body=st.dictionaries(FIELDS, JSON, max_size=4) | JSON)
def test_whatever_comes_is_read_or_refused(body: Any) -> None:
    """No body but ends in a config or in an error of the caller's."""
    for shape in (CreateBody, ConfigBody, UpdatePtBody):
        try:
            message = read_body(msgspec.json.encode(body), shape)
            config = message.config.read() if isinstance(message, UpdatePtBody) else message.read()
        except (InvalidArgument, NotSupported):
            continue
        assert sum(config.routes.values()) == 100


@given(name=st.text(max_size=70))
def test_names_of_endpoints(name: str) -> None:
    """A name that is taken can stand in a path as it is."""
    try:
        check_endpoint_name(name)
    except BadField:
        return
    assert 1 <= len(name) <= 63
    assert name.isascii()
    assert invoked(f"/serving-endpoints/{name}/invocations") == name


def test_the_state_of_an_update_survives_its_row() -> None:
    """What was kept is read back, beside whatever else is kept; what is none reads as nothing."""
    config = read(one(max_provisioned_throughput=980))
    provision = Provision(min_tokens_per_s=0, max_tokens_per_s=980, chunk=980)
    pending = Pending(config=config, bound={"fm-3": "1"}, before={"1": provision}, started_at=2.0)
    state = ServingState(creator="me", config_version=2, pending=pending)
    kept = with_state({"other": 1, "databricks": {"tags": [{"key": "a"}]}}, state)
    stored = msgspec.json.decode(msgspec.json.encode(kept))
    assert state_in(stored) == state
    assert (stored["other"], stored["databricks"]["tags"]) == (1, [{"key": "a"}])
    assert state_in(with_state(stored, ServingState(creator="me"))).pending is None
    assert state_in({"databricks": {"pending": 3}}) == ServingState()


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_error_has_its_word(code: str) -> None:
    """Each of ours is one of Databricks', with our code, evidence and fix; only what it names is an HTTP error."""
    error = CODES[code]("It failed.", evidence="seen", fix="do this")
    status, body = databricks_error(error)
    assert 400 <= status < 600
    assert set(body) == {"error_code", "message", "details"}
    assert all(part in body["message"] for part in ("It failed.", "seen", "do this", code))
    assert body["details"][0]["reason"] == code


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("ENDPOINT_NOT_FOUND", (404, "RESOURCE_DOES_NOT_EXIST")),
        ("NAME_TAKEN", (400, "RESOURCE_ALREADY_EXISTS")),
        ("BAD_FIELD", (400, "INVALID_PARAMETER_VALUE")),
        ("UPDATE_RUNNING", (409, "RESOURCE_CONFLICT")),
        ("ROLE_MISSING", (403, "PERMISSION_DENIED")),
        ("NO_KEY", (401, "UNAUTHENTICATED")),
        ("QUEUE_FULL", (429, "REQUEST_LIMIT_EXCEEDED")),
        ("KEY_LIMIT_REACHED", (429, "REQUEST_LIMIT_EXCEEDED")),
        ("KEY_LIMIT_TOO_SMALL", (400, "REQUEST_LIMIT_EXCEEDED")),
        ("NOT_SUPPORTED", (501, "NOT_IMPLEMENTED")),
        ("NOT_READY", (503, "TEMPORARILY_UNAVAILABLE")),
    ],
)
def test_words_of_errors(code: str, told: tuple[int, str]) -> None:
    """Those that its clients have exceptions of."""
    status, body = databricks_error(CODES[code]("It failed."))
    assert (status, body["error_code"]) == told


@pytest.mark.parametrize(
    ("path", "databricks", "openai"),
    [
        ("/api/2.0/serving-endpoints/x", True, False),
        ("/serving-endpoints/x/invocations", True, False),
        ("/serving-endpoints/chat/completions", False, True),
        ("/v1/chat/completions", False, True),
        ("/headrace/v1/models", False, False),
    ],
)
def test_whose_path_it_is(path: str, databricks: bool, openai: bool) -> None:
    """An error has the shape that the path's clients read."""
    assert (is_databricks_path(path), is_openai_path(path)) == (databricks, openai)


@pytest.mark.parametrize(
    ("table", "instances"),
    [
        ({"dataframe_split": {"columns": ["prompt", "n"], "data": [["a", 1], ["b", 2]]}}, "records"),
        ({"dataframe_records": [{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}]}, "records"),
        ({"inputs": {"prompt": ["a", "b"], "n": [1, 2]}}, "records"),
        ({"inputs": [{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}]}, "records"),
        ({"instances": [{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}]}, "records"),
        ({"inputs": ["a", "b"]}, ["a", "b"]),
        ({"inputs": "a"}, ["a"]),
    ],
)
def test_tables_are_instances(table: dict[str, Any], instances: Any) -> None:
    """Each row is a request of its own, in whichever of its four ways the table comes."""
    records = [{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}]
    asked, body = read_invocation(read_object(msgspec.json.encode(table | {"params": {"temperature": 0}})))
    assert asked is Asked.PREDICTIONS
    assert msgspec.json.decode(body["instances"]) == (records if instances == "records" else instances)
    assert msgspec.json.decode(body["parameters"]) == {"raw_response": True, "temperature": 0}


@pytest.mark.parametrize("key", ["inputs", "instances", "dataframe_records"])
def test_what_the_sdk_puts_beside_a_table_holds_for_each_row(key: str) -> None:
    """`query(inputs=…, max_tokens=…)` has its parameters beside the table; `params` and columns win over them."""
    beside = {"max_tokens": 3, "temperature": 0, "stop": ["x"], "n": 2, "stream": False, "client_request_id": "i"}
    extra = {"extra_params": {"top_k": "5", "n": "9"}, "usage_context": {"team": "a"}, "service_tier": "flex"}
    sent = {key: [{"prompt": "Hi", "n": 1}]} | beside | extra | {"params": {"temperature": 0.5}}
    _, body = read_invocation(read_object(msgspec.json.encode(sent)))
    parameters = {"raw_response": True, "top_k": 5, "n": 2, "max_tokens": 3, "stop": ["x"], "temperature": 0.5}
    assert msgspec.json.decode(body["parameters"]) == parameters
    assert bytes(body["service_tier"]) == b'"flex"'
    (instance,) = read_instances(body["instances"], body["parameters"])
    assert (instance.body["n"], instance.body["max_tokens"], instance.stream) == (1, 3, False)


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        ({"max_token": 3}, "`max_token` beside `inputs`"),
        ({"model": "m", "stream_options": {}}, "`model` beside `inputs`"),
        ({"stream": True}, "not streamed"),
        ({"params": {"stream": True}}, "not streamed"),
        ({"inputs": [{"prompt": "a", "stream": True}]}, "not streamed"),
        ({"params": {}, "parameters": {"n": 2}}, "are the same"),
    ],
)
def test_nothing_beside_a_table_is_passed_over(beside: dict[str, Any], named: str) -> None:
    """What is misspelt, cannot be done or is said twice is refused, and named."""
    with pytest.raises(BadField, match=named):
        read_invocation(read_object(msgspec.json.encode({"inputs": ["Hi"]} | beside)))


def test_a_chat_keeps_every_byte_and_loses_what_engines_do_not_know() -> None:
    """`extra_params` become parameters of the request, which win over them."""
    body = b'{"messages": [ 1.50 ], "extra_params": {"top_k": "5", "seed": "x"}, "seed": 2, "client_request_id": "i"}'
    asked, chat = read_invocation(read_object(body))
    assert asked is Asked.CHAT
    assert {key: bytes(value) for key, value in chat.items()} == {
        "messages": b"[ 1.50 ]",
        "top_k": b"5",
        "seed": b"2",
    }


def test_a_column_is_named_once() -> None:
    """Two of one name would be one of them, whichever comes last."""
    table = {"dataframe_split": {"columns": ["prompt", "n", "prompt"], "data": [["a", 1, "b"]]}}
    with pytest.raises(InvalidArgument, match="once") as refused:
        read_invocation(read_object(msgspec.json.encode(table)))
    assert "'prompt' 2 times" in refused.value.evidence


@given(
    body=st.dictionaries(st.sampled_from(["messages", "inputs", "dataframe_split", "params", "x"]), JSON, max_size=3)
)
def test_whatever_is_invoked_is_read_or_refused(body: dict[str, Any]) -> None:
    """No body of an invocation but ends in one of the ways of asking or in an error of the caller's."""
    try:
        asked, translated = read_invocation(read_object(msgspec.json.encode(body)))
    except InvalidArgument:
        return
    assert ("instances" in translated) == (asked is Asked.PREDICTIONS)
