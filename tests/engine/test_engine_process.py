"""The engine as a process: its start, its places, its token, its end."""

import json
import re
import signal
import socket
import threading
from http.client import HTTPConnection

import httpx
import pytest
from engine_launch import OURS, folder_for
from engine_process import EngineProcess, chat_body, read_events, start_engine

from headrace_engines.serving.app import PUBLIC_ROUTES, ROUTES

LONG = {"max_tokens": 4000, "ignore_eos": True}

EACH_OF_OURS = pytest.mark.parametrize("name", OURS)
"""What our own shell promises of its process: tried on every engine behind it."""


def running(engine: EngineProcess) -> float:
    """How many requests are being computed."""
    return engine.metric("vllm:num_requests_running")


@EACH_OF_OURS
def test_health_turns_200_only_after_a_token(name: str) -> None:
    """The listener is up while the weights load and says so; nothing else is answered before."""
    with start_engine(folder_for(name), engine=name) as engine:
        engine.wait_until(lambda: engine.health() is not None, "the engine listens")
        assert engine.health() == (503, "loading")
        refused = engine.client.post("/v1/chat/completions", json=chat_body("Hi"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_loading")
        assert refused.headers["Retry-After"]
        engine.wait_ready()
        assert engine.chat("Hi", max_tokens=1)["usage"]["completion_tokens"] == 1


def hang_up_on_a_long_stream(engine: EngineProcess) -> None:
    """Leave once the engine works on it, thousands of tokens before its end."""
    with engine.new_client() as client:
        request = chat_body("Tell me a story.", stream=True, **LONG)
        with client.stream("POST", "/v1/chat/completions", json=request) as response:
            lines = response.iter_lines()  # httpx closes the response with the last reference to this
            next(lines)
            engine.wait_until(lambda: running(engine) == 1, "it runs", timeout_s=20)


def test_a_stream_that_is_hung_up_frees_its_place(engine: EngineProcess) -> None:
    """Work for nobody stops at the next step: of thousands of tokens hardly any comes after it."""
    engine.wait_idle()
    hang_up_on_a_long_stream(engine)
    made = engine.metric("vllm:generation_tokens_total")
    engine.wait_idle()
    assert engine.metric("vllm:generation_tokens_total") - made < LONG["max_tokens"] / 20


@pytest.mark.engines(*OURS)  # vLLM forgets an aborted request before its metrics would count it
def test_who_hangs_up_is_counted_as_aborted(engine: EngineProcess) -> None:
    """The metrics tell how many answers nobody waited for."""

    def aborted() -> float:
        return engine.metric("vllm:request_success_total", finished_reason="abort")

    before = aborted()
    hang_up_on_a_long_stream(engine)
    engine.wait_until(lambda: aborted() == before + 1, "counted", timeout_s=20)


def test_a_client_that_waits_for_the_whole_and_leaves_frees_its_place(engine: EngineProcess) -> None:
    """The same without streaming, where nothing was sent yet."""
    with engine.new_client(timeout_s=0.5) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=chat_body("Tell me a story.", **LONG))
    engine.wait_idle()


def test_metrics_count_what_was_done(engine: EngineProcess) -> None:
    """Prompt and generated tokens, ends and times grow by what one request did."""
    engine.wait_idle()

    def counts() -> list[float]:
        return [
            engine.metric("vllm:prompt_tokens_total"),
            engine.metric("vllm:generation_tokens_total"),
            engine.metric("vllm:request_success_total", finished_reason="length"),
            engine.metric("vllm:time_to_first_token_seconds_count"),
            engine.metric("vllm:inter_token_latency_seconds_count"),
        ]

    # Steps are counted in their order: once this request is, so is whoever hung up before it.
    ends = counts()[2]
    engine.chat("Hi", max_tokens=1, ignore_eos=True)
    engine.wait_until(lambda: counts()[2] > ends, "the first request is counted", timeout_s=20)
    before = counts()
    usage = engine.chat("Hi", max_tokens=6, ignore_eos=True)["usage"]
    expected = [was + more for was, more in zip(before, [usage["prompt_tokens"], 6, 1, 1, 5], strict=True)]
    engine.wait_until(lambda: counts() == expected, f"the counts are {expected}", timeout_s=20)


OF_DASHBOARDS = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:prompt_tokens_total": "counter",
    "vllm:generation_tokens_total": "counter",
    "vllm:request_success_total": "counter",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:request_queue_time_seconds": "histogram",
    "vllm:request_prefill_time_seconds": "histogram",
    "vllm:request_decode_time_seconds": "histogram",
    "vllm:request_inference_time_seconds": "histogram",
    "vllm:request_prompt_tokens": "histogram",
    "vllm:request_generation_tokens": "histogram",
}
"""What dashboards made for vLLM ask for, and of which kind it is."""


def test_metrics_are_vllms_own(engine: EngineProcess) -> None:
    """What dashboards need is in vLLM's own metrics under these names, and ours have them all and no other."""
    kinds = re.findall(r"^# TYPE (vllm:\S+) (\w+)$", engine.client.get("/metrics").text, re.MULTILINE)
    shown = {name: kind for name, kind in kinds if not name.endswith("_created")}
    if engine.name in OURS:
        assert shown == OF_DASHBOARDS
    assert OF_DASHBOARDS.items() <= shown.items()


