"""OpenTelemetry traces of a gateway, as a real receiver gets them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gateway_serving import BASE, CHAT, KEY, KEYS, deployed, gateway_before, key, pieces_of, snapshot
from otlp_receiver import CLIENT, INTERNAL, SERVER, Receiver, attributes, receiving

from headrace.gateway.tracing import Tracing
from headrace.resources.limits import KeyLimits
from headrace.server.tracing import available, start_tracing, wanted
from standin import Script, StandIn

URL = f"{BASE}/chat/completions"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
ERROR = 2
"""The status of a span that failed, as OTLP counts."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """One that the environment names."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    with receiving() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "my-gateway")
        yield made


def traced() -> Tracing:
    """As the gateway's process begins to trace."""
    tracing = start_tracing("")
    assert tracing is not None
    return tracing


def hex_of(value: bytes) -> str:
    """An id, as it stands in ``traceparent``."""
    return value.hex()


def test_a_request_is_one_trace_with_its_caller_and_its_engine(tmp_path: Path, receiver: Receiver) -> None:
    """Its span is a child of the client's; the wait and the attempt are children of it; the engine's parent is that."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            async with gateway_before(tmp_path, deployed(engine.address), tracing=traced()) as served:
                headers = {**TRACEPARENT, "x-request-id": "mine"}
                answer = await served.client.post(URL, json=CHAT | {"stream": True}, headers=headers)
                assert answer.content.endswith(b"data: [DONE]\n\n")
                assert (await served.client.get("/healthz")).status_code == 200
            (told,) = engine.seen.headers
        request, wait, attempt = receiver.spans(1)
        assert {hex_of(span.trace_id) for span in (request, wait, attempt)} == {TRACE}
        assert (hex_of(request.parent_span_id), request.kind) == (SPAN, SERVER)
        assert {wait.parent_span_id, attempt.parent_span_id} == {request.span_id}
        assert (wait.name, attempt.name, attempt.kind) == ("wait for a turn", "chat served", CLIENT)
        version, trace, parent, flags = told["traceparent"].split("-")
        assert (version, trace, parent, int(flags, 16) & 1) == ("00", TRACE, hex_of(attempt.span_id), 1)
        assert told["tracestate"] == "vendor=1"
        route = "/v1/projects/{project}/locations/{location}/endpoints/{endpoint}/chat/completions"
        assert request.name == f"POST {route}"
        said = attributes(request)
        assert (said["http.route"], said["url.path"], said["http.response.status_code"]) == (route, URL, 200)
        assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (7, 3)
        assert (said["headrace.request_id"], said["headrace.key_id"]) == ("mine", f"id-{KEY}")
        assert (said["headrace.endpoint"], said["headrace.replica"]) == ("e1", "d1-r0")
        assert [event.name for event in request.events] == ["first token"]
        first_token_at = request.events[0].time_unix_nano
        assert request.start_time_unix_nano <= first_token_at <= request.end_time_unix_nano
        asked = attributes(attempt)
        assert (asked["gen_ai.operation.name"], asked["gen_ai.request.model"]) == ("chat", "served")
        assert (asked["headrace.replica"], asked["http.response.status_code"]) == ("d1-r0", 200)
        assert {span.status.code for span in (request, attempt)} == {0}
        assert receiver.services == {"my-gateway"}

    asyncio.run(main())


def test_the_clients_choice_not_to_sample_is_kept(tmp_path: Path, receiver: Receiver) -> None:
    """Nothing is sent, and the engine is told the same; what has no parent begins a trace of its own."""

    async def main() -> None:
        quiet = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
        async with StandIn(tmp_path / "e") as engine:
            async with gateway_before(tmp_path, deployed(engine.address), tracing=traced()) as served:
                assert (await served.client.post(URL, json=CHAT, headers=quiet)).status_code == 200
                for broken in ({}, {"traceparent": "00-zz-1-01"}):
                    assert (await served.client.post(URL, json=CHAT, headers=broken)).status_code == 200
            first, *others = (headers["traceparent"] for headers in engine.seen.headers)
        version, trace, span, flags = first.split("-")
        assert (version, trace, int(flags, 16) & 1) == ("00", TRACE, 0)
        assert span != SPAN
        spans = receiver.spans(2)
        assert len(spans) == 6
        traces = {hex_of(span.trace_id) for span in spans}
        assert TRACE not in traces
        assert {other.split("-")[1] for other in others} == traces

    asyncio.run(main())


def test_every_attempt_is_shown(tmp_path: Path, receiver: Receiver) -> None:
    """Those that failed with the reason, each with a span of its own; the request they were for succeeded."""

    async def main() -> None:
        async with StandIn(tmp_path / "e") as engine:
            model = deployed(f"unix:{tmp_path / 'nobody'}", engine.address)
            async with gateway_before(tmp_path, model, tracing=traced()) as served:
                for _ in range(40):
                    assert (await served.client.post(URL, json=CHAT)).status_code == 200
        spans = receiver.spans(40)
        failed = [span for span in spans if span.kind == CLIENT and span.status.code == ERROR]
        assert len(spans) == 120 + len(failed)
        assert len(failed) >= 1
        assert {attributes(span)["error.type"] for span in failed} == {"Unreachable"}
        assert {attributes(span)["headrace.replica"] for span in failed} == {"d1-r0"}
        assert not [span for span in spans if span.kind == SERVER and span.status.code == ERROR]

    asyncio.run(main())


def test_what_breaks_off_is_an_error(tmp_path: Path, receiver: Receiver) -> None:
    """Of the attempt and of the request; a refusal of the engine is none of the gateway's."""

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address), tracing=traced()) as served,
        ):
            engine.script = Script(chunks=5, die_after=2)
            async with served.client.stream("POST", URL, json=CHAT | {"stream": True}) as answer:
                assert not (await pieces_of(answer))[1]
            engine.script = Script(refuse=400)
            assert (await served.client.post(f"{BASE}:predict", json={"instances": ["x"]})).status_code == 400
        broken, _, cut, refused, _, refusal = receiver.spans(2)
        for span in (broken, cut):
            assert (span.status.code, attributes(span)["error.type"]) == (ERROR, "ENGINE_BROKE_OFF")
        assert (refused.status.code, attributes(refused)["error.type"]) == (0, "ENGINE_REFUSED")
        assert (refusal.status.code, attributes(refusal)["error.type"]) == (ERROR, "400")

    asyncio.run(main())


