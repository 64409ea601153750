"""The promises of vLLM's own server behind our gate that no other engine has to make."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from engine_launch import MODEL_NAME, TOKEN, folder_for
from engine_process import EngineProcess, chat_body, completion_body, start_engine

from headrace.node.probe import EngineProbe
from headrace.runtimes import find

pytestmark = pytest.mark.engines("vllm")


def test_vllms_own_routes_are_closed(engine: EngineProcess) -> None:
    """Those that it leaves without a token have ours, and those for its operators are not there."""
    stranger = engine.new_client(token="somebody-else")
    for path in ("/metrics", "/version", "/v1/models"):
        assert engine.client.get(path).status_code == 200
        assert stranger.get(path).status_code == 401
    for path in ("/invocations", "/inference/v1/generate", "/scale_elastic_ep", "/v1/responses"):
        assert engine.client.post(path, json={}).status_code == 404
    assert engine.client.get("/load").status_code == 404


def test_the_nodes_probe_takes_it_as_it_takes_ours(engine: EngineProcess) -> None:
    """Healthy, and warm after a whole streamed generation."""

    async def probed() -> int:
        probe = EngineProbe(engine.uds, engine.token, MODEL_NAME, timeout_s=5)
        await probe.until_healthy()
        warmup = await probe.warm_up(1024)
        await probe.close()
        return warmup.output_tokens

    assert asyncio.run(probed()) == 16


def test_a_completion_that_does_not_fit_is_refused_and_not_shortened(engine: EngineProcess) -> None:
    """vLLM alone would answer 200 with fewer tokens; the excess is exact."""
    model = engine.client.get("/v1/models").json()["data"][0]
    prompt_tokens = len(engine.tokens("The river"))
    room = model["max_model_len"] - prompt_tokens
    refused = engine.client.post("/v1/completions", json=completion_body("The river", max_tokens=room + 3))
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert ": 3 too many." in refused.json()["error"]["message"]


def test_older_names_of_structured_outputs_are_honoured(engine: EngineProcess) -> None:
    """vLLM 0.32 ignores them without a word."""
    assert engine.text("Is water wet?", guided_choice=["yes", "no"], max_tokens=8) in {"yes", "no"}


def test_a_picture_for_a_model_of_text_is_refused_and_one_from_the_network_is_not_fetched(
    engine: EngineProcess,
) -> None:
    """The first by vLLM, who knows the model; the second before it could."""
    for url, said in (
        ("data:image/png;base64,iVBORw0KGgo=", "not a multimodal model"),
        ("http://127.0.0.1/x", "data:"),
    ):
        content = [{"type": "image_url", "image_url": {"url": url}}]
        body = chat_body("") | {"messages": [{"role": "user", "content": content}]}
        refused = engine.client.post("/v1/chat/completions", json=body)
        assert refused.status_code == 400
        assert said in refused.json()["error"]["message"]


@pytest.fixture(name="own", scope="module")
def fixture_own() -> Iterator[EngineProcess]:
    """A server of this file's own, to be ended; its deployment may scale to zero."""
    with start_engine(folder_for("vllm"), engine="vllm", token=TOKEN, may_sleep=True) as running:
        running.wait_ready()
        yield running


def test_on_a_cpu_it_is_not_started_to_sleep(own: EngineProcess) -> None:
    """Sleep mode is not offered, also to what may scale to zero: no route of it is there, and it goes on answering."""
    assert find("vllm").sleep_mode is None
    for method, path in (("POST", "/sleep"), ("POST", "/wake_up"), ("GET", "/is_sleeping")):
        assert own.client.request(method, path).status_code == 404
    assert own.client.post("/collective_rpc", json={"method": "sleep"}).status_code == 404
    assert own.text("The river", max_tokens=4)


def test_on_a_cpu_vllm_refuses_to_sleep() -> None:
    """That it is not offered is vLLM's own word: told to, it does not start."""
    with start_engine(folder_for("vllm"), "--enable-sleep-mode", engine="vllm", token=TOKEN) as running:
        assert running.process.wait(120) != 0
        assert "Sleep mode is not supported on current platform." in running.log.read_text(encoding="utf-8")


def test_sigterm_lets_a_stream_finish_and_leaves_no_process_file_or_shared_memory(own: EngineProcess) -> None:
    """All that was started is gone when the first process is, and the answer under way came whole."""
    family = _family(own.process.pid)
    assert len(family) >= 4  # the launcher, the server, its engine core and a worker
    held = _shared_memory(family)
    assert held
    body = completion_body("The river", max_tokens=24, ignore_eos=True, stream_options={"include_usage": True})
    events = own.stream("/v1/completions", body)
    first = next(events)
    own.process.send_signal(signal.SIGTERM)
    rest = list(events)
    assert first["choices"]
    assert rest[-1]["usage"]["completion_tokens"] == 24
    assert own.process.wait(60) == 0
    assert not [pid for pid in family if _family(pid)]
    assert not own.uds.exists()
    assert not [path for path in held if path.exists()]
    with pytest.raises(httpx.TransportError):
        own.client.get("/health")


def _family(pid: int) -> set[int]:
    """A living process and its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] not in "ZX":
                parents[int(entry.name)] = int(fields[1])
    family = {pid} & parents.keys()
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _shared_memory(pids: set[int]) -> set[Path]:
    """The named shared memory that these processes have mapped."""
    maps = [Path(f"/proc/{pid}/maps").read_text(encoding="utf-8") for pid in pids]
    lines = [line for text in maps for line in text.splitlines() if " /dev/shm/" in line]
    return {Path(line[line.index("/dev/shm/") :].removesuffix(" (deleted)")) for line in lines if "psm_" in line}
