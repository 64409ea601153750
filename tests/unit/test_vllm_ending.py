"""The promises of what a vLLM server's end means, kept with its own logs (tests/unit/fixtures_vllm)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.resources.errors import CODES
from headrace.runtimes import EngineEnd
from headrace.runtimes.vllm.ending import SIGNS, classify

FIXTURES = Path(__file__).parent / "fixtures_vllm"


class Fixture(NamedTuple):
    """A log and what it must be taken for; its head is lines of ``# name: value``."""

    head: dict[str, str]
    lines: list[str]

    @property
    def end(self) -> EngineEnd:
        """As the node tells it."""
        status = None if self.head["exit"] == "unknown" else int(self.head["exit"])
        return EngineEnd(exit_status=status, log_tail=self.lines[-200:])


def read(path: Path) -> Fixture:
    """A fixture from its file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line.removeprefix("# ").partition(": ") for line in lines if line.startswith("# ")]
    return Fixture({name: value for name, _, value in head}, [line for line in lines if not line.startswith("# ")])


LOGS = sorted(FIXTURES.glob("*.log"))


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_an_end_is_taken_for_what_it_was(path: Path) -> None:
    """Code, stage and evidence are those that the log shows, and there is something to do about it."""
    fixture = read(path)
    assert fixture.head["origin"] in {"recorded", "synthetic"}
    failure = classify(fixture.end)
    assert failure.code == fixture.head["code"]
    assert fixture.head["evidence"] in failure.evidence
    assert fixture.head.get("message", "") in failure.message
    assert failure.fix


def test_every_sign_is_seen_in_a_fixture() -> None:
    """No pattern stands there for a line that nobody ever read."""
    lines = [line for path in LOGS for line in read(path).lines]
    unseen = [sign.pattern.pattern for sign in SIGNS if not any(sign.pattern.search(_bare(line)) for line in lines)]
    assert unseen == []


def _bare(line: str) -> str:
    return line.partition("] ")[2] if line.startswith("(") else line


def test_the_docs_claim_what_the_fixtures_show() -> None:
    """For each code: recorded or synthetic in the table of docs/engines.md as its logs are labelled, and no more."""
    shown = {(each.head["code"], each.head["origin"]) for each in map(read, LOGS)}
    claimed = set()
    for line in (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8").splitlines():
        codes, *columns = (part.strip() for part in line.strip("|").split("|"))
        if len(columns) == 2 and codes.startswith("`") and all(code.strip("` ") in CODES for code in codes.split(",")):
            filled = [origin for origin, told in zip(("recorded", "synthetic"), columns, strict=True) if told]
            claimed |= {(code.strip("` "), origin) for code in codes.split(",") for origin in filled}
    assert claimed == shown


def test_an_unknown_cause_is_still_the_evidence() -> None:
    """What vLLM says last is only that something above went wrong, so the first exception is shown instead."""
    failure = classify(
        EngineEnd(
            exit_status=1,
            log_tail=[
                "(Worker pid=7) ERROR 11-21 10:00:00 [multiproc_executor.py:953] KeyError: 'rope_scaling'",
                "Exception: WorkerProc initialization failed due to an exception in a background process.",
                "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
            ],
        )
    )
    assert failure.code == "ENGINE_DIED"
    assert failure.evidence == "Its log says: KeyError: 'rope_scaling'"


@given(st.one_of(st.none(), st.integers(-64, 255)), st.lists(st.text()))
def test_whatever_it_writes_its_end_has_a_known_code(status: int | None, lines: list[str]) -> None:
    """No output breaks the classification."""
    assert classify(EngineEnd(exit_status=status, log_tail=lines)).code in CODES
