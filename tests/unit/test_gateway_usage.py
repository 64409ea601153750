"""What requests used is written down before the end of the answer goes out, exactly or as a bound that says so."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from gateway_serving import BASE, CHAT, CONTENTS, KEY, deployed, gateway_before, pieces_of, serving

from headrace.gateway.buckets import INTER_TOKEN_S, Buckets
from headrace.gateway.exchange import Exchange, Handler
from headrace.gateway.usage_log import ROOM_BYTES, UsageLog
from headrace.resources.usage import UsageRecord, read_lines, to_line
from standin import Script, StandIn

URL = f"{BASE}/chat/completions"
ASKING = {"stream": True, "stream_options": {"include_usage": True}}


def written(folder: Path) -> list[UsageRecord]:
    """Every record in a usage folder."""
    found = [read_lines(path.read_bytes()) for path in sorted(folder.glob("*.usage"))]
    assert not any(one.torn for one in found)
    return [record for one in found for record in one.records]


def record(number: int = 0) -> UsageRecord:
    """One of no particular request."""
    return UsageRecord(
        request_id=str(number),
        at=1e9,
        key_id="k",
        project="p",
        location="l",
        endpoint_id="e",
        deployed_model_id="d",
        model_id="m",
        model_version="1",
        prompt_tokens=number,
    )


def watched(handler: Handler, look: Callable[[], Any], seen: list[Any]) -> Handler:
    """A handler that looks around just before anything goes out by which a client can tell that an answer is whole."""

    async def handle(exchange: Exchange) -> None:
        write, end = exchange.write_soon, exchange.end

        def watched_write(piece: bytes) -> bool:
            if b"[DONE]" in piece:
                seen.append(look())
            return write(piece)

        async def watched_end(piece: bytes = b"") -> None:
            seen.append(look())
            await end(piece)

        exchange.write_soon, exchange.end = watched_write, watched_end  # type: ignore[method-assign]
        await handler(exchange)

    return handle


@pytest.mark.parametrize(
    ("path", "body", "ends"),
    [
        (URL, CHAT, 1),
        (URL, CHAT | {"stream": True}, 2),
        (URL, CHAT | ASKING, 2),
        (f"{BASE}/completions", {"prompt": "x", "stream": True}, 2),
        (f"{BASE}:predict", {"instances": ["x"]}, 1),
        (f"{BASE}:rawPredict", {"instances": ["x"]}, 1),
        (f"{BASE}:rawPredict", {"prompt": "x"}, 1),
        (f"{BASE}:streamRawPredict", {"instances": [{"prompt": "x", "stream": True}]}, 1),
        (f"{BASE}:streamRawPredict", CHAT | {"stream": True}, 2),
        (f"{BASE}:generateContent", CONTENTS, 1),
        (f"{BASE}:streamGenerateContent?alt=sse", CONTENTS, 1),
        (f"{BASE}:streamGenerateContent", CONTENTS, 1),
    ],
)
def test_it_is_on_disk_before_the_client_can_tell_that_it_was_all(
    tmp_path: Path, path: str, body: dict[str, Any], ends: int
) -> None:
    """Unary or streamed, in every contract: whose request it was, of which model, and the engine's own counts."""

    async def main() -> None:
        seen: list[list[UsageRecord]] = []
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            handler = watched(served.gateway.handle, lambda: written(tmp_path / "usage"), seen)
            headers = {"authorization": f"Bearer {KEY}", "x-request-id": "mine"}
            async with serving(handler) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
                assert (await client.post(path, json=body, headers=headers)).status_code == 200
        assert [len(one) for one in seen] == [1] * ends
        (found,) = seen[0]
        assert (found.request_id, found.key_id) == ("mine", f"id-{KEY}")
        assert (found.project, found.endpoint_id, found.deployed_model_id) == ("default", "e1", "d1")
        assert (found.model_id, found.model_version) == ("m-d1", "1")
        assert (found.prompt_tokens, found.completion_tokens) == (7, 3)
        assert (found.finished, found.inexact) == (True, False)
        assert written(tmp_path / "usage") == seen[0], "once"
        assert (tmp_path / "usage").stat().st_mode & 0o777 == 0o700
        assert {one.stat().st_mode & 0o777 for one in (tmp_path / "usage").iterdir()} == {0o600}

    asyncio.run(main())


