"""Plain ranges against a server whose answers are scripted, and files' digests whatever order their ranges come in."""

from __future__ import annotations

import hashlib
import logging
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.storage import ranges
from headrace.storage.addresses import _options
from headrace.storage.artifacts import ArtifactFile
from headrace.storage.checksums import Checksum
from headrace.storage.located import Located, locate
from headrace.storage.ranges import PIECE_BYTES, Later, PlainRanges, Refused
from headrace.storage.verifying import Part, Verifier

CONTENT = random.Random(1).randbytes(3 * PIECE_BYTES + 7)
Answer = tuple[int, dict[str, str], bytes]


class Scripted(ThreadingHTTPServer):
    """Gives the next scripted answer, else the range that was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[Answer] = []
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        body = CONTENT[int(first) : int(last) + 1]
        head = {"Content-Range": f"bytes {first}-{int(first) + len(body) - 1}/{len(CONTENT)}"}
        status, head, body = self.server.script.pop(0) if self.server.script else (206, head, body)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | head).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = len(body) < int(head.get("Content-Length", "0"))

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Scripted]:
    """Running."""
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def read(client: PlainRanges, start: int, end: int) -> bytes:
    """All pieces."""
    return b"".join(bytes(piece) for piece in client.pieces("a", start, end, 30))


def client_of(server: Scripted, **headers: str) -> PlainRanges:
    """A client that finds every object at one secret address."""
    return PlainRanges(lambda _: Located(f"{server.url}/a?secret", headers))


def test_a_range_ends_where_its_object_does(server: Scripted) -> None:
    """In pieces, over one connection; what lies behind the end is empty."""
    client = client_of(server)
    assert read(client, 0, len(CONTENT)) == CONTENT
    assert read(client, 5, 9) == CONTENT[5:9]
    assert read(client, len(CONTENT) - 3, len(CONTENT) + 100) == CONTENT[-3:]
    server.script = [(416, {"Content-Range": f"bytes */{len(CONTENT)}"}, b"")]
    assert read(client, len(CONTENT), len(CONTENT) + 9) == b""


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, CONTENT),
        (206, {}, b"no range"),
        (206, {"Content-Range": "bytes 0-0/9", "Content-Encoding": "gzip"}, b"a"),
        (403, {}, b"no"),
        (404, {}, b"nothing"),
        (302, {"Location": "/a"}, b""),
    ],
)
def test_what_is_no_range_is_left_to_the_driver(server: Scripted, answer: Answer) -> None:
    """Nothing of such an answer is taken for content."""
    server.script = [answer] * 9
    with pytest.raises(Refused):
        read(client_of(server), 0, 9)


def test_a_right_that_ended_is_asked_for_again(server: Scripted) -> None:
    """A store that refuses what it gave before is asked anew; only a fresh right that is refused counts."""
    client = client_of(server)
    assert read(client, 0, 9) == CONTENT[:9]
    server.script = [(403, {}, b"expired"), (403, {}, b"no")]
    with pytest.raises(ConnectionError):
        read(client, 0, 9)
    with pytest.raises(Refused):
        read(client, 0, 9)


def test_a_redirect_is_followed_once_and_takes_no_key_along(server: Scripted) -> None:
    """The second range goes where the first was led; the token stays with the host that it is for."""
    with Scripted() as elsewhere:
        thread = threading.Thread(target=elsewhere.serve_forever)
        thread.start()
        server.script = [(302, {"Location": f"{elsewhere.url}/b?signed"}, b"")]
        client = client_of(server, Authorization="Bearer secret")
        assert read(client, 0, 9) + read(client, 9, 18) == CONTENT[:18]
        elsewhere.shutdown()
        thread.join()
    assert [head["Authorization"] for _, head in server.asked] == ["Bearer secret"]
    assert [(path, "Authorization" in head) for path, head in elsewhere.asked] == [("/b?signed", False)] * 2


def test_a_store_that_asks_for_patience_says_how_much(server: Scripted) -> None:
    """429 and 503 are no refusals."""
    server.script = [(429, {"Retry-After": "7"}, b""), (503, {}, b"")]
    for after_s in (7, 0):
        with pytest.raises(Later) as told:
            read(client_of(server), 0, 9)
        assert told.value.after_s == after_s


def test_no_address_is_told(server: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    """It may hold the right to read: neither an error nor a log at INFO has it."""
    caplog.set_level(logging.INFO)
    whole = f"bytes 0-99/{len(CONTENT)}"
    server.script = [
        (302, {"Location": "/b?secret"}, b""),
        (206, {"Content-Range": whole, "Content-Length": "100"}, b"short"),
    ]
    client = client_of(server)
    with pytest.raises(ConnectionError) as broken:
        read(client, 0, 100)
    gone = PlainRanges(lambda _: Located("http://127.0.0.1:1/a?secret", {}))
    with pytest.raises(TimeoutError) as refused:  # so urllib3 counts one that is not answered
        read(gone, 0, 9)
    assert "secret" not in f"{broken.value!r} {refused.value!r} {caplog.text}"


def test_behind_a_proxy_the_driver_reads(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows how to go through one; a host that is excepted is asked plainly."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(Refused):
        read(client_of(server), 0, 9)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert read(client_of(server), 0, 9) == CONTENT[:9]


def test_a_place_is_kept_for_a_while_only(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the driver is asked again, whose tokens are renewed."""
    asked = []

    def tell(path: str) -> Located:
        asked.append(path)
        return Located(f"{server.url}/a", {})

    client = PlainRanges(tell)
    read(client, 0, 9)
    read(client, 0, 9)
    assert asked == ["a"]
    monkeypatch.setattr(ranges, "KEPT_S", -1.0)
    for _ in range(2):
        client = PlainRanges(tell)
        read(client, 0, 9)
        read(client, 0, 9)
    assert len(asked) == 5


