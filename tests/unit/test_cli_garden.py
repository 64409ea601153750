"""``headrace garden`` and ``headrace deploy garden:…``: what is shown without a server, and what a server is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_server import ScriptedServer, serving

from headrace.catalogue import entries, find_entry, notebook_of
from headrace.cli.app import run
from headrace.cli.what_next import kind_of

DEMO = "huggingfacetb/smollm2@smollm2-135m-instruct"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data directory and no login but those of the test."""
    monkeypatch.setenv("HEADRACE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted server that takes a deployment."""
    monkeypatch.setenv("HEADRACE_API_KEY", "hr-test")
    with serving() as server:
        monkeypatch.setenv("HEADRACE_URL", server.url)
        operation = {"id": "5", "targets": {"endpoint": "7"}, "project": "default", "location": "us-central1"}
        server.answers["POST /headrace/v1/deployments"] = (200, operation)
        yield server


def test_the_list_has_every_entry(capsys: pytest.CaptureFixture[str]) -> None:
    """The bare name lists every version; a text narrows it down."""
    assert run(["garden"]) == 0
    shown = capsys.readouterr().out
    assert all(entry.id in shown for entry in entries())
    assert run(["garden", "list", "--search", "Llama 3.1", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert {each["model"] for each in models} == {"llama3_1"}
    assert run(["garden", "list", "--search", "no such"]) == 0
    assert capsys.readouterr().out == "None has 'no such' in its names.\n"


def test_a_model_is_shown_with_the_command_that_deploys_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Licence, size and machines of a model, and the acceptance in the command where its licence asks for one."""
    assert run(["garden", "show", "gemma-3-1b-it"]) == 0
    shown = capsys.readouterr().out
    for part in ("999,885,952", "https://ai.google.dev/gemma/terms", "g2-standard-4", "google/gemma-3-1b-it"):
        assert part in shown
    assert "headrace deploy garden:google/gemma3@gemma-3-1b-it --accept-licence" in shown
    assert run(["garden", "show", DEMO]) == 0
    assert "--accept-licence" not in capsys.readouterr().out


def test_an_unknown_model_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is none ends as other things do that are not there."""
    assert run(["garden", "show", "nobody/nothing"]) == 3
    assert "MODEL_NOT_FOUND" in capsys.readouterr().err


def test_options_say_what_fits_here_and_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    """The demonstration model fits any machine that runs this test; DeepSeek does not, and it is said what keeps it."""
    assert run(["garden", "options", DEMO, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["this_machine"]["fits"] is True
    assert told["options"][0]["machine_type"]
    assert run(["garden", "options", "deepseek-ai/deepseek-v3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["this_machine"]
    assert told["fits"] is False
    assert told["code"]
    assert told["verdict"]
    assert run(["garden", "options", "deepseek-ai/deepseek-v3"]) == 0
    assert told["verdict"] in capsys.readouterr().out.replace("\n", " ")


def test_options_are_for_the_load_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Longer and more sequences need more; a context that the model does not have is refused."""
    needs = []
    for more in ([], ["--context", "100000", "--concurrency", "32"]):
        assert run(["garden", "options", "llama-3.1-8b", "--json", *more]) == 0
        needs.append(json.loads(capsys.readouterr().out)["options"][0]["need_bytes"])
    assert needs[1] > 2 * needs[0]
    assert run(["garden", "options", "llama-3.1-8b", "--context", "1000000"]) == 2
    assert "BAD_FIELD" in capsys.readouterr().err


def test_a_notebook_is_written_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The notebook goes to stdout or to a new file; a file that is there stays."""
    assert run(["garden", "notebook", DEMO]) == 0
    assert json.loads(capsys.readouterr().out) == notebook_of(find_entry(DEMO))
    target = tmp_path / "demo.ipynb"
    assert run(["garden", "notebook", DEMO, "--output", str(target)]) == 0
    assert json.loads(target.read_text()) == notebook_of(find_entry(DEMO))
    capsys.readouterr()
    assert run(["garden", "notebook", "gpt-oss-20b", "--output", str(target)]) == 2
    assert json.loads(target.read_text()) == notebook_of(find_entry(DEMO))


@pytest.mark.parametrize("name", ["garden:meta/llama3-2@llama-3.2-1b-instruct", "hf:acme/river"])
def test_deploy_passes_published_names_on(server: ScriptedServer, name: str) -> None:
    """A published model's name is the server's to resolve; the acceptance of its licence goes along."""
    assert run(["deploy", name, "--accept-licence", "--no-wait"]) == 0
    (body,) = server.asked("POST /headrace/v1/deployments")
    assert (body["artifact_uri"], body["accept_licence"]) == (name, True)
    assert run(["deploy", name, "--no-wait"]) == 0
    assert "accept_licence" not in server.asked("POST /headrace/v1/deployments")[1]


def test_what_to_try_next_is_what_the_model_does() -> None:
    """A model that follows instructions is chatted with, a base model continued."""
    assert kind_of(f"garden:{DEMO}") == "chat"
    assert kind_of("garden:mistral-ai/mistral") == "complete"
    assert kind_of("hf:acme/river") == "chat"