def test_counting_a_prompt_is_shown(tmp_path: Path, receiver: Receiver) -> None:
    """Where a key has a limit of tokens: the time it takes, and the engine that was asked."""

    async def main() -> None:
        limited = msgspec.structs.replace(key(KEY), limits=KeyLimits(tokens_per_minute=10**6))
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address), tracing=traced()) as served,
        ):
            await served.push(snapshot(deployed(engine.address), generation=2, keys=(limited, *KEYS[1:])))
            assert (await served.client.post(URL, json=CHAT)).status_code == 200
        names = [span.name for span in receiver.spans(1)]
        assert names[1:] == ["count the prompt's tokens", "POST /tokenize", "wait for a turn", "chat served"]

    asyncio.run(main())


@pytest.mark.parametrize("trouble", ["nobody there", "no answer"])
def test_trouble_with_the_receiver_is_nobody_elses(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Requests are answered, and the gateway ends."""
    if trouble == "nobody there":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    else:
        receiver.mute.set()
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")

    async def main() -> None:
        async with (
            StandIn(tmp_path / "e") as engine,
            gateway_before(tmp_path, deployed(engine.address), tracing=traced()) as served,
        ):
            for _ in range(20):
                assert (await served.client.post(URL, json=CHAT)).status_code == 200

    asyncio.run(main())


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_opentelemetrys_own_variables_decide(environ: dict[str, str], on: bool) -> None:
    """Without any there is no tracing."""
    assert wanted(environ) is on
    if not on:
        assert start_tracing("", dict(environ)) is None


def test_an_option_decides_over_the_environment(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is where spans go, to the letter."""
    assert available()
    for name, value in (("TRACES_EXPORTER", "none"), ("SDK_DISABLED", "true"), ("EXPORTER_OTLP_TRACES_ENDPOINT", "x")):
        monkeypatch.setenv(f"OTEL_{name}", value)
    tracing: Any = start_tracing(f"{receiver.url}/v1/traces")
    assert tracing is not None
    tracing._tracer.start_span("hello").end()
    tracing.close()
    assert [span.name for span in receiver.spans(1, kind=INTERNAL)] == ["hello"]


def test_what_is_off_is_not_loaded() -> None:
    """Neither OpenTelemetry nor what writes Parquet, by a gateway that does without."""
    code = "import sys, headrace.server.gateway; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"opentelemetry", "pyarrow", "requests"} & set(loaded)