def test_usage_that_nobody_asked_for_is_not_shown(tmp_path: Path) -> None:
    """The engine is asked for the usage of every stream; the client sees it only if it asked."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            quiet = await served.client.post(URL, json=CHAT | {"stream": True})
            told = await served.client.post(URL, json=CHAT | ASKING)
            chat = {"instances": [{"messages": CHAT["messages"], "stream": True}]}
            lines = await served.client.post(f"{BASE}:streamRawPredict", json=chat)
            assert {str(body.get("stream_options")) for body in engine.seen.bodies} == {"{'include_usage': True}"}
        assert quiet.content.endswith(b"data: [DONE]\n\n")
        assert (b"usage" in quiet.content, quiet.content.count(b"data: ")) == (False, 4)
        assert (b'"usage"' in told.content, told.content.count(b"data: ")) == (True, 5)
        assert (b"usage" in lines.content, len(lines.content.splitlines())) == (False, 3)

    asyncio.run(main())


def test_an_external_server_is_not_asked_for_what_its_client_did_not_ask(tmp_path: Path) -> None:
    """It may not know the field; what it does not tell is bounded by the pieces of text that came."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as server:
            route = deployed(server.address, external_host="elsewhere")
            async with gateway_before(tmp_path, route) as served:
                assert (await served.client.post(URL, json=CHAT | {"stream": True})).status_code == 200
            assert "stream_options" not in server.seen.bodies[0]
        (found,) = written(tmp_path / "usage")
        assert (found.prompt_tokens, found.completion_tokens) == (0, 3)
        assert (found.finished, found.inexact) == (True, True)

    asyncio.run(main())


def test_a_stream_that_breaks_off_counts_what_was_passed_on(tmp_path: Path) -> None:
    """The engine dies: what came of its answer is a lower bound, and marked as one."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(chunks=5, die_after=2)
            async with served.client.stream("POST", URL, json=CHAT | {"stream": True}) as answer:
                assert not (await pieces_of(answer))[1]
        (found,) = written(tmp_path / "usage")
        assert (found.completion_tokens, found.finished, found.inexact) == (2, False, True)

    asyncio.run(main())


def test_a_client_that_leaves_is_counted_for(tmp_path: Path) -> None:
    """Before the first byte, or in the middle of a stream: the engine worked, so there is a record."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(hang=True)
            asking = asyncio.create_task(served.client.post(URL, json=CHAT))
            await engine.until(began=1)
            asking.cancel()
            await engine.until(cancelled=1)
            engine.script = Script(chunks=4, gated=True)
            engine.gate.release()
            async with served.client.stream("POST", URL, json=CHAT | {"stream": True}) as answer:
                await anext(answer.aiter_raw())
            await engine.until(cancelled=2)
            assert await served.gateway.drain(20) == 0
        first, second = written(tmp_path / "usage")
        assert (first.completion_tokens, first.finished, first.inexact) == (0, False, True)
        assert (second.completion_tokens, second.finished, second.inexact) == (1, False, True)

    asyncio.run(main())


def test_what_no_model_computed_for_is_not_counted(tmp_path: Path) -> None:
    """A refusal of the engine has used nothing; what never reached one, and tokenising, leave no record."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(refuse=400)
            assert (await served.client.post("/v1/chat/completions", json=CHAT | {"model": "e1"})).status_code == 400
            assert (await served.client.post("/tokenize", json={"model": "e1", "prompt": "x"})).status_code == 200
            assert (await served.client.post(f"{BASE}:predict", json={})).status_code == 400
            assert (await served.client.post(URL, json=CHAT, headers={"authorization": "Bearer x"})).status_code == 401
        (tmp_path / "empty").mkdir()
        async with gateway_before(tmp_path / "empty", deployed()) as served:
            assert (await served.client.post(URL, json=CHAT)).status_code == 503
        assert list(written(tmp_path / "empty" / "usage")) == []
        (found,) = written(tmp_path / "usage")
        assert (found.prompt_tokens, found.completion_tokens) == (0, 0)
        assert (found.finished, found.inexact) == (False, False)

    asyncio.run(main())


def test_embeddings_and_several_instances_are_summed(tmp_path: Path) -> None:
    """One request is one record, of all the answers that it took."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            assert (await served.client.post(f"{BASE}/embeddings", json={"input": "x"})).status_code == 200
            assert (await served.client.post(f"{BASE}:predict", json={"instances": ["a", "b"]})).status_code == 200
        found = [(one.prompt_tokens, one.completion_tokens, one.inexact) for one in written(tmp_path / "usage")]
        assert found == [(4, 0, False), (14, 6, False)]

    asyncio.run(main())


