"""The load of a drill, and the drill itself, against a server with a script."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from cli_server import Answer, ScriptedServer, chunk, google_error, serving, sse

from headrace.cli.app import run
from headrace.cli.client import Client
from headrace.cli.contexts import Login
from headrace.cli.drill.load import Load, Requester
from headrace.cli.drill.outcomes import Outcome, Sample
from headrace.cli.drill.target import NotRun, Target, resized, second_of
from headrace.resources.errors import BadField

SCOPE = "projects/default/locations/us-central1"
PATH = f"/v1/{SCOPE}/endpoints/7/chat/completions"
ASK = f"POST {PATH}"
ANSWER = {"choices": [{"message": {"content": "One"}, "finish_reason": "stop"}]}


def _login(url: str) -> Login:
    return Login(url, "hr-test", "default", "us-central1", "a test")


def _well(body: Any) -> Answer:
    """What a server that is well answers."""
    return sse(chunk("One"), chunk("", "stop")) if body.get("stream") else (200, ANSWER)


@pytest.fixture
def server(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server that commands find by the environment; nothing of it runs on this machine's data directory."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    with serving() as scripted:
        monkeypatch.setenv("HEADRACE_URL", scripted.url)
        scripted.answers[ASK] = _well
        yield scripted


def _send(url: str, *, stream: bool, deadline_s: float = 30.0) -> Sample:
    requester = Requester(_login(url), PATH, {"model": "7", "messages": []}, deadline_s=deadline_s)
    try:
        return requester.send(stream=stream, begins=lambda: None)
    finally:
        requester.close()


def test_half_of_a_steady_load_are_streams_and_each_is_counted(server: ScriptedServer) -> None:
    """Every request that the server got is a sample, sent once."""
    requester = Requester(_login(server.url), PATH, {"model": "7", "messages": []}, deadline_s=30)
    enough = threading.Event()

    def answer(body: Any) -> Answer:
        if len(server.asked(ASK)) >= 6:
            enough.set()
        return _well(body)

    server.answers[ASK] = answer
    with Load(requester, rate_per_s=50) as load:
        assert enough.wait(30)
    requester.close()
    asked = server.asked(ASK)
    assert Counter(one.stream for one in load.samples) == Counter(body["stream"] for body in asked)
    assert abs(sum(one.stream for one in load.samples) * 2 - len(asked)) <= 1
    assert {(one.outcome, one.reason) for one in load.samples} == {(Outcome.WHOLE, "")}
    assert all(one.waited_s > 0 for one in load.samples)


@pytest.mark.parametrize("stream", [True, False])
def test_what_the_server_says_is_what_is_counted(server: ScriptedServer, stream: bool) -> None:
    """A full queue is a refusal; an answer of 5xx is a loss, before a stream as well."""
    full = {"error": {"message": "Full.", "code": "QUEUE_FULL"}}
    server.answers[ASK] = (429, full)
    assert _send(server.url, stream=stream).outcome is Outcome.REFUSED
    server.answers[ASK] = (503, {"error": {"message": "None.", "code": "NOT_READY"}})
    lost = _send(server.url, stream=stream)
    assert (lost.outcome, lost.reason) == (Outcome.LOST, "503 NOT_READY None.")


def test_a_stream_that_ends_too_soon_is_told_from_one_that_says_why(server: ScriptedServer) -> None:
    """Without [DONE] it is lost; with an error event it is broken off."""
    server.answers[ASK] = sse(chunk("One"), done=False)
    assert _send(server.url, stream=True).outcome is Outcome.LOST
    server.answers[ASK] = sse(chunk("One"), {"error": {"message": "It died.", "code": "ENGINE_BROKE_OFF"}}, done=False)
    assert _send(server.url, stream=True).outcome is Outcome.BROKEN


@pytest.mark.parametrize("stream", [True, False])
def test_who_hangs_up_or_is_not_there_loses_the_request(stream: bool) -> None:
    """A connection that is refused, and one that is closed without a word."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def hang_up() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    sample = _send(url, stream=stream)
    thread.join()
    listener.close()
    assert sample.outcome is Outcome.LOST
    assert sample.reason
    assert _send(url, stream=stream).outcome is Outcome.LOST


