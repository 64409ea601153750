"""Quickstart's parts: the gap report, progress without a terminal, the streamed answer, the child's port."""

import fcntl
import json
import subprocess
import sys
import threading

import pytest
from cli_server import chunk, google_error, serving, sse

from headrace.cli.client import Client
from headrace.cli.contexts import Login
from headrace.cli.output import Output
from headrace.cli.phases import Phases
from headrace.cli.progress import Steps
from headrace.cli.quickstart.answer import streamed_answer, three_commands
from headrace.cli.quickstart.demo import ensure_deployed
from headrace.cli.quickstart.machine import require_no_gaps
from headrace.cli.quickstart.server import answering_server
from headrace.hardware.preflight import Gap
from headrace.resources.errors import AnswerNotStreamed, MachineGaps
from headrace.weights.demo import demo_model_dir

CHAT = "POST /v1/chat/completions"


@pytest.fixture
def server():
    """A scripted server."""
    with serving() as scripted:
        yield scripted


def _client(server):
    return Client(Login(server.url, "hr-test", "default", "us-central1", "the test"))


def test_all_gaps_are_named_at_once(tmp_path):
    """A machine with two gaps hears of both, each with its fix, before anything is installed."""
    gaps = [Gap("4 GB of disk", "1 GB free", "free some"), Gap("memory", "1 GB in all", "use a larger machine")]
    with pytest.raises(MachineGaps) as caught:
        require_no_gaps(tmp_path, lambda _folder: gaps)
    assert caught.value.evidence.splitlines() == ["4 GB of disk: 1 GB free", "memory: 1 GB in all"]
    assert caught.value.fix.splitlines() == ["4 GB of disk: free some", "memory: use a larger machine"]


def test_no_gaps_no_words(tmp_path):
    """A machine that has everything goes on."""
    require_no_gaps(tmp_path, lambda _folder: [])


def test_plain_progress_has_elapsed_seconds(capsys):
    """Without a terminal each step says when it begins, how far it is every few seconds, and how long it took."""
    now = iter([0.0, 1.0, 1.0, 1.0, 2.0, 9.0, 9.0, 9.0, 10.0, 10.0, 10.0, 10.0])
    steps = Steps(Output(as_json=False), clock=lambda: next(now))
    with steps.step("Model") as step:
        step.progress("too soon")
        step.progress("half")
        step.result = "there"
    out = capsys.readouterr().out
    assert "Model …" in out
    assert "too soon" not in out
    assert "Model: half" in out
    assert "Model: there (9.0 s)" in out


def test_phases_show_the_seconds_of_each():
    """A phase is shown when it ends; the same timeline again shows nothing twice."""
    lines = []
    phases = Phases(lines.append)
    timeline = [
        {"state": "STAGING", "at": 1.0, "detail": ""},
        {"state": "STAGING", "at": 2.0, "detail": "half"},
        {"state": "STARTING", "at": 4.0, "detail": ""},
    ]
    phases.update(timeline)
    phases.update(timeline)
    assert [line.split() for line in lines] == [["STAGING", "3.0", "s", "half"]]
    assert phases.current == "STARTING"


def test_the_end_of_staging_tells_all_that_was_said_in_it():
    """Also where one look sees several moves: the reason of the runtime's choice is not lost behind what was found."""
    lines = []
    details = ("Served by openvino: it is the fastest.", "Copying.", "The converted copy is here.")
    moves = [{"state": "STAGING", "at": float(at), "detail": detail} for at, detail in enumerate(details)]
    Phases(lines.append).update([*moves, {"state": "PLACING", "at": 3.0, "detail": ""}])
    assert [line.split(maxsplit=3)[-1] for line in lines] == [f"{details[0]} {details[2]}"]


def test_starting_tells_how_long_it_lasts_and_what_was_expected():
    """No line is like the one before it, and a person knows whether to wait."""
    now = iter([0.0, 0.5, 10.0, 20.0])
    phases = Phases([].append, clock=lambda: next(now))
    phases.update([{"state": "STARTING", "at": 1.0, "detail": ""}])
    assert phases.current == "STARTING"
    phases.expect(55.3)
    assert phases.current == "STARTING for 10 s, expected to take about 55 s"
    assert phases.current == "STARTING for 20 s, expected to take about 55 s"


