"""`headrace certify`: what a certificate says follows from what was seen, and its page shows it to a reader."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cli.certify import page as pages
from headrace.cli.certify.figures import Asked, Certificate, document, figures, quantiles, work_error
from headrace.cli.certify.lengths import alike, of_trace
from headrace.cli.certify.load import Tenant, drive
from headrace.cli.certify.page import page
from headrace.cli.contexts import Login
from headrace.cli.exits import WrongUsage
from headrace.resources.errors import EngineFailed
from headrace.resources.profiles import Carried, Cost

T = TypeVar("T")
TOKENS = Cost(prompt=1.0, prompt_squared=0.0, step=0.0, sequence=1.0, context=0.0)
CARRIED = Carried(cost=TOKENS, concurrency=1, first_s=1.0, gap_s=0.1)


def _asked(**fields: object) -> Asked:
    return Asked(**({"at_s": 0.0, "prompt_tokens": 30, "output_tokens": 10} | fields))  # type: ignore[arg-type]


def _certificate(asked: list[Asked], **fields: object) -> Certificate:
    told = figures(asked, 10.0, CARRIED, first_s=1.0, gap_s=0.1)
    given_ = {"endpoint": "river", "at": 1e9, "seconds": 10.0, "rate_tokens_per_s": 100.0, "first_s": 1.0, "gap_s": 0.1}
    return Certificate(**(given_ | {"guaranteed_tokens_per_s": 110, "tenant": told} | fields))  # type: ignore[arg-type]


def test_attainment_is_of_work_and_not_of_requests() -> None:
    """A long request that came too late weighs more than a short one that did not."""
    good = _asked(first_s=0.5, wall_s=1.0)
    late = _asked(prompt_tokens=60, output_tokens=20, first_s=1.5, wall_s=2.0)
    slow = _asked(prompt_tokens=60, output_tokens=20, first_s=0.5, wall_s=9.0)
    refused = _asked(code="QUEUE_FULL")
    told = figures([good, late, slow, refused], 10.0, CARRIED, first_s=1.0, gap_s=0.1)
    assert told.attainment == pytest.approx(40 / 240)
    assert (told.asked, told.answered, told.refusals) == (4, 3, {"QUEUE_FULL": 1})
    assert told.attained_tokens_per_s == pytest.approx(20.0)
    assert told.offered_tokens_per_s == pytest.approx(24.0)


def test_of_answers_that_were_not_streamed_no_latency_is_told() -> None:
    """Who floods is not timed: its column is empty, not a row of zeros that were kept by nobody."""
    told = figures([_asked(wall_s=3.0)], 10.0, CARRIED, first_s=1.0, gap_s=0.1, streamed=False)
    assert (told.answered, told.attainment, told.first.p99) == (1, 0.0, 0.0)
    shown = page(_certificate([_asked(first_s=0.5, wall_s=1.0)], flood=told), [])
    assert shown.count("<td>not streamed</td>") == 2
    assert "<td>0.0%</td>" not in shown


@given(st.lists(st.floats(0.0, 1e6), min_size=1))
def test_quantiles_are_values_in_their_order(values: list[float]) -> None:
    """Each is one that was seen, and a higher one is not lower."""
    told = quantiles(values)
    assert {told.p50, told.p95, told.p99} <= set(values)
    assert told.p50 <= told.p95 <= told.p99


def test_a_promise_is_kept_from_99_of_100_on() -> None:
    """Of a hundred alike one may be late, two may not; and a load that was in its own way tells nothing."""
    good, late = _asked(first_s=0.5, wall_s=1.0), _asked(first_s=2.0, wall_s=3.0)
    assert _certificate([good] * 99 + [late]).kept
    assert not _certificate([good] * 98 + [late] * 2).kept
    busy = _certificate([good] * 100, own_cpu=0.4)
    assert not busy.kept
    assert "does not count" in busy.verdict
    assert not _certificate([]).kept
    of_one = document(_certificate([good]))["verdict"]
    assert of_one.endswith("That is of 1 asked, few for such a share: at this rate 100 take some 17 minutes.")
    assert document(_certificate([good] * 100))["verdict"].endswith("99% are promised.")


def test_the_cost_models_error_is_of_what_busy_replicas_had_time_for() -> None:
    """Two replicas for ten seconds have twenty; answered work of thirty is half more."""
    assert work_error([_asked(), _asked(code="X")], CARRIED, seconds=10.0, replicas=2) == pytest.approx(1.0)


def test_lengths_keep_to_the_context() -> None:
    """Requests that the context has no room for are shortened in proportion."""
    draw, mean = alike(768, 256, 512)
    prompt, output = draw(random.Random(1))
    assert prompt + output == mean < 512
    assert prompt / output == pytest.approx(3.0, rel=0.02)
    assert alike(768, 256, 8192)[1] == 1024


def test_lengths_of_a_file(tmp_path: Path) -> None:
    """They are drawn from those that fit; a file without any, or of something else, is refused with the columns."""
    file = tmp_path / "trace.csv"
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n1,100,20\n2,9000,5\n3,50,10\n")
    draw, mean = of_trace(file, 512)
    assert {draw(random.Random(seed)) for seed in range(20)} == {(100, 20), (50, 10)}
    assert mean == pytest.approx(90.0)
    with pytest.raises(WrongUsage) as refused:
        of_trace(file, 20)
    assert "3 requests" in refused.value.failure.evidence
    for text in ("a,b\n1,2\n", "ContextTokens,GeneratedTokens\n1,many\n", "ContextTokens,GeneratedTokens\n1\n"):
        file.write_text(text)
        with pytest.raises(WrongUsage):
            of_trace(file, 512)
    with pytest.raises(WrongUsage):
        of_trace(tmp_path / "none", 512)


class _Tags(HTMLParser):
    """Holds that every tag that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "circle", "path", "rect", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_page_is_whole_and_says_what_was_seen() -> None:
    """It is one document with plots that asks nothing of the network, and what comes from outside is escaped."""
    asked = [_asked(at_s=float(at), first_s=0.5, wall_s=1.0, gaps_s=[0.05] * 9) for at in range(10)]
    told = _certificate(asked, endpoint="<script>alert(1)</script>")
    text = page(told, asked)
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.seen.count("svg") >= 3
    assert "script" not in tags.seen
    assert "100.0%" in text
    assert "src=" not in text
    assert "@import" not in text


