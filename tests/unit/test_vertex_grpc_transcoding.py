"""Messages as HTTP requests and back: by every rule of every method that the vendor's library has."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, quote

import pytest
from google.cloud import aiplatform_v1beta1
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from vertex_grpc_serving import PREDICTION, message, methods

from headrace.gateway.request_head import Headers
from headrace.resources.errors import BadField, BadJson, InternalError
from headrace.server.vertex_grpc.metadata import answer_metadata, request_headers
from headrace.server.vertex_grpc.methods import Method, Rule
from headrace.server.vertex_grpc.streams import documents
from headrace.server.vertex_grpc.transcoding import read_answer, read_request, transcode

VARIABLE = re.compile(r"{([^=}]+)(?:=([^}]*))?}")
SEGMENT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/"), min_size=1, max_size=12).filter(
    lambda text: text not in (".", "..")
)
ENDPOINT = "projects/p/locations/us-central1/endpoints/7"


def all_rules() -> list[tuple[Method, Rule]]:
    """Every binding of every method."""
    return [(method, rule) for method in methods().values() for rule in method.rules]


def bound(method: Method, rule: Rule, segments: list[str]) -> tuple[Any, str]:
    """A message whose fields fit a rule's path, and that path."""
    request, rest = method.request(), iter(segments * 20)

    def resource(template: str) -> str:
        return re.sub(r"\*\*?", lambda _: next(rest), template or "*")

    path = rule["uri"]
    for name, template in VARIABLE.findall(rule["uri"]):
        *parents, field = name.split(".")
        holder = request
        for parent in parents:
            holder = getattr(holder, parent)
        value = resource(template)
        setattr(holder, field, value)
        path = path.replace("{" + name + (f"={template}" if template else "") + "}", quote(value, safe="/"))
    return request, path


def fill(request: Any, *, but: set[str]) -> dict[str, Any]:
    """Give every field that is no message, and not in the path, a value; returns those of the first floor."""
    given = {}
    for field in request.DESCRIPTOR.fields:
        if field.name in but or field.message_type is not None or field.containing_oneof is not None:
            continue
        value: Any = {
            FieldDescriptor.CPPTYPE_STRING: b"x" if field.type == FieldDescriptor.TYPE_BYTES else "a b&c",
            FieldDescriptor.CPPTYPE_BOOL: True,
            FieldDescriptor.CPPTYPE_ENUM: 1,
        }.get(field.cpp_type, 3)
        repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == FieldDescriptor.LABEL_REPEATED
        if repeated:
            getattr(request, field.name).extend([value, value])
        else:
            setattr(request, field.name, value)
        given[field.json_name] = value
    return given


def test_both_versions_are_there_whole() -> None:
    """The services that this server answers are among those found, with their streams as streams."""
    found = methods()
    for version in ("v1", "v1beta1"):
        for name in ("EndpointService/GetEndpoint", "ModelService/ListModels", "PredictionService/Predict"):
            assert not found[f"/google.cloud.aiplatform.{version}.{name}"].streams
        for name in ("StreamRawPredict", "StreamGenerateContent", "ServerStreamingPredict"):
            assert found[f"/google.cloud.aiplatform.{version}.PredictionService/{name}"].streams
    assert found["/google.cloud.aiplatform.v1beta1.ModelGardenService/Deploy"]
    assert found["/google.longrunning.Operations/GetOperation"]
    assert len(found) > 400
    assert {rule["method"] for _, rule in all_rules()} <= {"get", "post", "patch", "delete", "put"}


def test_every_rule_of_every_method_binds() -> None:
    """Whatever a rule's path takes from a message goes into it, and the rest into the query or the body."""
    for method, rule in all_rules():
        request, path = bound(method, rule, ["a"])
        named = {name.partition(".")[0] for name, _ in VARIABLE.findall(rule["uri"])}
        given = fill(request, but=named)
        call = transcode(_only(method, rule), request)
        target, _, query = call.target.decode().partition("?")
        assert (call.verb, target) == (rule["method"].upper(), path), method.path
        if "google.api.HttpBody" in {
            f.message_type.full_name for f in method.request.DESCRIPTOR.fields if f.message_type
        }:
            continue
        told = set(parse_qs(query)) | (set(json.loads(call.body)) if rule.get("body") == "*" else set())
        assert set(given) <= told, method.path


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_names_stay_in_their_places(data: st.DataObject) -> None:
    """Whatever characters a name is made of, it is one segment of the path, and adds no query."""
    method, rule = data.draw(st.sampled_from(all_rules()))
    request, path = bound(method, rule, data.draw(st.lists(SEGMENT, min_size=1, max_size=5)))
    target = transcode(_only(method, rule), request).target.decode("ascii")
    assert target == path
    assert not re.search(r"[\s?#]", target)


