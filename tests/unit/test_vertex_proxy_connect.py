"""Which requests the proxy for the names of Vertex AI serves."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.server.vertex_proxy.connect import MAX_HEAD_BYTES, Refusal, read_connect


def asking(target: str, version: str = "1.1", more: str = "") -> bytes:
    """A request for a tunnel."""
    return f"CONNECT {target} HTTP/{version}\r\nHost: {target}\r\n{more}\r\n".encode()


@pytest.mark.parametrize(
    "host",
    [
        "aiplatform.googleapis.com",
        "us-central1-aiplatform.googleapis.com",
        "europe-west4-aiplatform.googleapis.com",
        "US-Central1-AIPlatform.googleapis.com",
        "us-central1-aiplatform.googleapis.com.",
        "oauth2.googleapis.com",
        "iamcredentials.googleapis.com",
    ],
)
def test_the_names_of_vertex_ai_are_served(host: str) -> None:
    """In any spelling that DNS takes for the same, and whatever else the head says."""
    for request in (
        asking(f"{host}:443"),
        asking(f"{host}:8443"),
        asking(f"{host}:443", "1.0", "Proxy-Authorization: Basic eA==\r\n"),
    ):
        assert read_connect(request) == host.lower().rstrip(".")


@pytest.mark.parametrize(
    "target",
    [
        "example.org:443",
        "storage.googleapis.com:443",
        "us-central1-aiplatform.googleapis.com:https",
        "us-central1-aiplatform.googleapis.com:",
        "us-central1-aiplatform.googleapis.com",
        "us-central1-aiplatform.googleapis.com.example.org:443",
        "example.org#.aiplatform.googleapis.com:443",
        "a.aiplatform.googleapis.com:443",
        "xaiplatform.googleapis.com:443",
        "127.0.0.1:443",
        "[::1]:443",
        "localhost:8080",
        ":443",
    ],
)
def test_it_is_no_open_proxy(target: str) -> None:
    """Every other name, address and port is refused."""
    refused = read_connect(asking(target))
    assert isinstance(refused, Refusal)
    assert refused.status is HTTPStatus.FORBIDDEN
    assert refused.answer().startswith(b"HTTP/1.1 403 Forbidden\r\n")


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (b"GET http://example.org/ HTTP/1.1\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01", 405),
        (b"CONNECT  HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a HTTP/2\r\n\r\n", 400),
        (b"CONNECT a b HTTP/1.1\r\n\r\n", 400),
        (asking("aiplatform.googleapis.com:443") + b"\x16", 400),
        (b"CONNECT " + b"a" * MAX_HEAD_BYTES, 431),
        (asking("aiplatform.googleapis.com:443", more="a: b\r\n" * 4000), 431),
    ],
)
def test_what_is_no_request_for_a_tunnel(received: bytes, status: int) -> None:
    """It is refused as soon as that is certain, with the reason."""
    refused = read_connect(received)
    assert isinstance(refused, Refusal)
    assert refused.status == status


@given(
    st.binary(max_size=200), st.sampled_from(["aiplatform.googleapis.com:443", "example.org:443", "a"]), st.booleans()
)
def test_a_request_may_come_in_any_pieces(garbage: bytes, target: str, good: bool) -> None:
    """Until it is whole nothing is said, but that it is refused for certain; then what the whole one is told."""
    request = asking(target) if good else b"CONNECT " + garbage
    whole = read_connect(request)
    for length in range(len(request)):
        early = read_connect(request[:length])
        assert early is None or isinstance(early, Refusal) or b"\r\n\r\n" in request[:length]
        if good:
            assert early is None
    assert whole is not None or not good


@given(st.binary(max_size=400))
def test_garbage_is_never_served(received: bytes) -> None:
    """Bytes that are no request for one of the names lead nowhere."""
    found = read_connect(received)
    assert found is None or isinstance(found, Refusal)