@pytest.mark.parametrize("stream", [True, False])
def test_who_never_answers_loses_the_request_at_the_deadline(stream: bool) -> None:
    """It is not waited for without end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        sample = _send(url, stream=stream, deadline_s=0.2)
    assert sample.outcome is Outcome.LOST
    assert sample.reason.startswith("hung")


class Pool:
    """What a control plane would say of endpoint 7, its deployment and a second one, and do at once.

    Attributes:
        room: How many replicas find room.
    """

    def __init__(self, server: ScriptedServer, *, replicas: int = 1) -> None:
        self.least, self.most, self.room = replicas, replicas, 9
        self.changes: list[dict[str, Any]] = []
        self.bound = {"70": ("9", 100)}
        self.models = {"9"}
        self._server = server
        answers = server.answers
        answers[f"GET /v1beta1/{SCOPE}/endpoints"] = lambda _: (200, {"endpoints": [self._endpoint()]})
        answers[f"GET /v1beta1/{SCOPE}/endpoints/7"] = lambda _: (200, self._endpoint())
        answers["GET /headrace/v1/deployments/8"] = lambda _: (200, self._deployment())
        answers["PATCH /headrace/v1/deployments/8"] = self._resize
        answers["PATCH /headrace/v1/endpoints/7"] = self._split
        answers["POST /headrace/v1/deployments"] = self._deploy
        answers[f"POST /v1beta1/{SCOPE}/endpoints/7:undeployModel"] = self._undeploy
        answers["GET /headrace/v1/operations/1"] = (200, {"id": "1", "done": True, "state": "SUCCEEDED"})
        version = {"model_id": "9", "version": "1", "artifact_uri": "gs://bucket/m"}
        answers["POST /headrace/v1/rollouts"] = self._roll_out
        answers["GET /headrace/v1/rollouts/5"] = (200, {"id": "5", "state": "PROMOTED"})
        answers["GET /headrace/v1/models"] = (200, {"models": [{"versions": [version]}]})

    def target(self) -> Target:
        """The endpoint as a drill finds it."""
        return Target(Client(_login(self._server.url)), self._endpoint(), patience_s=30)

    def _endpoint(self) -> dict[str, Any]:
        deployed = [
            {"id": name, "model": f"{SCOPE}/models/{model}", "headrace": {"state": "READY", "deployment": "d/8"}}
            for name, (model, _) in self.bound.items()
        ]
        split = {name: share for name, (_, share) in self.bound.items() if share}
        name = f"{SCOPE}/endpoints/7"
        return {"name": name, "displayName": "rivers", "deployedModels": deployed, "trafficSplit": split}

    def _deployment(self) -> dict[str, Any]:
        names = [f"r{number}" for number in range(min(self.least, self.room))]
        return {
            "id": "8",
            "state": "READY",
            "model_id": "9",
            "model_version": "1",
            "runtime": "openvino",
            "max_model_len": 512,
            "min_replicas": self.least,
            "max_replicas": self.most,
            "wanted_replicas": self.least,
            "spec": {"dtype": "float32"},
            "timeline": [{"state": "READY", "at": 1.0, "detail": "No room."}],
            "replicas": [{"id": name, "state": "READY", "epoch": 1, "pid": 0, "failure": None} for name in names],
        }

    def _resize(self, body: dict[str, Any]) -> Answer:
        self.changes.append(body)
        self.least = body["min_replicas"]
        self.most = body["max_replicas"]
        return 200, self._deployment()

    def _split(self, body: dict[str, Any]) -> Answer:
        assert sum(body["traffic"].values()) == 100
        self.bound = {name: (model, body["traffic"].get(name, 0)) for name, (model, _) in self.bound.items()}
        return 200, {}

    def _deploy(self, body: dict[str, Any]) -> Answer:
        self.bound["71"] = (body["model_id"], 0)
        if not body["no_traffic"]:
            self._split({"traffic": {"71": 100}})
        self.models.add(body["model_id"])
        self._server.answers[f"DELETE /v1beta1/{SCOPE}/models/{body['model_id']}"] = self._forget
        return 200, {"id": "1"}

    def _roll_out(self, body: dict[str, Any]) -> Answer:
        self._split({"traffic": {body["deployed_model_id"]: 100}})
        return 200, {"id": "5", "state": "RUNNING"}

    def _undeploy(self, body: dict[str, Any]) -> Answer:
        del self.bound[body["deployedModelId"]]
        self._split({"traffic": body["trafficSplit"]})
        return 200, {"name": f"{SCOPE}/operations/1"}

    def _forget(self, _body: Any) -> Answer:
        self.models = {"9"}
        return 200, {"name": f"{SCOPE}/operations/1"}


def _as_found(pool: Pool) -> bool:
    return (pool.least, pool.most, pool.bound, pool.models) == (1, 1, {"70": ("9", 100)}, {"9"})


def test_a_server_elsewhere_is_drilled_through_its_api_and_left_as_it_was(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """What needs its processes is listed with the reason; all the rest runs, and everything is put back."""
    pool = Pool(server)
    assert run(["drill", "rivers", "--seconds", "1", "--rate", "10", "--yes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    faults = {each["fault"]: each for each in told["faults"]}
    of_processes = {"gateway-restart", "control-kill", "node-kill", "replica-crash"}
    assert {name for name, each in faults.items() if each["not_run"]} == of_processes
    assert all("no server of this user runs" in faults[name]["not_run"] for name in of_processes)
    assert set(faults) - of_processes == {"scale-down", "new-version", "canary", "undeploy"}
    assert not any(each["failed"] for each in faults.values())
    assert told["total"]["lost"] == 0
    assert told["total"]["requests"] == sum(each["tally"]["requests"] for each in faults.values()) > 0
    assert _as_found(pool)


def test_a_loss_is_exit_code_1_and_its_reason_is_told(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Requests that fail while a replica goes are counted, and said in the last line."""
    pool = Pool(server, replicas=2)

    def answer(body: Any) -> Answer:
        return (503, {"error": {"message": "None.", "code": "NOT_READY"}}) if pool.least == 1 else _well(body)

    server.answers[ASK] = answer
    assert run(["drill", "rivers", "--only", "scale-down", "--seconds", "1", "--rate", "10", "--yes"]) == 1
    out = capsys.readouterr().out
    assert "503 NOT_READY None." in out
    last = out.strip().splitlines()[-1]
    assert " requests, " in last
    assert " streams, " in last
    assert " 0 lost" not in last
    assert (pool.least, pool.most) == (2, 2)