@pytest.mark.parametrize(
    "name", ["", "nothing", "projects/p/locations/l/endpoints/..", "projects/p/locations/l/models/7"]
)
def test_a_name_that_fits_no_rule_is_bad_input(name: str) -> None:
    """It is refused with the field's name, and never sent."""
    method = methods()[f"{PREDICTION}/Predict"]
    with pytest.raises(BadField) as caught:
        transcode(method, method.request(endpoint=name))
    assert "endpoint" in caught.value.fix


def test_what_json_has_no_place_for_is_bad_input() -> None:
    """Infinity in an instance is refused like any other bad field."""
    method = methods()[f"{PREDICTION}/Predict"]
    request = method.request(endpoint=ENDPOINT)
    request.instances.add(number_value=float("inf"))
    with pytest.raises(BadField):
        transcode(method, request)


def test_bytes_that_are_no_message() -> None:
    """They are the client's fault."""
    with pytest.raises(BadJson):
        read_request(methods()[f"{PREDICTION}/Predict"], b"\xff\xff\xff")


def test_a_body_is_sent_as_it_is() -> None:
    """`HttpBody` is neither base64 nor JSON on the way: its bytes and its type are the request's."""
    method = methods()[f"{PREDICTION}/RawPredict"]
    request = method.request(endpoint=ENDPOINT)
    request.http_body.data, request.http_body.content_type = b'{"instances": [1]}', "application/x-own"
    call = transcode(method, request)
    assert (call.verb, call.target) == ("POST", f"/v1/{ENDPOINT}:rawPredict".encode())
    assert (call.body, call.content_type) == (b'{"instances": [1]}', "application/x-own")


@pytest.mark.parametrize("content_type", ["a/b\r\nhost: other", "a\n", "\0", "ä/b", "x" * 1000])
def test_a_type_that_breaks_out_of_its_line(content_type: str) -> None:
    """It is bad input: no client says more in a request's head than its type."""
    method = methods()[f"{PREDICTION}/RawPredict"]
    request = method.request(endpoint=ENDPOINT)
    request.http_body.content_type = content_type
    with pytest.raises(BadField):
        transcode(method, request)


def test_a_field_mask_and_a_resource() -> None:
    """An update names its fields in the query, and brings the resource as the body."""
    method = methods()["/google.cloud.aiplatform.v1.EndpointService/UpdateEndpoint"]
    fields = {"endpoint": {"name": ENDPOINT, "displayName": "n"}, "updateMask": "displayName,trafficSplit"}
    call = transcode(method, message(method, fields))
    assert (call.verb, call.target) == ("PATCH", f"/v1/{ENDPOINT}?updateMask=displayName%2CtrafficSplit".encode())
    assert json.loads(call.body) == {"displayName": "n"}


def test_answers_may_say_more_than_is_known() -> None:
    """Fields and names of enums that the library does not know are passed over; those that it knows arrive."""
    method = methods()["/google.cloud.aiplatform.v1.EndpointService/GetEndpoint"]
    deployed = {
        "id": "1",
        "headrace": {"state": "READY"},
        "dedicatedResources": {"machineSpec": {"acceleratorType": "X"}},
    }
    body = {"name": ENDPOINT, "deployedModels": [deployed], "trafficSplit": {"1": 100}, "new": [None]}
    answer = read_answer(method, json.dumps(body).encode(), "application/json")
    assert (answer.name, answer.deployed_models[0].id, answer.traffic_split["1"]) == (ENDPOINT, "1", 100)


def test_an_operation_brings_its_messages() -> None:
    """What it came to is a message of the version that it was asked for in."""
    method = methods()["/google.longrunning.Operations/GetOperation"]
    response = {"@type": "type.googleapis.com/google.cloud.aiplatform.v1beta1.DeployResponse", "endpoint": ENDPOINT}
    body = json.dumps({"name": "projects/p/locations/l/operations/1", "done": True, "response": response}).encode()
    answer = read_answer(method, body, "application/json")
    kind = aiplatform_v1beta1.DeployResponse.pb()
    told = kind()
    assert answer.response.Unpack(told)
    assert told.endpoint == ENDPOINT


