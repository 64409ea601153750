"""The request log of a gateway: what is in it, and that no request ever waits for it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway_serving import BASE, CHAT, CONTENTS, KEY, SCOPE, Served, deployed, gateway_before, pieces_of, snapshot
from logged_requests import is_written, lines_in, logged

from headrace.gateway.record import RequestRecord
from headrace.gateway.request_head import RequestHead
from headrace.gateway.request_log import RequestLogger
from headrace.gateway.request_recording import MAX_REQUEST_BYTES
from headrace.request_log import LogFiles
from headrace.resources.layout import Layout
from headrace.resources.request_log import RequestLog
from headrace.resources.snapshot import EndpointRoute
from standin import Script, StandIn

URL = f"{BASE}/chat/completions"
EVERYTHING = RequestLog()
TIMEOUT_S = 30.0


@asynccontextmanager
async def logging_gateway(folder: Path, log: RequestLog | None = EVERYTHING) -> AsyncIterator[tuple[StandIn, Served]]:
    """An engine, and a gateway before it that logs the requests of its endpoint. Left, everything is written."""
    async with StandIn(folder / "e") as engine:
        model = deployed(engine.address)
        async with gateway_before(folder, model) as served:
            await served.push(snapshot(model, generation=2, request_log=log))
            yield engine, served
            assert await served.gateway.drain(20) == 0
        await asyncio.to_thread(log_of(served).close, TIMEOUT_S)  # the gateway's own close waits for less


def log_of(served: Served) -> RequestLogger:
    """The gateway's end of the log."""
    return served.gateway._request_log


async def until(true: Callable[[], bool]) -> None:
    """Wait for what another process does, which tells nobody."""
    async with asyncio.timeout(TIMEOUT_S):
        while not true():  # noqa: ASYNC110 - as it says
            await asyncio.sleep(0.01)


@contextmanager
def standing_still(pid: int | None) -> Iterator[None]:
    """The process gets no processor time, as on a disk that does not answer."""
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def rows(folder: Path) -> list[dict[str, Any]]:
    """What is in the log, in the order of arrival."""
    return sorted(lines_in(folder / "requests"), key=lambda row: str(row["at"]))


def test_a_request_is_logged_with_its_answer(tmp_path: Path) -> None:
    """Who asked what of which model, what came of it and when; nowhere the key."""

    async def main() -> None:
        async with logging_gateway(tmp_path) as (_, served):
            answer = await served.client.post(URL, json=CHAT, headers={"x-request-id": "mine"})
            assert answer.status_code == 200
        (row,) = rows(tmp_path)
        assert (row["request_id"], row["key"], row["endpoint"]) == ("mine", f"id-{KEY}", "e1")
        assert (row["deployed_model"], row["model"], row["model_version"]) == ("d1", "m-d1", "1")
        assert (row["project"], row["replica"], row["path"]) == ("default", "d1-r0", URL)
        assert (row["status"], row["code"], row["streamed"], row["note"]) == (200, "", False, "")
        assert (row["prompt_tokens"], row["completion_tokens"]) == (7, 3)
        assert (row["request"], row["response"]) == (CHAT, answer.json())
        assert row["response_bytes"] == len(answer.content)
        assert 0 <= row["queue_s"] <= row["ttft_s"] <= row["duration_s"]
        (path,) = (tmp_path / "requests").iterdir()
        assert KEY not in path.read_text().replace(f"id-{KEY}", "")
        assert not is_written(path)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (URL, CHAT | {"stream": True}, {"message": {"content": "tok tok tok "}}),
        (f"{BASE}/completions", {"prompt": "x", "stream": True}, {"text": "tok tok tok "}),
        (
            f"{BASE}:streamRawPredict",
            {"instances": [{"prompt": "x", "stream": True}]},
            {"text": "tok tok tok "},
        ),
        (f"{BASE}:streamGenerateContent", CONTENTS, {"message": {"content": "tok tok tok "}}),
    ],
)
def test_a_stream_is_logged_as_one_answer(
    tmp_path: Path, path: str, body: dict[str, Any], text: dict[str, Any]
) -> None:
    """Its pieces put together, in the shape of a unary answer; the client gets what it would have got."""

    async def main() -> None:
        async with logging_gateway(tmp_path) as (_, served):
            plain = snapshot(*served.gateway._routing.table.snapshot.endpoints[0].deployed, generation=3)
            with_log = await served.client.post(path, json=body)
            await served.push(plain)
            without = await served.client.post(path, json=body)
            assert with_log.content == without.content
        (row,) = rows(tmp_path)
        assert (row["streamed"], row["status"]) == (True, 200)
        (choice,) = row["response"]["choices"]
        assert {name: choice[name] for name in text} == text
        assert (choice["finish_reason"], row["response"]["usage"]["completion_tokens"]) == ("stop", 3)
        assert (row["request"], row["completion_tokens"]) == (body, 3)

    asyncio.run(main())