def test_nothing_is_done_to_a_server_that_loses_requests_by_itself(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then no fault could be told from what was so before."""
    pool = Pool(server)

    def answer(body: Any) -> Answer:
        return sse(chunk("One"), done=False) if body.get("stream") else (200, ANSWER)

    server.answers[ASK] = answer
    assert run(["drill", "rivers", "--only", "scale-down", "--seconds", "1", "--yes"]) == 1
    assert "requests are lost without a fault already" in capsys.readouterr().out
    assert pool.changes == []


def test_it_asks_first_and_says_what_it_cannot_drill(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --yes and nobody to ask it does nothing; an endpoint with nothing READY is exit code 5."""
    pool = Pool(server)
    assert run(["drill", "rivers"]) == 2
    assert run(["drill", "rivers", "--only", "earthquake", "--yes"]) == 2
    assert server.asked(ASK) == []
    pool.bound = {}
    assert run(["drill", "rivers", "--yes"]) == 5
    assert "Nothing on endpoint 7 is READY" in capsys.readouterr().err


def test_an_interrupted_change_of_replicas_is_put_back(server: ScriptedServer) -> None:
    """Ctrl-C in the middle of it: both bounds are as they were."""
    pool = Pool(server)

    def interrupted() -> None:
        with resized(pool.target(), 2) as number:
            assert (number, pool.least, pool.most) == (2, 2, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert _as_found(pool)


def test_no_room_for_a_second_replica_is_a_reason_and_no_failure(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server says about it is the reason; the wish for it is taken back."""
    monkeypatch.setattr("headrace.cli.drill.target.PLACING_S", 0.1)
    pool = Pool(server)
    pool.room = 1
    with pytest.raises(NotRun, match=r"no second replica was placed: No room\."), resized(pool.target(), 2):
        raise AssertionError("there is no room")
    assert _as_found(pool)


def test_an_interrupted_second_deployment_leaves_nothing(server: ScriptedServer) -> None:
    """Ctrl-C while both share the traffic: it is undeployed, its model forgotten, and the traffic as it was."""
    pool = Pool(server)

    def interrupted() -> None:
        with second_of(pool.target()) as second:
            second.deploy()
            assert pool.bound == {"70": ("9", 0), "71": (second.model_id, 100)}
            second.share(50)
            assert pool.bound == {"70": ("9", 50), "71": (second.model_id, 50)}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert _as_found(pool)
    (deployed,) = server.asked("POST /headrace/v1/deployments")
    assert deployed["artifact_uri"] == "gs://bucket/m"
    assert (deployed["dtype"], deployed["runtime"], deployed["max_model_len"]) == ("float32", "openvino", 512)
    assert (deployed["endpoint_id"], deployed["project"]) == ("7", "default")


def test_a_second_deployment_without_room_is_a_reason_and_no_failure(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands before its first replica; the drill takes it back and says what the server said."""
    monkeypatch.setattr("headrace.cli.drill.target.PLACING_S", 0.1)
    pool = Pool(server)
    waiting = {
        "id": "1",
        "done": False,
        "state": "RUNNING",
        "deployment": {"state": "PLACING"},
        "timeline": [{"state": "PLACING", "at": 1.0, "detail": "No room."}],
    }
    done = server.answers["GET /headrace/v1/operations/1"]
    server.answers["GET /headrace/v1/operations/1"] = lambda _: (200, waiting) if "71" in pool.bound else done
    with pytest.raises(NotRun, match=r"was placed: No room\."), second_of(pool.target()) as second:
        second.deploy()
    assert _as_found(pool)


def test_a_refused_second_deployment_leaves_nothing(server: ScriptedServer) -> None:
    """The server's refusal is what is told; there is no model to forget."""
    pool = Pool(server)
    server.answers["POST /headrace/v1/deployments"] = (400, google_error(400, "BAD_FIELD", "No."))

    def refused() -> None:
        with second_of(pool.target()) as second:
            missing = google_error(404, "MODEL_NOT_FOUND", "There is no model.")
            server.answers[f"DELETE /v1beta1/{SCOPE}/models/{second.model_id}"] = (404, missing)
            second.deploy()

    with pytest.raises(BadField):
        refused()
    assert _as_found(pool)
