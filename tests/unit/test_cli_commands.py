"""Commands against a real HTTP server: what they ask, what they print, how they end."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from cli_server import chunk, google_error, serving, sse

from headrace.cli.app import run
from headrace.cli.output import Output
from headrace.resources.errors import CODES

SCOPE = "projects/default/locations/us-central1"
ENDPOINT = {
    "name": f"{SCOPE}/endpoints/7",
    "displayName": "rivers",
    "deployedModels": [
        {
            "id": "70",
            "model": f"{SCOPE}/models/9",
            "modelVersionId": "1",
            "displayName": "m",
            "headrace": {"state": "READY", "deployment": f"{SCOPE}/deployments/8"},
        }
    ],
}
LIST = f"GET /v1beta1/{SCOPE}/endpoints"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A scripted server that commands find by the environment, and no other login."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    with serving() as scripted:
        monkeypatch.setenv("HEADRACE_URL", scripted.url)
        scripted.answers[LIST] = (200, {"endpoints": [ENDPOINT]})
        yield scripted


# --- errors and exit codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("BAD_FIELD", 2),
        ("ENDPOINT_NOT_FOUND", 3),
        ("UNKNOWN_KEY", 4),
        ("ROLE_MISSING", 4),
        ("CONTROL_PLANE_DOWN", 5),
        ("QUEUE_FULL", 1),
        ("STILL_IN_USE", 1),
        ("INTERNAL", 1),
    ],
)
def test_exit_codes_tell_failures_apart(server, capsys, code, exit_code):
    """The exit code says what kind of failure it was; stderr names code, evidence and fix, stdout stays empty."""
    status = CODES[code].http_status
    server.answers[LIST] = (status, google_error(status, code, "It failed.", evidence="seen", fix="do this"))
    assert run(["endpoints", "list"]) == exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    whose = " The key is that of HEADRACE_API_KEY; `headrace contexts` lists the logins." if exit_code == 4 else ""
    assert captured.err.splitlines() == [
        f"error {code}: It failed.",
        f"  evidence: seen{whose}",
        "  fix: do this",
        f"  more: headrace explain {code}",
    ]


def test_errors_of_the_openai_shape_are_understood(server, capsys):
    """The code, evidence and fix inside OpenAI's error shape reach the user as such."""
    body = {"error": {"message": "Full. Evidence: 9 wait. Fix: Come back.", "type": "x", "code": "QUEUE_FULL"}}
    server.answers["POST /v1/chat/completions"] = (429, body)
    assert run(["chat", "rivers", "-m", "hello", "--json"]) == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert error == {"code": "QUEUE_FULL", "message": "Full.", "evidence": "9 wait.", "fix": "Come back."}


def test_an_answer_of_somebody_else_is_not_taken_for_ours(server, capsys):
    """A proxy's error page ends in an error with its status, not in a traceback."""
    server.answers[LIST] = (503, "busy")
    assert run(["endpoints", "list"]) == 5
    assert "503" in capsys.readouterr().err


def test_nobody_listening_is_exit_code_5(server, monkeypatch, capsys):
    """An address where nobody listens is SERVER_UNREACHABLE with the address in it."""
    monkeypatch.setenv("HEADRACE_URL", "http://127.0.0.1:1")
    assert run(["status", "--json"]) == 5
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "SERVER_UNREACHABLE"