def test_chunks_arrive_one_by_one_with_the_log_on(tmp_path: Path) -> None:
    """A client has each chunk before the engine makes the next one, while the log's writer stands still."""

    async def main() -> None:
        async with logging_gateway(tmp_path) as (engine, served):
            body = CHAT | {"stream": True}
            assert (await served.client.post(URL, json=body)).status_code == 200
            log = log_of(served)
            await until(lambda: log.writer.written == 1)
            with standing_still(log.writer.pid):
                large = CHAT | {"padding": "x" * (MAX_REQUEST_BYTES - 1000)}
                for _ in range(4):  # more than the pipe takes: the thread stands still, too
                    assert (await served.client.post(URL, json=large)).status_code == 200
                engine.script = Script(chunks=4, gated=True)
                engine.gate.release()
                before = engine.seen.chunks_sent
                async with served.client.stream("POST", URL, json=body) as answer:
                    pieces = answer.aiter_raw()
                    for n in range(1, 4):
                        assert b"tok" in await anext(pieces)
                        assert engine.seen.chunks_sent - before == n
                        engine.gate.release()
                    assert b"".join([piece async for piece in pieces]).endswith(b"data: [DONE]\n\n")
                assert log.writer.written == 1
                text = (await served.admin_get("/metrics")).text
                assert 'headrace_gateway_request_log_total{outcome="written"} 1.0' in text
        assert len(rows(tmp_path)) == 6
        assert log.dropped == 0

    asyncio.run(main())


def test_nothing_is_logged_unless_somebody_said_so(tmp_path: Path) -> None:
    """There is no file, no thread and no process."""

    async def main() -> None:
        async with logging_gateway(tmp_path, None) as (_, served):
            assert (await served.client.post(URL, json=CHAT)).status_code == 200
            assert (log_of(served)._thread, log_of(served).writer.pid) == (None, None)
        assert not (tmp_path / "requests").exists()

    asyncio.run(main())


def test_a_share_of_the_requests_is_logged(tmp_path: Path) -> None:
    """Those whose ids say so, and no others; what makes no tokens and what names no endpoint never is."""

    async def main() -> None:
        half = RequestLog(sampling_rate=0.5)
        names = [f"request-{number}" for number in range(20)]
        async with logging_gateway(tmp_path, half) as (_, served):
            for name in names:
                answer = await served.client.post(URL, json=CHAT, headers={"x-request-id": name})
                assert answer.status_code == 200
                tokens = {"model": "e1", "prompt": "x"}
                await served.client.post("/tokenize", json=tokens, headers={"x-request-id": name})
                await served.client.post(URL, content=b"no JSON", headers={"x-request-id": name})
        assert [row["request_id"] for row in rows(tmp_path)] == [name for name in names if half.takes(name)]
        assert 0 < len(rows(tmp_path)) < len(names)

    asyncio.run(main())


def test_what_is_redacted_never_reaches_a_file(tmp_path: Path) -> None:
    """Neither from a question, nor from an answer or an error, streamed or not."""

    async def main() -> None:
        log = RequestLog(redact_fields=("messages.content", "message.content"), redact_patterns=("[0-9]{3}-[0-9]+",))
        secret = {"model": "e1", "messages": [{"role": "user", "content": "Xyzzy"}], "user": "call 555-1234 now"}
        async with logging_gateway(tmp_path, log) as (engine, served):
            engine.script = Script(chunk_text="Plugh ")
            for more in ({}, {"stream": True}):
                assert (await served.client.post(URL, json=secret | more)).status_code == 200
        found = b"".join(path.read_bytes() for path in (tmp_path / "requests").iterdir())
        for word in (b"Xyzzy", b"555-1234", b"Plugh"):
            assert word not in found
        unary, streamed = rows(tmp_path)
        assert unary["request"]["user"] == streamed["request"]["user"] == "call [redacted] now"
        contents = [row["response"]["choices"][0]["message"]["content"]["redacted"] for row in (unary, streamed)]
        assert contents[0] == contents[1]
        assert contents[0]["length"] == len("Plugh Plugh Plugh ")

    asyncio.run(main())