@pytest.mark.parametrize("body", [b"nothing", b"[1]", b'{"name": 1}', b"\xff", b'{"response": {"@type": "unknown/x"}}'])
def test_an_answer_that_is_none_is_our_fault(body: bytes) -> None:
    """It ends the call with an error that says so, not with an exception."""
    with pytest.raises(InternalError):
        read_answer(methods()["/google.longrunning.Operations/GetOperation"], body, "application/json")


DOCUMENTS = [b'{"a": "\xc3\xa4 [,] \\" x"}', b'{"b": [1, {"c": null}]}', b'{"d": 1}']


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (
            "text/event-stream; charset=utf-8",
            b"".join(b"data: %s\n\n" % each for each in DOCUMENTS) + b"data: [DONE]\n\n",
        ),
        ("text/event-stream", b": hold on\n\n" + b"\r\n\r\n".join(b"data: " + each for each in DOCUMENTS)),
        ("application/json", b"[" + b",\r\n".join(DOCUMENTS) + b"]\n"),
        ("application/json", b"\n".join(DOCUMENTS)),
    ],
)
def test_streams_are_cut_the_same_wherever_they_are_torn(content_type: str, body: bytes) -> None:
    """Events, arrays and lines bring the same documents, whole, at whichever byte a piece ends."""
    for at in range(len(body) + 1):
        found = documents(content_type)
        cut = [*found.feed(body[:at]), *found.feed(body[at:]), *found.rest()]
        assert [json.loads(each) for each in cut] == [json.loads(each) for each in DOCUMENTS], at


@given(st.lists(st.binary(max_size=30), max_size=5), st.sampled_from(["text/event-stream", "application/json", ""]))
def test_any_bytes_can_be_a_stream(pieces: list[bytes], content_type: str) -> None:
    """Garbage ends in documents that are none, and in no exception."""
    found = documents(content_type)
    for piece in pieces:
        found.feed(piece)
    found.rest()


def test_metadata_passes_on_what_a_client_says() -> None:
    """Key, names of the caller and trace go on; what is gRPC's own, or a proxy's word, does not."""
    metadata = [
        ("authorization", "Bearer k"),
        ("x-goog-api-client", "gl-python/3"),
        ("x-request-id", "r1"),
        ("traceparent", "00-1-2-01"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-goog-blob-bin", b"\0"),
        ("grpc-accept-encoding", "gzip"),
        ("x-server-timeout", "600"),
    ]
    headers = dict(request_headers(metadata, 1.5))
    assert set(headers) == {
        b"authorization",
        b"x-goog-api-client",
        b"x-request-id",
        b"traceparent",
        b"x-server-timeout",
    }
    assert headers[b"x-server-timeout"] == b"1.500"
    assert dict(request_headers(metadata, None))[b"x-server-timeout"] == b"600"


@given(st.text(max_size=20), st.sampled_from("\r\n\0\x1f\x7f\u0100"), st.text(max_size=20))
def test_metadata_never_ends_a_header(before: str, wrong: str, after: str) -> None:
    """gRPC's library hands on any bytes; what would end a line would begin a request on a connection of others."""
    with pytest.raises(BadField, match="x-goog-x"):
        request_headers([("x-goog-x", before + wrong + after)], None)
    assert request_headers([("x-goog-x-bin", wrong), ("other", wrong)], None) == []


def test_headers_of_answers_that_a_client_wants() -> None:
    """The request's id, limits and when to come back; nothing that gRPC would not take."""
    headers: Headers = [
        (b"x-request-id", b"r1"),
        (b"retry-after", b"3"),
        (b"content-type", b"application/json"),
        (b"x-odd", b"\xff"),
        (b"x-blob-bin", b"1"),
    ]
    assert answer_metadata(headers) == (("x-request-id", "r1"), ("retry-after", "3"))


def _only(method: Method, rule: Rule) -> Method:
    """The same method with one rule."""
    return Method(path=method.path, request=method.request, answer=method.answer, rules=(rule,), streams=method.streams)