def test_a_page_without_plots_says_how_to_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pygal is not installed the tables are there, and the sentence that names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "pygal", None)
    text = pages.page(_certificate([_asked(first_s=0.5, wall_s=1.0)]), [_asked(first_s=0.5, wall_s=1.0)])
    assert "headrace[report]" in text
    assert "<table>" in text


def test_a_server_that_is_gone_is_counted_and_ends_nothing() -> None:
    """Requests that find nobody are told by their code, and the run ends when its time is over."""
    login = Login(url="http://127.0.0.1:9", key="k", origin="here", project="p", location="l")

    async def run() -> Tenant:
        tenant = Tenant(login, "k", "/x", rate=200.0, lengths=alike(8, 2, 0)[0], streams=True, seed=1)
        await drive([tenant], 0.2, asyncio.Event())
        return tenant

    tenant = asyncio.run(run())
    assert tenant.asked
    assert {one.code for one in tenant.asked} == {"NO_ANSWER"}


USAGE = {"usage": {"prompt_tokens": 12}}


async def _answering(answer: dict[str, Any], sent: list[dict[str, Any]], work: Callable[[Login], Awaitable[T]]) -> T:
    """Work beside a server that answers all requests so, and keeps what was sent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                (size,) = re.findall(rb"content-length: (\d+)", head.lower())
                sent.append(json.loads(await reader.readexactly(int(size))))
                body = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await work(Login(f"http://127.0.0.1:{port}", "k", "p", "l", "here"))


@pytest.mark.parametrize(("context", "words"), [(64, 8), (512, 64), (4096, 200), (0, 200)])
def test_the_first_question_fits_a_short_context(context: int, words: int) -> None:
    """How a tokeniser takes the words is asked with as many as a profile asks with: some three tokens are in each."""
    sent: list[dict[str, Any]] = []

    async def prepare(login: Login) -> None:
        lengths = alike(8, 2, context)[0]
        tenant = Tenant(login, "k", "/x", rate=1.0, lengths=lengths, streams=True, seed=1, context_tokens=context)
        await tenant.prepare()
        await tenant.finish(0.0)

    asyncio.run(_answering(USAGE, sent, prepare))
    assert [len(one["prompt"].split()) for one in sent] == [words]


def test_an_answer_that_tells_no_usage_is_none() -> None:
    """Nobody knows how much work it was: it counts as refused, by a code of its own, and a first one ends the run."""

    async def ask(login: Login) -> Tenant:
        tenant = Tenant(login, "k", "/x", rate=200.0, lengths=alike(8, 2, 0)[0], streams=False, seed=1)
        await drive([tenant], 0.2, asyncio.Event())
        return tenant

    async def prepare(login: Login) -> None:
        tenant = Tenant(login, "k", "/x", rate=1.0, lengths=alike(8, 2, 0)[0], streams=True, seed=1)
        try:
            await tenant.prepare()
        finally:
            await tenant.finish(0.0)

    tenant = asyncio.run(_answering({"choices": []}, [], ask))
    assert {one.code for one in tenant.asked} == {"NO_USAGE"}
    with pytest.raises(EngineFailed, match="does not tell"):
        asyncio.run(_answering({"choices": []}, [], prepare))