def test_an_s3_address_is_signed_in_the_way_that_every_region_accepts() -> None:
    """The driver's own default for the first region is the old one, which buckets since 2020 refuse."""
    driver = fsspec.filesystem("s3", skip_instance_cache=True, key="id", secret="secret", **_options("s3", "bucket/a"))
    found = locate(driver, "bucket/a")
    assert found is not None
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in found.url
    assert "secret" not in found.url


class Azure:
    """As much of adlfs as says by what right it reads."""

    protocol = ("abfs", "az")
    connection_string = None
    account_key = None

    def __init__(self, url: str, credential: object = None) -> None:
        self.service_client = self
        self.url = url
        self.credential = credential

    def split_path(self, path: str) -> tuple[str, str, None]:
        """Its parts."""
        return "container", path, None

    def get_blob_client(self, *_: str) -> Azure:
        """One with an address."""
        return self


def test_azure_is_asked_with_what_there_is() -> None:
    """A SAS token is in the address; a credential that is neither a key nor gives tokens is the driver's affair."""
    assert locate(Azure("https://host/a?sig=1"), "a") == Located("https://host/a?sig=1", {})  # type: ignore[arg-type]
    assert locate(Azure("https://host/a", "what"), "a") is None  # type: ignore[arg-type]


class Vouched:
    """Says one thing of every file."""

    def __init__(self, checksum: Checksum | None) -> None:
        self._checksum = checksum

    def checksum(self, _file: ArtifactFile) -> Checksum | None:
        """What it says."""
        if self._checksum and self._checksum.algorithm == "none":
            raise ConnectionError("gone")
        return self._checksum


def verdict(folder: Path, content: bytes, order: list[int], said: Checksum | None) -> bool:
    """Of a file whose ranges of a hundred bytes arrived in this order."""
    (folder / "a").write_bytes(content)
    file = ArtifactFile("a", len(content), "1")
    with Verifier(Vouched(said), [file], folder) as verifier:
        for number in order:
            verifier.arrived(Part("a", number * 100, min(100, len(content) - number * 100)))
        (found,) = verifier.verdicts()
        return found.result()


@settings(deadline=None)  # a verdict waits for the disk
@given(length=st.integers(0, 1500), seed=st.randoms(use_true_random=False))
def test_a_digest_does_not_depend_on_the_order(
    tmp_path_factory: pytest.TempPathFactory, length: int, seed: random.Random
) -> None:
    """Of whatever file in whatever order: right if it is, wrong if one byte differs."""
    folder = tmp_path_factory.mktemp("a")
    content = seed.randbytes(length)
    order = list(range((length + 99) // 100))
    seed.shuffle(order)
    assert verdict(folder, content, order, Checksum("md5", hashlib.md5(content).hexdigest()))
    changed = Checksum("md5", hashlib.md5(content + b"x").hexdigest())
    assert not verdict(folder, content, order, changed)


def test_a_checksum_that_cannot_be_had_is_no_verdict(tmp_path: Path) -> None:
    """Its error is told; only a store that has none is believed without."""
    assert verdict(tmp_path, b"abc", [0], None)
    with pytest.raises(ConnectionError):
        verdict(tmp_path, b"abc", [0], Checksum("none", ""))