def test_what_cannot_be_written_fails_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The answer goes out; a metric counts, the log says it once; once there is room again, records go on."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            (tmp_path / "usage").touch()
            for _ in range(2):
                assert (await served.client.post(URL, json=CHAT)).status_code == 200
            metrics = (await served.admin_get("/metrics")).text
            assert "headrace_gateway_usage_log_failures_total 2.0" in metrics
            (tmp_path / "usage").unlink()
            assert (await served.client.post(URL, json=CHAT)).status_code == 200
            assert len(written(tmp_path / "usage")) == 1

    with caplog.at_level(logging.WARNING, "headrace.gateway.usage_log"):
        asyncio.run(main())
    assert ["cannot be written" in one.message for one in caplog.records if "usage_log" in one.name] == [True, False]


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """What fits no more leaves nothing of itself, and the lines that come when there is room again are good."""
    code = """
import resource, sys
from pathlib import Path
from headrace.gateway.usage_log import UsageLog
from test_gateway_usage import record

log = UsageLog(Path(sys.argv[1]))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
for number in range(600):
    log.append(record(number))
failures = log.failures
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.append(record(600))
log.append(record(601))
print(failures, log.failures)
"""
    path = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    program = f"import sys; sys.path[:0] = {path!r}\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "usage")], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert 0 < before == after < 600
    found = [int(one.request_id) for one in written(tmp_path / "usage")]
    assert found == [*range(600 - before), 600, 601]


def test_segments_follow_each_other(tmp_path: Path) -> None:
    """One that is large or old enough is followed by another; only the one that is written is locked."""
    for folder, options in (("size", {"segment_bytes": 1}), ("age", {"segment_s": 0.0})):
        log = UsageLog(tmp_path / folder, **options)  # type: ignore[arg-type]
        for number in range(3):
            log.append(record(number))
        segments = sorted((tmp_path / folder).iterdir())
        assert [one.request_id for one in written(tmp_path / folder)] == ["0", "1", "2"]
        assert [_is_locked(path) for path in segments] == [False, False, True]
        log.close()
        assert not _is_locked(segments[-1])


def test_room_that_is_not_used_yet_is_no_line(tmp_path: Path) -> None:
    """A segment takes disk ahead of its lines, also of one that is longer than that; its end gives the rest back."""
    log = UsageLog(tmp_path / "usage")
    lines = [record(1), msgspec.structs.replace(record(2), request_id="x" * 2 * ROOM_BYTES), record(3)]
    for number, line in enumerate(lines, start=1):
        log.append(line)
        assert written(tmp_path / "usage") == lines[:number]
        (segment,) = (tmp_path / "usage").iterdir()
        assert segment.stat().st_size % ROOM_BYTES == 0
    log.close()
    assert segment.read_bytes() == b"".join(map(to_line, lines))


def test_gateways_that_share_a_folder_write_their_own_files(tmp_path: Path) -> None:
    """No two write one file, and what each wrote is there."""
    logs = [UsageLog(tmp_path / "usage") for _ in range(3)]
    for number, log in enumerate([*logs, *logs]):
        log.append(record(number))
    assert len(list((tmp_path / "usage").iterdir())) == 3
    assert sorted(one.prompt_tokens for one in written(tmp_path / "usage")) == list(range(6))
    for log in logs:
        log.close()


def test_the_metrics_know_the_pace(tmp_path: Path) -> None:
    """Time between the pieces of a stream, and time in line, by endpoint; forgotten with it."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine, gateway_before(tmp_path, deployed(engine.address)) as served:
            engine.script = Script(chunks=4, gated=True)
            engine.gate.release()
            async with served.client.stream("POST", URL, json=CHAT | {"stream": True}) as answer:
                async for _ in answer.aiter_raw():  # each piece comes alone, the last one perhaps with the end
                    engine.gate.release()
            assert await served.gateway.drain(20) == 0
            text = (await served.admin_get("/metrics")).text
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        gaps = "headrace_gateway_inter_token_latency_seconds"
        assert 2 <= float(lines[f'{gaps}_count{{endpoint="e1"}}']) <= 3
        assert lines[f'{gaps}_bucket{{endpoint="e1",le="+Inf"}}'] == lines[f'{gaps}_count{{endpoint="e1"}}']
        assert float(lines[f'{gaps}_sum{{endpoint="e1"}}']) > 0
        assert lines['headrace_gateway_queue_seconds_count{endpoint="e1"}'] == "1.0"

    asyncio.run(main())


def test_gaps_are_counted_in_their_buckets() -> None:
    """A bound belongs to its bucket, as Prometheus has it; sums of requests are sums of buckets."""
    one, other = Buckets(INTER_TOKEN_S), Buckets(INTER_TOKEN_S)
    for gap_s in (INTER_TOKEN_S[0], INTER_TOKEN_S[1], 1e9):
        one.observe(gap_s)
    other.observe(0.0)
    one.add(other)
    counts = [count for _, count in one.cumulated()]
    assert counts[:3] == [2, 3, 3]
    assert (counts[-2:], json.dumps(one.cumulated()[-1])) == ([3, 4], '["+Inf", 4]')
    assert one.sum_s == INTER_TOKEN_S[0] + INTER_TOKEN_S[1] + 1e9


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