def test_what_went_wrong_is_logged(tmp_path: Path) -> None:
    """A refusal, an answer that broke off, a client that left: with their codes, and as much as there was."""

    async def main() -> None:
        async with logging_gateway(tmp_path) as (engine, served):
            engine.script = Script(refuse=400)
            assert (await served.client.post("/v1/chat/completions", json=CHAT | {"model": "e1"})).status_code == 400
            assert (await served.client.post(f"{BASE}:predict", json={"instances": ["x"]})).status_code == 400
            engine.script = Script(chunks=5, die_after=2)
            async with served.client.stream("POST", URL, json=CHAT | {"stream": True}) as answer:
                assert not (await pieces_of(answer))[1]
            engine.script = Script(chunks=4, gated=True)
            engine.gate.release()
            async with served.client.stream("POST", URL, json=CHAT | {"stream": True}) as answer:
                await anext(answer.aiter_raw())
            await engine.until(cancelled=1)
        refused, predicted, broken, left = rows(tmp_path)
        assert (refused["status"], refused["code"]) == (400, "ENGINE_REFUSED")
        assert refused["response"]["error"]["code"] == "context_length_exceeded"
        assert (predicted["status"], predicted["code"]) == (400, "ENGINE_REFUSED")
        assert predicted["response"]["error"]["status"] == "INVALID_ARGUMENT"
        assert (broken["status"], broken["code"]) == (200, "ENGINE_BROKE_OFF")
        assert broken["response"]["choices"][0]["message"]["content"] == "tok tok "
        assert (left["status"], left["code"]) == (200, "CLIENT_LEFT")
        assert left["response"]["choices"][0]["message"]["content"] == "tok "

    asyncio.run(main())


def test_large_bodies_are_left_out(tmp_path: Path) -> None:
    """The row says so, and how large they were; the request gets its answer."""

    async def main() -> None:
        async with logging_gateway(tmp_path) as (engine, served):
            engine.script = Script(chunks=2, chunk_text="x" * MAX_REQUEST_BYTES)
            body = CHAT | {"padding": "x" * MAX_REQUEST_BYTES}
            answer = await served.client.post(URL, json=body)
            assert answer.status_code == 200
        (row,) = rows(tmp_path)
        assert (row["request"], row["response"], row["note"]) == (None, None, "request too large; response too large")
        assert (row["request_bytes"] > MAX_REQUEST_BYTES, row["response_bytes"]) == (True, len(answer.content))

    asyncio.run(main())


def test_a_writer_that_dies_is_replaced(tmp_path: Path) -> None:
    """Requests go on, what it had and did not write is counted, and its file is whole up to there."""

    async def main() -> None:
        async with logging_gateway(tmp_path) as (_, served):
            log = log_of(served)
            assert (await served.client.post(URL, json=CHAT)).status_code == 200
            await until(lambda: log.writer.written == 1)
            assert log.writer.pid is not None
            os.kill(log.writer.pid, signal.SIGKILL)
            asked = 1
            async with asyncio.timeout(TIMEOUT_S):
                while log.writer.written == 1:
                    assert (await served.client.post(URL, json=CHAT)).status_code == 200
                    asked += 1
                    await asyncio.sleep(0.02)
        assert log.writer.written + log.dropped == asked
        assert len(rows(tmp_path)) == log.writer.written

    asyncio.run(main())


def test_a_signal_to_the_whole_service_does_not_end_the_writer(tmp_path: Path) -> None:
    """It goes on as long as its gateway does, which still has requests to finish."""

    async def main() -> None:
        async with logging_gateway(tmp_path) as (_, served):
            log = log_of(served)
            assert (await served.client.post(URL, json=CHAT)).status_code == 200
            await until(lambda: log.writer.written == 1)
            assert log.writer.pid is not None
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(log.writer.pid, number)
            assert (await served.client.post(URL, json=CHAT)).status_code == 200
        assert (log.writer.written, log.dropped, len(rows(tmp_path))) == (2, 0, 2)

    asyncio.run(main())


# ---------------------------------------------------------------- a bound on what is held


def record(number: int = 0) -> RequestRecord:
    """Of a request that came just now."""
    head = RequestHead(method="POST", target=b"/v1/x", query=b"", headers=[], client="", scheme="http")
    made = RequestRecord(head)
    made.request_id, made.status = str(number), 200
    return made


MODEL = deployed("unix:/nowhere")
ENDPOINT = EndpointRoute(scope=SCOPE, id="e1", display_name="e", deployed=(MODEL,), request_log=EVERYTHING)


def test_what_finds_no_room_is_dropped_and_counted(tmp_path: Path) -> None:
    """With what it held of a stream already; what fits after it is taken again."""
    log = RequestLogger(tmp_path / "snapshot.json", LogFiles(), memory_bytes=20_000)
    first = log.recording("1", ENDPOINT, MODEL, b"x" * 4000)
    second = log.recording("2", ENDPOINT, MODEL, b"x" * 100)
    assert first is not None
    assert second is not None
    second.events(b"x" * 9000)
    second.events(b"x" * 9000)  # too much: all of it goes
    second.events(b"x" * 9000)
    first.events(b"x" * 9000)
    none = log.recording("3", ENDPOINT, MODEL, b"x" * 9000)
    assert none is not None
    none.answer(b"{}")
    for recording in (second, none, first):
        recording.finish(record())
    assert log.dropped == 2
    log.close(TIMEOUT_S)
    assert (log.writer.written, log._taken_bytes) == (1, log._written_bytes)