def test_what_was_over_before_it_was_asked_for_is_nothing_new():
    """Whoever undeploys what ran for weeks is shown how that goes, and not the weeks."""
    lines = []
    phases = Phases(lines.append)
    weeks = [
        {"state": "STARTING", "at": 1.0, "detail": ""},
        {"state": "READY", "at": 5.0, "detail": ""},
        {"state": "PLACING", "at": 50.0, "detail": "Its replicas are lost."},
        {"state": "READY", "at": 60.0, "detail": "Replicas from now on: 2."},
    ]
    phases.update(weeks, since=100.0)
    phases.update([*weeks, {"state": "DRAINING", "at": 100.5, "detail": ""}], since=100.0)
    phases.update(
        [*weeks, {"state": "DRAINING", "at": 100.5, "detail": ""}, {"state": "GONE", "at": 102.0, "detail": ""}],
        since=100.0,
    )
    assert lines == ["DRAINING     1.5 s", "GONE"]


def test_a_phase_that_is_over_tells_no_progress():
    """Of copying remains how much it was, not how far it had come when it was last seen."""
    lines = []
    details = ("Copying.", "Copying: 0.00 GiB of 0.25 GiB.", "Copying: 0.20 GiB of 0.25 GiB, 85 MiB/s.")
    moves = [{"state": "STAGING", "at": float(at), "detail": detail} for at, detail in enumerate(details)]
    Phases(lines.append).update([*moves, {"state": "PLACING", "at": 3.0, "detail": ""}])
    assert [line.split(maxsplit=3)[-1] for line in lines] == ["0.25 GiB copied."]
    opening = {"state": "STAGING", "at": 0.0, "detail": "0.25 GiB of files; runtime transformers."}
    Phases(lines.append).update([opening, *moves, {"state": "PLACING", "at": 3.0, "detail": ""}])
    assert lines[-1].endswith("0.25 GiB of files; runtime transformers.")


def test_the_answer_is_shown_piece_by_piece(server, capsys):
    """The streamed answer is printed and measured."""
    server.answers[CHAT] = sse(chunk("It "), chunk("bends."))
    with _client(server) as client:
        stats = streamed_answer(client, Output(as_json=False), "e")
    assert stats.chunks == 2
    out = capsys.readouterr().out
    assert "It bends." in out
    assert "time to first token" in out


@pytest.mark.parametrize("events", [[chunk("All at once.")], []])
def test_an_answer_in_one_piece_is_a_failure(server, events):
    """Only an answer that came in pieces counts as streamed."""
    server.answers[CHAT] = sse(*events)
    with _client(server) as client, pytest.raises(AnswerNotStreamed):
        streamed_answer(client, Output(as_json=False), "e")


def test_a_replica_that_comes_back_is_waited_for(server):
    """After a restart the endpoint may be known before its replica is there: the question is asked again."""
    answers = iter([(503, google_error(503, "NOT_READY", "Soon.")), sse(chunk("a"), chunk("b"))])
    server.answers[CHAT] = lambda _body: next(answers)
    with _client(server) as client:
        assert streamed_answer(client, Output(as_json=False), "e").chunks == 2


def test_a_ready_deployment_is_not_deployed_again(server, tmp_path, capsys):
    """What is done is not done twice, and quickstart says so."""
    bound = {"id": "1", "headrace": {"state": "READY", "deployment": "d"}}
    path = "GET /v1beta1/projects/default/locations/us-central1/endpoints/smollm2"
    server.answers[path] = (200, {"deployedModels": [bound]})
    with _client(server) as client:
        ensure_deployed(client, tmp_path, Steps(Output(as_json=False)))
    assert "already READY" in capsys.readouterr().out
    assert not any(line.startswith("POST") for line, _, _ in server.requests)