def test_the_phases_of_a_request_are_timed(engine: EngineProcess) -> None:
    """A request that was answered has waited, read its prompt and written, and all that within its whole time."""
    names = [f"vllm:request_{phase}_time_seconds" for phase in ("queue", "prefill", "decode", "inference")]
    names.append("vllm:e2e_request_latency_seconds")

    def seen(what: str) -> list[float]:
        return [engine.metric(f"{name}_{what}") for name in names]

    engine.wait_idle()
    counts, sums = seen("count"), seen("sum")
    engine.chat("Hi", max_tokens=6, ignore_eos=True)
    engine.wait_until(lambda: seen("count") == [count + 1 for count in counts], "each is counted once", timeout_s=20)
    queue, prefill, decode, inference, whole = (now - was for now, was in zip(seen("sum"), sums, strict=True))
    assert min(queue, prefill, decode) >= 0
    assert abs(prefill + decode - inference) < 0.001 * max(1.0, inference)
    assert queue + inference <= whole + 0.001


@EACH_OF_OURS
def test_a_full_waiting_room_says_429(name: str) -> None:
    """One place to run and one to wait: the third is refused with Retry-After, and a place freed is a place given.

    vLLM's waiting room has no bound; before it stands the gateway's, which has one.
    """
    with start_engine(folder_for(name), "--max-running", "1", "--max-waiting", "1", engine=name) as engine:
        engine.wait_ready()
        body = chat_body("Tell me a story.", stream=True, **LONG)
        with engine.new_client() as client, client.stream("POST", "/v1/chat/completions", json=body) as first:
            lines = first.iter_lines()  # httpx closes the response with the last reference to this
            next(lines)
            waiter = threading.Thread(target=lambda: engine.new_client().post("/v1/chat/completions", json=WAITING))
            waiter.start()
            engine.wait_until(lambda: engine.metric("vllm:num_requests_waiting") == 1, "one waits", timeout_s=20)
            refused = engine.client.post("/v1/chat/completions", json=chat_body("Hi"))
            assert refused.status_code == 429
            assert int(refused.headers["Retry-After"]) >= 1
            assert refused.json()["error"]["code"] == "queue_full"
        waiter.join(60)
        assert not waiter.is_alive()
        assert engine.chat("Hi", max_tokens=1)["usage"]["completion_tokens"] == 1


WAITING = chat_body("Hi", max_tokens=2)


@EACH_OF_OURS
def test_sigterm_finishes_what_runs_and_exits_with_0(name: str) -> None:
    """A stream that is being read goes on to its end; no new connection is taken; the socket's file is gone."""
    with start_engine(folder_for(name), engine=name) as engine:
        engine.wait_ready()
        body = chat_body("Tell me a story.", max_tokens=60, ignore_eos=True, stream=True)
        with engine.new_client() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
            events = read_events(response)
            chunks = [next(events), next(events)]
            engine.process.send_signal(signal.SIGTERM)
            engine.client.close()
            late = engine.new_client()
            engine.wait_until(lambda: not answers(late), "nothing new is accepted", timeout_s=20)
            chunks += list(events)
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        assert engine.process.wait(30) == 0
        assert not engine.uds.exists()


def answers(client: httpx.Client) -> bool:
    """Whether a new connection gets an answer."""
    try:
        client.get("/health", headers={"Connection": "close"})
    except httpx.TransportError:
        return False
    return True


@EACH_OF_OURS
def test_sigterm_while_loading_ends_it_at_once(name: str) -> None:
    """Nobody waits for weights that nobody wants any more."""
    with start_engine(folder_for(name), engine=name) as engine:
        engine.wait_until(lambda: engine.health() is not None, "the engine listens")
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(20) == 0


def strangers(token: str) -> list[httpx.Headers]:
    """Callers who do not have the token: who say nothing, something else, or it in another form."""
    values = ("Bearer wrong", token, f"Bearer {token}2", f"bearer {token}")
    return [httpx.Headers(), *(httpx.Headers({"Authorization": value}) for value in values)]


def test_every_route_but_the_public_ones_needs_the_token(engine: EngineProcess) -> None:
    """Deny by default: each route, each method, and paths that do not exist."""
    walked = [(method, route.path) for route in ROUTES for method in sorted(route.methods or ())]
    assert PUBLIC_ROUTES.keys() <= set(walked)
    with engine.new_client() as client:
        del client.headers["Authorization"]
        for method, path in [*walked, ("GET", "/nowhere"), ("GET", "/health/"), ("POST", "/health")]:
            public = (method, path) in PUBLIC_ROUTES
            for headers in strangers(engine.token)[: 1 if public else None]:
                response = client.request(method, path, headers=headers)
                assert response.status_code == (200 if public else 401), (method, path, headers)
                if not public and method != "HEAD":
                    assert response.json()["error"]["code"] == "invalid_api_key"


def test_a_connection_serves_one_request_after_another(engine: EngineProcess) -> None:
    """HTTP/1.1 keep-alive: two requests travel over one connection."""
    connection = HTTPConnection("engine")
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.connect(str(engine.uds))
        for _ in range(2):
            connection.request("GET", "/version", headers={"Authorization": f"Bearer {engine.token}"})
            response = connection.getresponse()
            assert response.status == 200
            assert json.loads(response.read())["version"]
