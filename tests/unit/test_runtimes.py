"""The promises of runtimes' commands, and of what an engine's end means."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from launches import launch_in

from headrace.resources.errors import CODES
from headrace.runtimes import RUNTIMES, EngineEnd, Environment
from headrace.runtimes.ending import FIXES, classify


def test_an_engines_command_holds_what_it_needs_and_no_secret_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is made, not inherited, and the nonce is not on the command line."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("HF_TOKEN", "hunter3")
    command = RUNTIMES["transformers"].command(launch_in(tmp_path), Environment(tmp_path / "env", tmp_path / "engines"))
    assert command.argv[0] == str(tmp_path / "env" / "bin" / "python")
    assert command.argv[command.argv.index("--max-model-len") + 1] == "2048"
    assert "nonce-of-7" not in command.argv
    assert command.env["HEADRACE_ENGINE_TOKEN"] == "nonce-of-7"
    assert command.env["PYTHONPATH"] == str(tmp_path / "engines")
    assert not {"hunter2", "hunter3"} & set(command.env.values())


@pytest.mark.parametrize(
    ("runtime", "prefix_caching", "switches"),
    [
        ("openvino", None, set()),
        ("openvino", True, {"--prefix-caching"}),
        ("openvino", False, {"--no-prefix-caching"}),
        ("transformers", None, set()),
        ("transformers", False, set()),
    ],
)
def test_engines_behind_our_shell_are_told_what_a_version_wishes(
    tmp_path: Path, runtime: str, prefix_caching: bool | None, switches: set[str]
) -> None:
    """A chat template by its file; prefix caching where the engine has it, and nothing of what was left open."""
    launch = launch_in(tmp_path, prefix_caching=prefix_caching)
    environment = Environment(tmp_path / "env", tmp_path / "engines")
    argv = RUNTIMES[runtime].command(launch, environment).argv
    assert {part for part in argv if "prefix-caching" in part} == switches
    assert "--chat-template" not in argv
    template = tmp_path / "own.jinja"
    argv = RUNTIMES[runtime].command(msgspec.structs.replace(launch, chat_template=template), environment).argv
    assert argv[argv.index("--chat-template") + 1] == str(template)


def end(status: int | None, *lines: str, peak: int = 0, limit: int | None = None, oom_kills: int = 0) -> EngineEnd:
    """An engine's end on a machine with 8 GB."""
    return EngineEnd(
        exit_status=status,
        log_tail=lines,
        peak_resident_bytes=peak,
        memory_limit_bytes=limit,
        machine_memory_bytes=8_000_000_000,
        oom_kills=oom_kills,
    )


@pytest.mark.parametrize("runtime", sorted(RUNTIMES))
@pytest.mark.parametrize(
    ("own", "told"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_every_engine_asks_for_huge_pages_unless_the_operator_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, own: str | None, told: str
) -> None:
    """Weights that are read for every token lie in pages of 2 MiB; other settings of the C library stay."""
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if own is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", own)
    (tmp_path / "model").mkdir()
    command = RUNTIMES[runtime].command(launch_in(tmp_path), Environment(tmp_path / "env", tmp_path / "engines"))
    assert command.env["GLIBC_TUNABLES"] == told


@pytest.mark.parametrize(
    ("ended", "code", "evidence"),
    [
        (end(-9, "loading"), "ENGINE_DIED", "loading"),
        (end(-9, oom_kills=1), "ENGINE_OUT_OF_MEMORY", "kernel"),
        (end(-9, peak=7_900_000_000), "ENGINE_OUT_OF_MEMORY", "7,900,000,000"),
        (end(-9, peak=1_900_000_000, limit=2_000_000_000), "ENGINE_OUT_OF_MEMORY", "2,000,000,000"),
        (end(-9, peak=1_000_000_000, limit=2_000_000_000), "ENGINE_DIED", "wrote nothing"),
        (end(1, "Traceback", "MemoryError"), "ENGINE_OUT_OF_MEMORY", "MemoryError"),
        (end(1, "RuntimeError: can't allocate memory: you tried"), "ENGINE_OUT_OF_MEMORY", "can't allocate"),
        (end(-6, "terminate called after throwing an instance of 'std::bad_alloc'"), "ENGINE_OUT_OF_MEMORY", "bad_"),
        (end(-11, "one", "two"), "ENGINE_DIED", "one | two"),
        (end(None), "ENGINE_DIED", "wrote nothing"),
        (end(0, peak=7_900_000_000), "ENGINE_DIED", "wrote nothing"),
    ],
)
def test_an_engines_end_is_classified_by_its_evidence(ended: EngineEnd, code: str, evidence: str) -> None:
    """Status, peak memory, the kernel's count and the log decide; the failure shows which of them did, and a fix."""
    failure = classify(ended)
    assert failure.code == code
    assert evidence in failure.evidence
    assert failure.fix


def test_the_engines_own_last_words_win() -> None:
    """The last fatal line says what happened, whatever the status and the other lines say."""
    words = [json.dumps({"code": code, "message": f"{code}!", "evidence": "seen"}) for code in FIXES]
    for line, code in zip(words, FIXES, strict=True):
        failure = classify(end(3, f"HEADRACE_FATAL {words[0]}", "MemoryError", f"HEADRACE_FATAL {line}", "bye"))
        assert (failure.code, failure.message, failure.evidence) == (code, f"{code}!", "seen")
        assert failure.fix


def test_the_death_by_signal_is_named() -> None:
    """A person reads SIGSEGV, not -11."""
    assert "SIGSEGV" in classify(end(-11)).message
    assert "signal 99" in classify(end(-99)).message


@given(st.one_of(st.none(), st.integers(-200, 255)), st.lists(st.text() | st.text().map("HEADRACE_FATAL ".__add__)))
def test_whatever_an_engine_writes_its_end_has_a_known_code(status: int | None, lines: list[str]) -> None:
    """No output breaks the classification."""
    assert classify(end(status, *lines)).code in CODES