@pytest.mark.parametrize(
    "arguments", [["deploy"], ["status", "--bogus"], ["nonsense"], ["chat", "e", "--max-tokens", "0"]]
)
def test_a_wrong_command_line_is_exit_code_2(capsys, arguments):
    """Wrong usage ends with 2, and with --json even that is JSON."""
    assert run(arguments) == 2
    capsys.readouterr()
    assert run([*arguments, "--json"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.err)["error"]["code"] == "USAGE"
    assert captured.out == ""


def test_the_key_is_sent_and_never_printed(server, capsys):
    """The key travels in the Authorization header only."""
    assert run(["endpoints", "list"]) == 0
    assert server.requests[0][1]["authorization"] == "Bearer hr-test"
    captured = capsys.readouterr()
    assert "hr-test" not in captured.out + captured.err


@pytest.mark.parametrize("identifier", ["../endpoints/x", "..", "a?b=c", "a#b", "a\nb"])
def test_an_id_stays_where_it_belongs(server, capsys, identifier):
    """Whatever is given as an id, the request goes below the models of the project, or nowhere."""
    assert run(["models", "get", identifier]) == 3
    assert [line.partition("/models/")[0] for line, _, _ in server.requests] == [f"GET /v1beta1/{SCOPE}"]
    capsys.readouterr()


def test_a_defect_has_no_traceback(server, capsys):
    """What nobody expected ends as INTERNAL with 1, for people and for programs."""
    server.answers[LIST] = (200, ["not", "an", "object"])
    assert run(["endpoints"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error INTERNAL: ")
    assert "Traceback" not in err
    assert run(["endpoints", "--json"]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "INTERNAL"


# --- lists ----------------------------------------------------------------------------------------------------------


def test_tables_for_people(server, capsys):
    """Without a terminal a table has a line per row, and nothing is cut or coloured."""
    server.answers[LIST] = (200, {"endpoints": [{**ENDPOINT, "displayName": "x" * 200}]})
    assert run(["endpoints", "list"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2
    assert "x" * 200 in out
    assert "\x1b" not in out


def test_tables_fit_a_narrow_terminal(capsys):
    """On 80 columns the first column is whole, spare ones are left out, and paths are cut in the middle."""
    rows = [("5647715533779560032", "1", "/home/newcomer/.cache/headrace/demo/SmolLM2-135M-Instruct/and/on", "x" * 20)]
    Output(as_json=False, width=80).table(("ID", "V", "WHERE", "WHY"), rows, empty="", spare=("V",), paths=("WHERE",))
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "WHERE", "WHY"]
    assert len(row) <= 80
    assert row.startswith("5647715533779560032  /home/")
    assert "…" in row


def test_the_bare_name_of_a_group_lists(server, capsys):
    """`headrace endpoints --json` is `headrace endpoints list --json`."""
    assert run(["endpoints", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["endpoints"][0]["displayName"] == "rivers"


def test_all_pages_of_a_list_are_fetched(server, capsys):
    """A list that comes in pages is shown whole."""
    pages = iter([(200, {"endpoints": [ENDPOINT], "nextPageToken": "t"}), (200, {"endpoints": [ENDPOINT]})])
    server.answers[LIST] = lambda _body: next(pages)
    assert run(["endpoints", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["endpoints"]) == 2
    assert server.requests[1][0].endswith("pageToken=t")


def test_json_prints_one_document(server, capsys):
    """--json prints what the server said, as one document."""
    server.answers["GET /headrace/v1/status"] = (
        200,
        {"version": "1", "at": 1.0, "endpoints": [], "nodes": [], "resident_bytes": 0, "last_error": None},
    )
    assert run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == "1"


def test_status_shows_the_last_error(server, capsys):
    """`status` ends with what went wrong last, its fix included."""
    failure = {"code": "ENGINE_DIED", "message": "It died.", "fix": "Look."}
    pool = {
        "state": "FAILED",
        "min_replicas": 1,
        "memory_bytes": 10**9,
        "resident_bytes": 5 * 10**8,
        "replicas": [{"state": "FAILED"}],
    }
    node = {"id": "local", "memory_bytes": 10**10, "cores": 2, "last_seen_at": 99.0}
    staged = [
        {"fingerprint": name, "size_bytes": size, "in_use": name == "b"}
        for name, size in (("a", 10**9), ("b", 2 * 10**9))
    ]
    cache = {"limit_bytes": 4 * 10**9, "models": staged}
    server.answers["GET /headrace/v1/status"] = (
        200,
        {
            "version": "1",
            "at": 100.0,
            "endpoints": [
                {"id": "7", "display_name": "rivers", "deployed_models": [{"traffic": 100, "deployment": pool}]},
                {"id": "6", "display_name": "empty", "deployed_models": []},
            ],
            "nodes": [node | {"model_cache": cache}, node | {"id": "older", "model_cache": {}}],
            "resident_bytes": 5 * 10**8,
            "last_error": {"at": 90.0, "kind": "deployment", "id": "8", "failure": failure},
        },
    )
    assert run(["status"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"7 +rivers +FAILED +100% +0/1 +500 MB\n", out)
    assert re.search(r"local +10.0 GB +2 +3.0 GB of 4.0 GB: 2 models, 1 in use +1s ago", out)
    assert re.search(r"older +10.0 GB +2 +empty +1s ago", out)
    assert "error ENGINE_DIED: It died." in out
    assert "EMPTY" in out


@pytest.mark.parametrize(
    ("shown", "said", "not_said"),
    [(True, "No node has reported yet.", "every project"), (False, "keys of every project only", "reported")],
)
def test_status_tells_no_node_from_none_that_is_shown(server, capsys, shown, said, not_said):
    """A project's key is not shown the machine, which is no word about whether there is one."""
    answer = {"version": "1", "at": 1.0, "endpoints": [], "nodes": [], "nodes_shown": shown, "resident_bytes": 0}
    server.answers["GET /headrace/v1/status"] = (200, answer)
    assert run(["status"]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert not_said not in out


def test_status_tells_what_sleeps_from_what_is_gone(server, capsys):
    """An engine that sleeps still holds memory of the machine, and what it reserved; one that was stopped does not."""
    pool = {"state": "ASLEEP", "min_replicas": 1, "memory_bytes": 10**9, "resident_bytes": 5 * 10**8}
    pool["replicas"] = [{"state": "ASLEEP"}, {"state": "FAILED"}]
    bound = [{"traffic": 100, "deployment": pool}]
    endpoint = {"id": "7", "display_name": "rivers", "deployed_models": bound}
    said = {"version": "1", "at": 100.0, "endpoints": [endpoint], "nodes": [], "resident_bytes": 5 * 10**8}
    server.answers["GET /headrace/v1/status"] = (200, said)
    assert run(["status"]) == 0
    assert re.search(r"7 +rivers +ASLEEP +100% +0/1, 1 asleep +500 MB +1.0 GB", capsys.readouterr().out)
    pool |= {"replicas": [], "resident_bytes": 0}
    assert run(["status"]) == 0
    assert re.search(r"7 +rivers +ASLEEP +100% +0/1 +0 B\n", capsys.readouterr().out)


def _glance(*bound):
    return {
        "version": "1",
        "at": 100.0,
        "endpoints": [{"id": "7", "display_name": "rivers", "deployed_models": list(bound)}],
        "nodes": [],
        "resident_bytes": 0,
    }


def _serving(identifier, model_id, name="river", version="1"):
    pool = {"state": "STARTING", "min_replicas": 1, "memory_bytes": 10**9, "resident_bytes": 711 * 10**6}
    pool |= {"replicas": [{"state": "READY"}], "model_id": model_id, "model_version": version}
    return {"id": identifier, "display_name": name, "traffic": 50, "deployment": pool}


def test_status_tells_two_models_of_an_endpoint_apart(server, capsys):
    """Below it each has a row: by the id that undeploying and a traffic split go by, with its model's id if need be."""
    gone = {"id": "43", "display_name": "lake", "traffic": 0, "deployment": None}
    server.answers["GET /headrace/v1/status"] = (200, _glance(_serving("41", "8"), _serving("42", "9"), gone))
    assert run(["status"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^7 +rivers\n", out, re.MULTILINE)
    assert re.search(r"^  41 +river@1 \(8\) +STARTING +50%", out, re.MULTILINE)
    assert re.search(r"^  42 +river@1 \(9\) +STARTING +50%", out, re.MULTILINE)
    assert re.search(r"^  43 +lake +GONE +0%", out, re.MULTILINE)
    server.answers["GET /headrace/v1/status"] = (200, _glance(_serving("41", "8"), _serving("42", "8", version="2")))
    assert run(["status"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"41 +river@1 +STARTING", out)
    assert re.search(r"42 +river@2 +STARTING", out)


def test_status_fits_a_narrow_terminal(server, capsys, monkeypatch):
    """On 80 columns each endpoint and each of its models has one line, with ids that are whole."""
    monkeypatch.setattr("headrace.cli.output._PIPE_WIDTH", 80)
    ids = [str(5647715533779560032 + each) for each in range(4)]
    server.answers["GET /headrace/v1/status"] = (200, _glance(_serving(ids[0], ids[2]), _serving(ids[1], ids[3])))
    assert run(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith("  ")]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [(ids[0], "MB"), (ids[1], "MB")]
    assert all("STARTING" in row and "50%" in row and "1/1" in row for row in rows)


def test_deployments_of_one_name_are_told_apart(server, capsys):
    """By the model's version, and by its id where two models have one name."""
    pool = {"state": "READY", "min_replicas": 1, "runtime": "vllm", "memory_bytes": 10**9, "created_at": 0.0}
    listed = [
        pool | {"id": identifier, "display_name": name, "model_id": model, "model_version": version}
        for identifier, name, model, version in (("1", "m", "8", "1"), ("2", "m", "9", "1"), ("3", "m", "8", "2"))
    ]
    server.answers["GET /headrace/v1/deployments"] = (200, {"deployments": listed})
    assert run(["deployments"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^1 +m@1 \(8\) +READY", out, re.MULTILINE)
    assert re.search(r"^2 +m@1 \(9\) +READY", out, re.MULTILINE)
    assert re.search(r"^3 +m@2 +READY", out, re.MULTILINE)


# --- inference ------------------------------------------------------------------------------------------------------


def test_chat_streams_and_measures(server, capsys):
    """One message in, the pieces of the answer out as they come, with statistics on demand."""
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    server.answers["POST /v1/chat/completions"] = sse(chunk("Hel"), chunk("lo", "stop"), usage)
    assert run(["chat", "rivers", "-m", "hi", "--stats", "--seed", "7"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Hello\n")
    assert "2 tokens" in out
    (body,) = server.asked("POST /v1/chat/completions")
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert body["stream"] is True
    assert body["seed"] == 7


def test_chat_asks_for_no_length_of_its_own(server, capsys):
    """The server knows how much the context leaves; only who names a length gets one."""
    server.answers["POST /v1/chat/completions"] = sse(chunk("Hello", "stop"))
    assert run(["chat", "rivers", "-m", "hi"]) == 0
    assert run(["chat", "rivers", "-m", "hi", "--max-tokens", "9"]) == 0
    assert [body.get("max_tokens") for body in server.asked("POST /v1/chat/completions")] == [None, 9]


def test_an_answer_does_not_steer_the_terminal(server, capsys):
    """Escape sequences in an answer are shown, not obeyed; its line breaks and tabs are its own affair."""
    server.answers["POST /v1/chat/completions"] = sse(chunk("\x1b[31mred\n\tto\u009b2J\x7f"), chunk("\x07", "stop"))
    assert run(["chat", "rivers", "-m", "hi"]) == 0
    assert capsys.readouterr().out == "\\x1b[31mred\n\tto\\x9b2J\\x7f\\x07\n"
    assert run(["chat", "rivers", "-m", "hi", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[0])["content"] == "\x1b[31mred\n\tto\u009b2J\x7f"
    assert not set(out) & {"\x1b", "\x7f", "\u009b"}


def test_a_name_does_not_steer_the_terminal(capsys):
    """Nor does a name in a table, where it makes no lines of its own either."""
    output = Output(as_json=False)
    output.table(("NAME", "STATE"), [("\x1b]0;mine\x07\nx", "READY")], empty="")
    output.line("\x1b[2J")
    out = capsys.readouterr().out
    assert "\\x1b]0;mine\\x07\\x0ax  READY" in out
    assert "\x1b" not in out


def test_chat_as_json_lines(server, capsys):
    """--json prints a line per piece and a last one with the measurements."""
    server.answers["POST /v1/chat/completions"] = sse(chunk("Hel"), chunk("lo", "stop"))
    assert run(["chat", "rivers", "-m", "hi", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["content"] for line in lines[:-1]] == ["Hel", "lo"]
    assert lines[-1]["stats"]["chunks"] == 2
    assert lines[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "stream",
    [
        sse(chunk("Hel"), done=False),
        sse(chunk("Hel"), {"error": {"message": "Gone.", "code": "ENGINE_BROKE_OFF"}}),
    ],
)
def test_a_stream_that_breaks_off_is_a_failure(server, capsys, stream):
    """What came is shown, and the command says that the rest is missing."""
    server.answers["POST /v1/chat/completions"] = stream
    assert run(["chat", "rivers", "-m", "hi"]) == 5
    captured = capsys.readouterr()
    assert captured.out.startswith("Hel")
    assert "ENGINE_BROKE_OFF" in captured.err


def test_predict_with_prompts(server, capsys):
    """Prompts become instances; predictions are printed one after the other."""
    server.answers[f"POST /v1/{SCOPE}/endpoints/7:predict"] = (200, {"predictions": ["one", {"two": 2}]})
    assert run(["predict", "rivers", "--prompt", "a", "-p", "b", "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out == 'one\n{\n  "two": 2\n}\n'
    (body,) = server.asked(f"POST /v1/{SCOPE}/endpoints/7:predict")
    assert [each["prompt"] for each in body["instances"]] == ["a", "b"]


def test_a_continuation_is_shown_without_its_prompt(server, capsys):
    """People see what the model wrote; what was sent before it is for programs."""
    whole = "Prompt:\na\nOutput:\n river"
    server.answers[f"POST /v1/{SCOPE}/endpoints/7:predict"] = (200, {"predictions": [whole]})
    assert run(["predict", "rivers", "--prompt", "a"]) == 0
    assert capsys.readouterr().out == " river\n"
    assert run(["predict", "rivers", "--prompt", "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"] == [whole]


def test_predict_with_a_file(server, capsys, tmp_path):
    """A body in a file is sent as it is, also while the control plane cannot say which endpoint is meant."""
    server.answers[LIST] = (503, google_error(503, "CONTROL_PLANE_DOWN", "It is down."))
    server.answers[f"POST /v1/{SCOPE}/endpoints/7:predict"] = (200, {"predictions": []})
    (tmp_path / "body.json").write_text('{"instances": [{"text": "x"}]}')
    assert run(["predict", "7", "--json-file", str(tmp_path / "body.json"), "--json"]) == 0
    assert server.asked(f"POST /v1/{SCOPE}/endpoints/7:predict") == [{"instances": [{"text": "x"}]}]
    assert json.loads(capsys.readouterr().out) == {"predictions": []}


def test_predict_wants_one_kind_of_input(capsys):
    """Neither or both of --prompt and --json-file is wrong usage."""
    assert run(["predict", "7"]) == 2
    capsys.readouterr()


# --- deploy and undeploy --------------------------------------------------------------------------------------------


def _operation(state, timeline, **more):
    return {
        "id": "5",
        "state": state,
        "done": state != "RUNNING",
        "project": "default",
        "location": "us-central1",
        "targets": {"endpoint": "7", "deployment": "8"},
        "timeline": timeline,
        **more,
    }


def _moves(*states):
    return [{"state": state, "at": 10.0 + 2 * index, "detail": ""} for index, state in enumerate(states)]


def test_deploy_shows_each_phase_with_its_seconds(server, capsys, tmp_path):
    """--wait prints a line per phase as it passes, then how good the plan was, the address and what to try."""
    server.answers["POST /headrace/v1/deployments"] = (200, _operation("RUNNING", []))
    looks = iter(
        [
            (200, _operation("RUNNING", _moves("ACCEPTED", "CHECKING"))),
            (200, _operation("SUCCEEDED", _moves("ACCEPTED", "CHECKING", "STARTING", "READY"))),
        ]
    )
    server.answers["GET /headrace/v1/operations/5"] = lambda _body: next(looks)
    reading = {"figure": "prompt_tokens_per_s", "predicted": 900.0, "measured": 1000.0, "error_percent": -10.0}
    loading = {"figure": "load_s", "predicted": 2.0, "measured": 38.769, "error_percent": -95.0}
    answering = {"figure": "time_to_first_token_s", "predicted": 0.2, "measured": 0.12, "error_percent": 67.0}
    memory = {"figure": "resident_bytes", "predicted": 10**9, "measured": 0.98 * 10**9, "error_percent": 2.0}
    compared = {"measured": [reading, loading, answering, memory]}
    server.answers["GET /headrace/v1/deployments/8"] = (200, {"replicas": [compared]})
    assert run(["deploy", str(tmp_path), "--max-model-len", "512", "--endpoint", "e"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"reading a prompt +900\.0 tokens/s +1000\.0 tokens/s +1\.1x faster than predicted", out), out
    assert re.search(r"ready after +2\.0 s +39 s +19\.4x slower than predicted", out), out
    assert re.search(r"first token, short prompt +200 ms +120 ms +1\.7x faster than predicted", out), out
    assert re.search(r"memory +1\.0 GB +980 MB +as predicted", out), out
    for phase in ("ACCEPTED", "CHECKING", "STARTING"):
        assert re.search(rf"{phase} +2\.0 s", out), out
    assert "READY" in out
    assert f"{server.url}/v1/{SCOPE}/endpoints/7" in out
    assert out.count("headrace chat rivers") == 1
    assert '"max_tokens": 60' in out
    (body,) = server.asked("POST /headrace/v1/deployments")
    assert body["artifact_uri"] == str(tmp_path.resolve())
    assert (body["max_model_len"], body["endpoint_id"], body["project"]) == (512, "e", "default")
    assert any("seen=2" in line for line, _, _ in server.requests)


@pytest.mark.parametrize(("wanted", "sent"), [("rivers", "7"), ("7", "7"), ("brook", "brook")])
def test_deploy_adds_to_the_endpoint_that_is_meant(server, tmp_path, wanted, sent):
    """--endpoint takes the id or the name of one that is there; only what is neither becomes the id of a new one."""
    server.answers["POST /headrace/v1/deployments"] = (200, _operation("RUNNING", []))
    assert run(["deploy", str(tmp_path), "--endpoint", wanted, "--no-wait"]) == 0
    (body,) = server.asked("POST /headrace/v1/deployments")
    assert body["endpoint_id"] == sent


def test_deploy_tells_how_the_engine_is_to_run(server, tmp_path):
    """Each option arrives as its field, a template by its text; what is not said is left open."""
    (tmp_path / "own.jinja").write_text("{{ messages }}\n")
    server.answers["POST /headrace/v1/deployments"] = (200, _operation("RUNNING", []))
    options = ["--tensor-parallel", "2", "--no-prefix-caching", "--tool-parser", "xlam", "--scale-to-zero-after", "300"]
    options += ["--chat-template", str(tmp_path / "own.jinja")]
    assert run(["deploy", str(tmp_path), "--no-wait", *options]) == 0
    assert run(["deploy", str(tmp_path), "--no-wait", "--prefix-caching"]) == 0
    said, unsaid = server.asked("POST /headrace/v1/deployments")
    assert (said["tensor_parallel"], said["prefix_caching"], said["tool_parser"]) == (2, False, "xlam")
    assert said["chat_template"] == "{{ messages }}\n"
    assert (unsaid["tensor_parallel"], unsaid["prefix_caching"]) == (1, True)
    assert (said["scale_to_zero_after_s"], unsaid["scale_to_zero_after_s"]) == (300, 0)
    assert (unsaid["chat_template"], unsaid["tool_parser"]) == (None, None)


def test_a_pipe_is_no_template(server, capsys, tmp_path):
    """One to which nobody writes would be read for ever."""
    os.mkfifo(tmp_path / "own.jinja")
    assert run(["deploy", str(tmp_path), "--chat-template", str(tmp_path / "own.jinja")]) == 2
    assert "it is a pipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "evidence"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\xff\xfe", "it is not text"),
        (b"x" * (256 * 1024 + 1), "is longer than 262 kB"),
    ],
)
def test_a_file_that_is_no_template_is_wrong_usage(server, capsys, tmp_path, content, evidence):
    """Told before anything is asked of the server."""
    if content is not None:
        (tmp_path / "own.jinja").write_bytes(content)
    assert run(["deploy", str(tmp_path), "--chat-template", str(tmp_path / "own.jinja")]) == 2
    assert evidence in capsys.readouterr().err
    assert server.asked("POST /headrace/v1/deployments") == []


def test_what_was_asked_for_is_shown_with_the_deployment_and_the_model(server, capsys):
    """By name and value, a template by its size; nothing of what was left open."""
    spec = {"tensor_parallel": 2, "prefix_caching": False, "chat_template": "é" * 500, "tool_parser": "xlam"}
    shown = {
        "id": "8",
        "model_id": "9",
        "model_version": "1",
        "display_name": "m",
        "state": "READY",
        "runtime": "vllm",
        "max_model_len": 512,
        "memory_bytes": 1000,
        "spec": spec,
    }
    server.answers["GET /headrace/v1/deployments/8"] = (200, shown)
    wire = {"tensorParallel": 2, "prefixCaching": False, "chatTemplateSizeBytes": 1000, "toolParser": "xlam"}
    model = {"name": f"{SCOPE}/models/9", "headrace": {"servingSpec": {"maxModelLen": 512, **wire}}}
    server.answers[f"GET /v1beta1/{SCOPE}/models/9"] = (200, model)
    for arguments in (["deployments", "get", "8"], ["models", "get", "9"]):
        assert run(arguments) == 0
        out = " ".join(capsys.readouterr().out.split())
        for row in ("tensor parallel 2 GPUs", "prefix caching off", "its own, 1 kB", "tool parser xlam", "512"):
            assert row in out, out
        assert "precision" not in out


@pytest.mark.parametrize(
    ("rates", "frightens"),
    [
        ("assumed for each core; `headrace calibrate` measures this machine", True),
        ("datasheets; `headrace calibrate` measures this machine", True),
        ("measured here on 2027-01-15 by `headrace calibrate`", False),
    ],
)
def test_a_prediction_that_nobody_calibrated_is_said_to_be_an_estimate(server, capsys, rates, frightens):
    """Beside what was measured a sentence tells what the prediction is worth, and how to get better ones."""
    compared = [{"figure": "tokens_per_s", "predicted": 20.0, "measured": 100.0, "error_percent": -80.0}]
    shown = {
        "id": "8",
        "model_id": "9",
        "model_version": "1",
        "display_name": "m",
        "state": "READY",
        "runtime": "openvino",
        "max_model_len": 512,
        "memory_bytes": 1000,
        "predicted": {"rates": rates},
        "replicas": [{"id": "1", "state": "READY", "resident_bytes": 1000, "measured": compared}],
    }
    server.answers["GET /headrace/v1/deployments/8"] = (200, shown)
    assert run(["deployments", "get", "8"]) == 0
    out = capsys.readouterr().out
    assert "5.0x faster than predicted" in out
    assert ("an estimate from rates that nobody measured" in out) is frightens


def test_when_a_deployment_scales_to_zero_is_changed(server, capsys):
    """One request, and a sentence of what is so now."""
    server.answers["PATCH /headrace/v1/deployments/8"] = lambda body: (200, {"id": "8"} | body)
    for seconds, told in (("300", "after 300 s without a request"), ("0", "never")):
        assert run(["deployments", "update", "8", "--scale-to-zero-after", seconds]) == 0
        assert f"Deployment 8 scales to zero {told}." in capsys.readouterr().out
    assert server.asked("PATCH /headrace/v1/deployments/8")[0] == {"scale_to_zero_after_s": 300}
    assert run(["deployments", "update", "8"]) == 2


def test_the_number_of_replicas_is_changed(server, capsys):
    """One request with both bounds, and a sentence of what is so from now on."""
    server.answers["PATCH /headrace/v1/deployments/8"] = lambda body: (200, {"id": "8"} | body)
    assert run(["deployments", "update", "8", "--replicas", "2"]) == 0
    assert "Deployment 8 has 2 replicas from now on." in capsys.readouterr().out
    assert server.asked("PATCH /headrace/v1/deployments/8") == [{"min_replicas": 2, "max_replicas": 2}]


def test_what_a_deployment_scales_by_is_changed(server, capsys):
    """One request with the bounds, the targets and the time; a sentence for each of the first two."""
    asked = {"targets": {"vllm_num_requests_waiting": 4, "request_count": 30}, "lower_after_s": 60}
    kept = {"targets": [{"metric": name, "target": target} for name, target in asked["targets"].items()]}
    server.answers["PATCH /headrace/v1/deployments/8"] = lambda body: (200, {"id": "8"} | body | {"autoscaling": kept})
    bounds = ["--min-replicas", "1", "--max-replicas", "4", "--lower-after", "60"]
    targets = ["--target", "vllm_num_requests_waiting=4", "--target", "request_count=30"]
    assert run(["deployments", "update", "8", *bounds, *targets]) == 0
    assert server.asked("PATCH /headrace/v1/deployments/8") == [
        {"min_replicas": 1, "max_replicas": 4, "autoscaling": asked}
    ]
    out = capsys.readouterr().out
    assert "Deployment 8 has 1 to 4 replicas from now on." in out
    assert "Deployment 8 scales by vllm_num_requests_waiting=4, request_count=30." in out
    for wrong in (["--target", "request_count"], ["--target", "=3"], ["--replicas", "1", "--max-replicas", "2"]):
        assert run(["deployments", "update", "8", *wrong]) == 2


def test_status_tells_what_a_deployment_scales_by(server, capsys):
    """How many replicas there should be and why, in a sentence; and what those wait for that are missing."""
    said = _serving("41", "8")
    said["deployment"] |= {
        "id": "5",
        "display_name": "river",
        "max_replicas": 4,
        "wanted_replicas": 3,
        "scaling": {"why": "request_count is 90 a replica; its target is 30.", "pending": "No room."},
    }
    server.answers["GET /headrace/v1/status"] = (200, _glance(said))
    assert run(["status"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"STARTING +50% +1/3", out)
    assert "river has 3 of 1 to 4 replicas: request_count is 90 a replica; its target is 30." in out
    assert "river waits for more: No room." in out


def test_a_failed_deployment_is_exit_code_1(server, capsys, tmp_path):
    """Whatever its code would mean elsewhere: the operation failed."""
    failure = {"code": "ENGINE_DIED", "message": "It died.", "evidence": "exit status 1", "fix": "Look."}
    server.answers["POST /headrace/v1/deployments"] = (200, _operation("RUNNING", []))
    failed = _operation("FAILED", _moves("ACCEPTED", "FAILED"), failure=failure)
    server.answers["GET /headrace/v1/operations/5"] = (200, failed)
    dead = {**ENDPOINT, "deployedModels": [{"id": "70", "headrace": {"state": "FAILED"}}]}
    server.answers[LIST] = (200, {"endpoints": [dead]})
    assert run(["deploy", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "error ENGINE_DIED: It died." in captured.err
    assert "headrace undeploy rivers --yes" in captured.out
    alive = {**ENDPOINT, "deployedModels": [*ENDPOINT["deployedModels"], *dead["deployedModels"]]}
    server.answers[LIST] = (200, {"endpoints": [alive]})
    assert run(["deploy", str(tmp_path)]) == 1
    assert "headrace undeploy rivers --failed --yes" in capsys.readouterr().out


def _named(identifier, state):
    return {"name": f"{SCOPE}/endpoints/{identifier}", "displayName": "river", "deployedModels": _bound(state)}


def _bound(state):
    return [{"id": "70", "headrace": {"state": state}}] if state else []


@pytest.mark.parametrize(
    ("endpoints", "onto"),
    [
        ([], ""),
        ([_named("1", "FAILED")], "1"),
        ([_named("1", "READY")], "1"),
        ([_named("1", "FAILED"), _named("2", "READY")], "2"),
        ([{**_named("1", "READY"), "headrace": {"deleting": True}}], ""),
    ],
)
def test_a_name_that_exists_is_deployed_onto(server, capsys, tmp_path, endpoints, onto):
    """Deploying again under a name goes to the endpoint that has it, before all to the one that is READY."""
    server.answers[LIST] = (200, {"endpoints": endpoints})
    server.answers["POST /headrace/v1/deployments"] = (200, _operation("RUNNING", []))
    assert run(["deploy", str(tmp_path), "--name", "river", "--no-wait"]) == 0
    (body,) = server.asked("POST /headrace/v1/deployments")
    assert body["endpoint_id"] == onto
    assert ("river exists" in capsys.readouterr().out) is bool(onto)


@pytest.mark.parametrize("state", ["READY", "FAILED"])
def test_a_name_of_several_is_refused(server, capsys, tmp_path, state):
    """Where nothing tells which endpoint of the name is meant, nothing is sent, and their ids are named."""
    server.answers[LIST] = (200, {"endpoints": [_named("1", state), _named("2", state)]})
    assert run(["deploy", str(tmp_path), "--name", "river"]) == 2
    err = capsys.readouterr().err
    assert "NAME_AMBIGUOUS" in err
    assert "1, 2" in err
    assert not server.asked("POST /headrace/v1/deployments")


@pytest.mark.parametrize("command", ["deploy", "doctor", "plan", "convert"])
def test_a_name_of_the_hub_is_told_as_an_address(server, capsys, command):
    """ORG/NAME that is no folder gets the command with the Hub's scheme before it."""
    assert run([command, "org/name", *(["new"] if command == "convert" else [])]) == 3
    assert f"headrace {command} hf://org/name" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["doctor", "plan", "convert"])
def test_a_name_that_deploy_takes_is_told_in_the_commands_own_way(capsys, command):
    """hf:ORG/NAME and garden:MODEL are deploy's; elsewhere the address, or where the catalogue tells it, is named."""
    more = ["new"] if command == "convert" else []
    assert run([command, "hf:org/name", *more]) == 3
    assert f"headrace {command} hf://org/name" in capsys.readouterr().err
    assert run([command, "garden:gemma-3", *more]) == 3
    assert "headrace garden options gemma-3" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["doctor", "plan", "convert"])
def test_a_local_command_speaks_of_this_machine(capsys, tmp_path, command):
    """A folder that is not there, a file in a model's folder and a folder around one: each is told without a server."""
    more = [str(tmp_path / "new")] if command == "convert" else []
    (tmp_path / "around" / "x" / "m").mkdir(parents=True)
    (tmp_path / "around" / "x" / "m" / "config.json").write_text("{}")
    told = {
        "nope": "'nope' in it does not",
        "around/x/m/config.json": f"Name the folder: `headrace {command} {tmp_path}/around/x/m",
        "around": f"headrace {command} {tmp_path}/around/x/m",
    }
    for name, text in told.items():
        assert run([command, str(tmp_path / name), *more]) == 3
        said = capsys.readouterr().err
        assert text in said
        assert "server" not in said


@pytest.mark.parametrize("command", ["deploy", "doctor", "plan", "convert"])
def test_help_names_every_scheme(capsys, command):
    """All that weights can be read from."""
    run([command, "--help"])
    shown = capsys.readouterr().out
    assert all(scheme in shown for scheme in ("gs://", "s3://", "az://", "hf://", "file://"))


def test_an_unknown_runtime_is_wrong_usage(server, capsys, tmp_path):
    """A runtime that does not exist is found out before anything is sent."""
    assert run(["deploy", str(tmp_path), "--runtime", "nonsense"]) == 2
    assert "RUNTIME_UNKNOWN" in capsys.readouterr().err
    assert server.requests == []


def test_waiting_ends_with_the_timeout(server, capsys, tmp_path):
    """--timeout ends the waiting, not the work, and says so."""
    server.answers["POST /headrace/v1/deployments"] = (200, _operation("RUNNING", []))

    def look(_body):
        time.sleep(0.05)  # as a server that has no news for as long as it may
        return 200, _operation("RUNNING", _moves("ACCEPTED", "STAGING"))

    server.answers["GET /headrace/v1/operations/5"] = look
    assert run(["deploy", str(tmp_path), "--timeout", "1", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.err)["error"]["code"] == "WAIT_TIMEOUT"
    assert "STAGING" in captured.err
    assert captured.out == ""


def test_no_wait_prints_the_operation(server, capsys, tmp_path):
    """--no-wait ends as soon as the server took the wish."""
    server.answers["POST /headrace/v1/deployments"] = (200, _operation("RUNNING", []))
    assert run(["deploy", "gs://bucket/model", "--no-wait", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "5"
    assert server.asked("POST /headrace/v1/deployments")[0]["artifact_uri"] == "gs://bucket/model"


def test_a_folder_that_is_not_there_is_not_sent(server, capsys, tmp_path):
    """A misspelt folder is found out on this side; the evidence names the part that is wrong."""
    assert run(["deploy", str(tmp_path / "no" / "such")]) == 3
    err = capsys.readouterr().err
    assert "ARTIFACTS_NOT_FOUND" in err
    assert "'no'" in err
    assert server.requests == []


def test_undeploy_deletes_the_endpoint(server, capsys):
    """By default the endpoint goes too, with one forced delete."""
    name = f"{SCOPE}/endpoints/7"
    server.answers[f"DELETE /v1beta1/{name}"] = (200, {"name": f"{name}/operations/5"})
    server.answers["GET /headrace/v1/operations/5"] = (200, _operation("SUCCEEDED", []))
    assert run(["undeploy", "rivers", "--yes"]) == 0
    assert any(line.endswith("?force=true") for line, _, _ in server.requests)


def test_undeploy_can_keep_the_endpoint(server):
    """--keep-endpoint takes the models off and leaves the address."""
    name = f"{SCOPE}/endpoints/7"
    server.answers[f"POST /v1beta1/{name}:undeployModel"] = (200, {"name": f"{name}/operations/5"})
    server.answers["GET /headrace/v1/operations/5"] = (200, _operation("SUCCEEDED", []))
    assert run(["undeploy", "7", "--yes", "--keep-endpoint", "--json"]) == 0
    assert server.asked(f"POST /v1beta1/{name}:undeployModel") == [{"deployedModelId": "70"}]
    assert not any(line.startswith("DELETE") for line, _, _ in server.requests)


def test_undeploy_can_take_away_only_what_failed(server, capsys):
    """--failed leaves what answers, and the endpoint; where nothing failed it says so."""
    name = f"{SCOPE}/endpoints/7"
    failed = {"id": "71", "headrace": {"state": "FAILED"}}
    server.answers[f"POST /v1beta1/{name}:undeployModel"] = (200, {"name": f"{name}/operations/5"})
    server.answers["GET /headrace/v1/operations/5"] = (200, _operation("SUCCEEDED", []))
    assert run(["undeploy", "rivers", "--failed", "--yes"]) == 0
    assert "Nothing on it failed" in capsys.readouterr().out
    both = ENDPOINT | {"deployedModels": [*ENDPOINT["deployedModels"], failed]}
    server.answers[LIST] = (200, {"endpoints": [both]})
    assert run(["undeploy", "rivers", "--failed", "--yes"]) == 0
    assert server.asked(f"POST /v1beta1/{name}:undeployModel") == [{"deployedModelId": "71"}]


@pytest.mark.parametrize("wanted", ["71", "lake", "lake@2", "10", "10@2"])
def test_undeploy_can_take_away_one_model(server, wanted):
    """--model names one by a deployed model's id, or its model's name or id; the others stay, and the endpoint."""
    name = f"{SCOPE}/endpoints/7"
    other = {"id": "71", "model": f"{SCOPE}/models/10", "modelVersionId": "2", "displayName": "lake"}
    both = ENDPOINT | {"deployedModels": [*ENDPOINT["deployedModels"], other]}
    server.answers[LIST] = (200, {"endpoints": [both]})
    server.answers[f"POST /v1beta1/{name}:undeployModel"] = (200, {"name": f"{name}/operations/5"})
    server.answers["GET /headrace/v1/operations/5"] = (200, _operation("SUCCEEDED", []))
    assert run(["undeploy", "rivers", "--model", wanted, "--yes"]) == 0
    assert server.asked(f"POST /v1beta1/{name}:undeployModel") == [{"deployedModelId": "71"}]
    assert not any(line.startswith("DELETE") for line, _, _ in server.requests)


def test_undeploy_wants_to_know_which_model_is_meant(server, capsys):
    """A name that two have, or none has, ends with the ids that there are; nothing is taken away."""
    bound = [ENDPOINT["deployedModels"][0], ENDPOINT["deployedModels"][0] | {"id": "71", "model": f"{SCOPE}/models/10"}]
    server.answers[LIST] = (200, {"endpoints": [ENDPOINT | {"deployedModels": bound}]})
    assert run(["undeploy", "rivers", "--model", "m@1", "--yes"]) == 2
    assert "70 (m@1 (9)), 71 (m@1 (10))" in capsys.readouterr().err
    assert run(["undeploy", "rivers", "--model", "lake", "--yes"]) == 3
    assert "70 (m@1 (9)), 71 (m@1 (10))" in capsys.readouterr().err
    assert run(["undeploy", "rivers", "--model", "9", "--failed", "--yes"]) == 2
    assert not any(line.startswith("POST") for line, _, _ in server.requests)


def test_models_of_one_name_are_told_apart(server, capsys):
    """Two models of one name on an endpoint carry their ids; the address is told by the name that deploy told."""
    bound = [ENDPOINT["deployedModels"][0], ENDPOINT["deployedModels"][0] | {"id": "71", "model": f"{SCOPE}/models/10"}]
    server.answers[LIST] = (200, {"endpoints": [ENDPOINT | {"deployedModels": bound}]})
    assert run(["endpoints"]) == 0
    assert "m@1 (9), m@1 (10)" in capsys.readouterr().out
    assert run(["endpoints", "get", "7"]) == 0
    out = capsys.readouterr().out
    assert "m@1 (10)  READY  71" in out
    assert "(model: rivers)" in out


def test_the_bare_quota_shows_it(server, capsys):
    """As the bare name of every group tells what there is."""
    server.answers["GET /headrace/v1/quota"] = (200, {"project": "default", "used": 1, "shares": 4, "deployments": []})
    for arguments in (["quota"], ["quota", "show"]):
        assert run(arguments) == 0
        assert "takes 1 of 4 shares" in capsys.readouterr().out


def test_nothing_is_destroyed_unasked(server, capsys):
    """Without a terminal and without --yes a destroying command does nothing."""
    assert run(["undeploy", "rivers"]) == 2
    assert "fix: Add --yes." in capsys.readouterr().err
    assert not any(line.startswith("DELETE") for line, _, _ in server.requests)
    capsys.readouterr()


def test_an_unknown_endpoint_names_those_that_exist(server, capsys):
    """A misspelt endpoint is exit code 3, and the evidence lists the endpoints."""
    assert run(["undeploy", "lakes", "--yes"]) == 3
    assert "Endpoints there: 7" in capsys.readouterr().err


# --- keys, login, logs ----------------------------------------------------------------------------------------------


def test_a_new_key_is_shown_once(server, capsys):
    """`keys create` prints the secret; --secret-only prints nothing else."""
    made = {"id": "3", "name": "me", "project": "default", "role": "viewer", "secret": "hr-secret"}
    server.answers["POST /headrace/v1/keys"] = (200, made)
    assert run(["keys", "create", "me", "--role", "viewer", "--secret-only"]) == 0
    assert capsys.readouterr().out == "hr-secret\n"
    assert server.asked("POST /headrace/v1/keys") == [{"name": "me", "role": "viewer", "project": "default"}]


def test_what_a_key_may_use_is_given_and_changed(server, capsys):
    """`keys create` and `keys update` send the limits that were given, 0 as none; the list shows them."""
    made = {"id": "3", "name": "me", "project": "default", "role": "predictor", "tokens_per_minute": 10_000}
    server.answers["POST /headrace/v1/keys"] = (200, made | {"secret": "hr-secret"})
    assert run(["keys", "create", "me", "--tokens-per-minute", "10000"]) == 0
    assert "It may use 10,000 tokens per minute." in capsys.readouterr().out
    assert server.asked("POST /headrace/v1/keys")[-1]["tokens_per_minute"] == 10_000
    listed = made | {"hint": "hr-abc", "created_at": 1.0, "requests_per_minute": 5}
    server.answers["GET /headrace/v1/keys"] = (200, {"keys": [listed]})
    server.answers["PATCH /headrace/v1/keys/3"] = (200, made | {"tokens_per_minute": None, "requests_per_minute": 1})
    assert run(["keys", "update", "3", "--tokens-per-minute", "0", "--requests-per-minute", "1"]) == 0
    assert capsys.readouterr().out == "Key 3 ('me') may use 1 request per minute.\n"
    asked = server.asked("PATCH /headrace/v1/keys/3")
    assert asked == [{"tokens_per_minute": None, "requests_per_minute": 1}]
    assert run(["keys", "update", "3"]) == 2
    assert server.asked("PATCH /headrace/v1/keys/3") == asked
    capsys.readouterr()
    assert run(["keys"]) == 0
    assert "5 requests, 10,000 tokens" in capsys.readouterr().out


def test_a_key_is_meant_by_its_id_or_by_a_name_that_is_its_alone(server, capsys):
    """An id goes before a name, a good key before revoked ones; several of the name are told with their ids."""
    rows = [("1", "me", 5.0), ("2", "me", None), ("3", "2", None), ("4", "twin", None), ("5", "twin", None)]
    keys = [{"id": key_id, "name": name, "revoked_at": revoked_at} for key_id, name, revoked_at in rows]
    server.answers["GET /headrace/v1/keys"] = (200, {"keys": keys})
    server.answers["DELETE /headrace/v1/keys/2"] = (200, keys[1])
    server.answers["PATCH /headrace/v1/keys/2"] = (200, keys[1])
    for wanted in ("me", "2"):
        assert run(["keys", "revoke", wanted, "--yes"]) == 0
        assert capsys.readouterr().out == "Key 2 ('me') is revoked.\n"
        assert run(["keys", "update", wanted, "--tokens-per-minute", "0"]) == 0
        assert capsys.readouterr().out == "Key 2 ('me') has no limits.\n"
    assert run(["keys", "revoke", "twin", "--yes"]) == 2
    shown = capsys.readouterr().err
    assert "NAME_AMBIGUOUS" in shown
    assert "Their ids: 4, 5." in shown
    assert run(["keys", "revoke", "nobody", "--yes"]) == 3
    assert "KEY_NOT_FOUND" in capsys.readouterr().err


def test_login_checks_and_keeps_the_key(server, capsys, monkeypatch, tmp_path):
    """A key from stdin is checked with whoami, stored privately, and used from then on."""
    import io

    server.answers["GET /headrace/v1/whoami"] = (200, {"name": "me", "role": "viewer", "project": "p"})
    url = server.url
    monkeypatch.delenv("HEADRACE_URL")
    monkeypatch.delenv("HEADRACE_API_KEY")
    monkeypatch.setattr(sys, "stdin", io.StringIO("hr-piped\n"))
    assert run(["login", url]) == 0
    assert server.requests[-1][1]["authorization"] == "Bearer hr-piped"
    assert "hr-piped" not in capsys.readouterr().out
    server.answers["GET /v1beta1/projects/p/locations/us-central1/endpoints"] = (200, {})
    assert run(["endpoints"]) == 0
    assert server.requests[-1][1]["authorization"] == "Bearer hr-piped"


def test_a_key_that_is_not_good_is_not_kept(server, capsys, tmp_path):
    """A login that the server refuses changes nothing."""
    server.answers["GET /headrace/v1/whoami"] = (401, google_error(401, "UNKNOWN_KEY", "Unknown."))
    assert run(["login", server.url, "--key", "hr-bad"]) == 4
    assert not (tmp_path / "config" / "contexts.json").exists()
    capsys.readouterr()


def test_logs_of_an_endpoint_are_its_newest_replicas(server, capsys):
    """An endpoint's name leads to the engine that was started last."""
    replicas = [{"id": "old", "created_at": 1.0}, {"id": "new", "created_at": 2.0}]
    server.answers["GET /headrace/v1/deployments/8"] = (200, {"replicas": replicas})
    server.answers["GET /headrace/v1/replicas/new/logs"] = (200, {"replica": "new", "lines": ["a", "b"]})
    assert run(["logs", "rivers", "--lines", "2"]) == 0
    assert capsys.readouterr().out == "a\nb\n"


# --- programs -------------------------------------------------------------------------------------------------------


def test_starting_up_imports_little():
    """`headrace version` pays for no HTTP client, no web framework, no NumPy."""
    code = (
        "import sys; from headrace.cli.app import run; run(['version']); "
        "print(*sorted(sys.modules.keys() & {'httpx', 'fastapi', 'uvicorn', 'sqlalchemy', 'numpy', 'psutil', 'gguf'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[1:] == [""]


def test_ctrl_c_is_exit_code_130(server):
    """Ctrl-C while a command waits ends it with 130, without a traceback."""
    import signal
    import threading

    arrived = threading.Event()
    answered = threading.Event()

    def hold(_body):
        arrived.set()
        answered.wait(30)
        return 200, {}

    server.answers[LIST] = hold
    command = [sys.executable, "-m", "headrace.cli", "endpoints"]
    process = subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert arrived.wait(30)
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=30)
    finally:
        answered.set()
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