def test_a_full_queue_holds_nobody(tmp_path: Path) -> None:
    """While the writer stands still, what does not fit is dropped; all that was taken is written in the end."""
    log = RequestLogger(tmp_path / "snapshot.json", LogFiles(), memory_bytes=3 * 2**20)
    body = b'"%s"' % (b"x" * 200_000)

    def ask(number: int) -> None:
        recording = log.recording(str(number), ENDPOINT, MODEL, body)
        assert recording is not None
        recording.answer(b"{}")
        recording.finish(record(number))

    ask(0)
    deadline = time.monotonic() + TIMEOUT_S
    while not log.writer.written and time.monotonic() < deadline:
        time.sleep(0.01)
    with standing_still(log.writer.pid):
        for number in range(1, 100):
            ask(number)
        assert log.dropped > 0
    log.close(TIMEOUT_S)
    assert log.writer.written + log.dropped == 100
    found = [int(row["request_id"]) for row in lines_in(tmp_path / "requests")]
    assert (len(found), found) == (log.writer.written, sorted(set(found))), "each once, in their order"


def killed_with(code: str, folder: Path) -> None:
    """A process that runs this, and kills itself; until nobody writes its log any more."""
    program = f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", program, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    (path,) = (folder / "requests").iterdir()
    deadline = time.monotonic() + TIMEOUT_S
    while is_written(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_written(path)


def test_a_gateway_that_is_killed_leaves_readable_files(tmp_path: Path) -> None:
    """What it had handed over is written by then or soon after; no line is cut, and none is there twice."""
    code = """
import os, signal, sys, time
from pathlib import Path
from headrace.gateway.request_log import RequestLogger
from headrace.request_log import LogFiles
from logged_requests import logged

log = RequestLogger(Path(sys.argv[1]) / "snapshot.json", LogFiles())
for number in range(5000):
    log.put(logged(number), 0)
while log.writer.written < 20:
    time.sleep(0.001)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed_with(code, tmp_path)
    found = [int(row["request_id"]) for row in lines_in(tmp_path / "requests")]
    assert found == list(range(len(found)))
    assert len(found) >= 20


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_writer_that_does_not_end_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int) -> None:
    """And what it had not written is lost, counted and told: be it in the pipe, or not even there yet."""
    log = RequestLogger(tmp_path / "snapshot.json", LogFiles())
    log.put(logged(), 0)
    deadline = time.monotonic() + TIMEOUT_S
    while not log.writer.written and time.monotonic() < deadline:
        time.sleep(0.01)
    pid = log.writer.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    for number in range(1, 21):
        log.put(logged(number, request=b'"%s"' % (b"x" * size)), 0)
    log.close(0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (log.writer.written, log.dropped) == (1, 20)
    assert "20 requests were not written" in caplog.text


def test_a_busy_writer_does_not_outlive_its_gateway_for_long(tmp_path: Path) -> None:
    """Though the pipe of the one that was killed holds work for minutes."""
    code = """
import os, signal, sys, time
from pathlib import Path
from headrace.gateway.request_log import RequestLogger
from headrace.request_log import LogFiles
from headrace.resources.request_log import RequestLog
from logged_requests import logged

log = RequestLogger(Path(sys.argv[1]) / "snapshot.json", LogFiles())
slow = RequestLog(redact_patterns=("(a|aa)+$",))
for number in range(5000):
    log.put(logged(number, settings=slow, request=b'"%s!"' % (b"a" * 60)), 0)
while not log.writer.written:
    time.sleep(0.001)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed_with(code, tmp_path)


def test_the_documented_query_reads_every_gateways_files(tmp_path: Path) -> None:
    """However many gateways there are: their files lie in one folder."""
    query = re.search("FROM '(.*)'", (Path(__file__).parents[2] / "docs" / "request-log.md").read_text())
    assert query is not None
    written = Layout(tmp_path).request_log / "x.parquet"
    written.parent.mkdir(parents=True)
    written.touch()
    assert list(tmp_path.glob(query[1])) == [written]


def test_a_writer_that_cannot_be_started_costs_the_log_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are counted as lost, and closing does not wait."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    log = RequestLogger(tmp_path / "snapshot.json", LogFiles())
    for number in range(3):
        log.put(logged(number), 0)
    log.close(TIMEOUT_S)
    assert (log.dropped, log.writer.written) == (3, 0)