def test_the_demo_endpoint_is_called_what_clients_are_told(server, tmp_path):
    """/v1/models lists an endpoint by its display name: the one that the commands to try use."""
    place = "/v1beta1/projects/default/locations/us-central1/endpoints/smollm2"
    server.answers[f"GET {place}"] = (404, google_error(404, "ENDPOINT_NOT_FOUND", "No."))
    server.answers["POST /headrace/v1/deployments"] = (200, {"id": "5"})
    server.answers["GET /headrace/v1/operations/5"] = (200, {"id": "5", "state": "SUCCEEDED", "done": True})
    with _client(server) as client:
        ensure_deployed(client, tmp_path, Steps(Output(as_json=False)))
    (body,) = server.asked("POST /headrace/v1/deployments")
    assert (body["endpoint_id"], body["endpoint_display_name"]) == ("smollm2", "smollm2")


def test_the_commands_to_try_hold_no_key():
    """curl, OpenAI's SDK and `headrace chat`, with this server's address, and without a secret."""
    text = three_commands("http://127.0.0.1:8081", "smollm2")
    assert "curl http://127.0.0.1:8081/v1/chat/completions" in text
    assert 'openai.OpenAI(base_url="http://127.0.0.1:8081/v1"' in text
    assert "headrace chat smollm2" in text
    assert "hr-" not in text
    assert "--url" not in text
    assert text.count("max_tokens") == 2
    elsewhere = three_commands("http://127.0.0.1:8081", "smollm2", url_needed=True)
    assert elsewhere.count(" --url http://127.0.0.1:8081") == 2


def test_the_model_may_live_in_a_shared_cache(tmp_path, monkeypatch):
    """HEADRACE_CACHE_DIR holds the model for all data directories; without, the user's cache folder."""
    monkeypatch.delenv("HEADRACE_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert demo_model_dir() == tmp_path / ".cache" / "headrace" / "demo" / "SmolLM2-135M-Instruct"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert demo_model_dir() == tmp_path / "xdg" / "headrace" / "demo" / "SmolLM2-135M-Instruct"
    monkeypatch.setenv("HEADRACE_CACHE_DIR", str(tmp_path / "cache"))
    assert demo_model_dir() == tmp_path / "cache" / "demo" / "SmolLM2-135M-Instruct"


def test_a_server_that_answers_is_found(server, tmp_path):
    """A data directory's server is used when it answers to the key in its login file, and only then."""
    assert answering_server(tmp_path) is None
    (tmp_path / "login.json").write_text(json.dumps({"url": server.url, "key": "hr-x"}))
    assert answering_server(tmp_path) is None
    assert server.requests == [], "without the lock of a server its key is shown to nobody"
    with (tmp_path / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.answers["GET /headrace/v1/whoami"] = (401, google_error(401, "UNKNOWN_KEY", "Unknown."))
        assert answering_server(tmp_path) is None
        server.answers["GET /headrace/v1/whoami"] = (200, {"name": "me"})
        found = answering_server(tmp_path)
    assert found is not None
    assert found.url == server.url


def test_ctrl_c_in_a_conversation_stops_the_answer_only(server, tmp_path):
    """In `headrace chat` Ctrl-C ends the answer; the next question is answered, and /exit leaves with 0."""
    import os
    import pty
    import signal

    streaming, stopped = threading.Event(), threading.Event()

    def first_hangs(body):
        if len(body["messages"]) == 1:
            streaming.set()
            stopped.wait(30)
        return sse(chunk("fine"), chunk("."))

    server.answers[CHAT] = first_hangs
    ours, theirs = pty.openpty()
    env = {**os.environ, "HEADRACE_URL": server.url, "HEADRACE_API_KEY": "k", "HEADRACE_CONFIG_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "headrace.cli", "chat", "e"]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    try:
        os.write(ours, b"first\n")
        assert streaming.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        seen = b""
        while b"(stopped)" not in seen:
            piece = os.read(process.stdout.fileno(), 4096)
            assert piece, seen
            seen += piece
        stopped.set()
        os.write(ours, b"second\n/exit\n")
        out, err = process.communicate(timeout=30)
    finally:
        stopped.set()
        process.kill()
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0, err
    assert b"fine." in out
