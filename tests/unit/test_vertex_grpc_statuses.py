"""Errors in HTTP as `google.rpc.Status`."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from google.rpc import code_pb2, error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.openai.errors import openai_error
from headrace.contracts.vertex.errors import google_error
from headrace.resources.errors import CODES
from headrace.server.vertex_grpc.statuses import status_of


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_error_is_the_same_in_grpc(code: str) -> None:
    """Its branch's code, its own code as the reason, evidence and fix; in Google's shape and in OpenAI's."""
    error = CODES[code]("It failed.", evidence="seen", fix="do this", retry_after_s=3)
    http, body = google_error(error)
    status = status_of(http, json.dumps(body).encode())
    assert code_pb2.Code.Name(status.code) == error.status
    assert status.message == str(error)
    reason, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(reason)
    assert (reason.reason, dict(reason.metadata)) == (code, {"evidence": "seen", "fix": "do this"})
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 3
    http, body = openai_error(error)
    if body["error"]["code"] == code:
        status = status_of(http, json.dumps(body).encode())
        assert code_pb2.Code.Name(status.code) == error.status
        assert status.details[0].Unpack(reason)
        assert reason.reason == code


@given(st.integers(300, 599), st.binary(max_size=300))
def test_any_answer_is_some_error(http: int, body: bytes) -> None:
    """Whatever stands in it, and never that all is well."""
    status = status_of(http, body)
    assert status.code != code_pb2.OK
    assert status.message


@given(st.text(max_size=6000), st.dictionaries(st.text(max_size=10), st.text(max_size=3000), max_size=4))
def test_it_fits_into_a_clients_metadata(message: str, metadata: dict[str, str]) -> None:
    """However much an error tells, its client gets it: what is too long is cut."""
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "R", "metadata": metadata}
    body = {"error": {"code": 404, "message": message, "status": "NOT_FOUND", "details": [detail, 7, {"@type": "x"}]}}
    status = status_of(404, json.dumps(body).encode())
    assert status.code == code_pb2.NOT_FOUND
    assert len(quote(status.message)) + status.ByteSize() * 4 / 3 < 7000
    assert not message or status.message[:100] == message[:100]


@pytest.mark.parametrize(
    ("http", "code"),
    [(404, "NOT_FOUND"), (429, "RESOURCE_EXHAUSTED"), (502, "UNAVAILABLE"), (500, "INTERNAL"), (418, "UNKNOWN")],
)
def test_somebody_elses_page_has_the_code_of_its_status(http: int, code: str) -> None:
    """What a proxy between us says is told as it is."""
    status = status_of(http, b"<h1>busy</h1>")
    assert (code_pb2.Code.Name(status.code), status.message) == (code, "<h1>busy</h1>")
