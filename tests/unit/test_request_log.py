"""The request log on disk: what is chosen, what is redacted, and what its files are whatever happens."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logged_requests import CHAT_ANSWER, CHAT_BODY, is_written, lines_in, logged

from headrace.request_log import Counts, LogFiles, LogFormat, write_frame
from headrace.request_log.frames import read_frame
from headrace.request_log.hash_key import hash_key
from headrace.request_log.parquet import to_parquet
from headrace.request_log.redaction import MARK, Redaction
from headrace.request_log.rows import row_of, to_line
from headrace.request_log.segments import Segments
from headrace.request_log.writer import Writer
from headrace.resources.request_log import RequestLog

KEY = b"k" * 32
NOTHING = Redaction((), (), KEY)
SECRET = "Xyzzy"

_LEAVES = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | st.text('abc {}[]"\\', max_size=6)
_NAMES = st.sampled_from(["a", "b", "content", "messages"])
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3), max_leaves=15
)


# ---------------------------------------------------------------- which requests


@given(ids=st.lists(st.text(min_size=1, max_size=40), max_size=20), rates=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(deadline=None)
def test_a_request_is_chosen_by_its_id_alone(ids: list[str], rates: tuple[float, float]) -> None:
    """At every gateway alike; at a higher rate all those of a lower one, and more; at 1 all."""
    low, high = (RequestLog(sampling_rate=rate) for rate in sorted(rates))
    for one in ids:
        assert RequestLog().takes(one)
        assert high.takes(one) or not low.takes(one)


def test_the_share_is_the_rate() -> None:
    """And which ones is the same on every machine and in every version."""
    chosen = [number for number in range(2000) if RequestLog(sampling_rate=0.1).takes(f"request-{number}")]
    assert 150 < len(chosen) < 250
    half = RequestLog(sampling_rate=0.5)
    assert [half.takes(name) for name in ("a", "b", "c", "d")] == [False, True, True, True]


# ---------------------------------------------------------------- redaction


def _holds(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@given(inside=_JSON, around=_JSON, under=st.sampled_from(["secret", "very.secret"]))
@settings(deadline=None)
def test_what_is_in_a_redacted_field_is_nowhere(inside: Any, around: Any, under: str) -> None:
    """However deep it is, and whatever lies beside it."""
    hidden = {"secret": [inside, {SECRET: SECRET}]}
    value = [around, {"very": [hidden]}, {"deeper": {"very": hidden}}]
    redacted = Redaction([under], [], KEY).apply(value)
    assert SECRET not in _holds(redacted)
    assert redacted[0] == around


@given(value=_JSON)
@settings(deadline=None)
def test_what_matches_a_pattern_is_nowhere(value: Any) -> None:
    """In texts, in names, and in numbers."""
    redacted = Redaction([], ["[abc]", r"\d"], KEY).apply({"abc": value, "1": 1.5})
    left = _holds(redacted).replace(MARK, "")
    assert not re.search(r"[abc\d]", re.sub("null|false|true", "", left))


@given(value=_JSON)
@settings(deadline=None)
def test_nothing_else_is_changed(value: Any) -> None:
    """What neither field nor pattern means stays as it is."""
    assert Redaction(["elsewhere", "b.messages.content.x"], [SECRET], KEY).apply(value) == value


SLOW = "(a|aa)+$"
"""The time that it takes doubles with every ``a``."""


def test_what_cannot_be_redacted_in_time_is_not_written() -> None:
    """The row says so, has what could be, and the next one is not late for it."""
    redaction = Redaction([], [SLOW, "555"], KEY)
    endless = json.dumps({"x": ["a" * 60 + "!"] * 9}).encode()
    row = row_of(logged(request=endless), redaction)
    assert (bytes(row.request), row.note) == (b"null", "request could not be redacted in time")
    assert json.loads(bytes(row.response)) == json.loads(CHAT_ANSWER)
    row = row_of(logged(answer=[endless]), redaction)
    assert (bytes(row.response), row.note) == (b"null", "response could not be redacted in time")
    assert MARK.encode() in bytes(row.request)
    streamed = [b'data: {"choices": [{"index": 0, "delta": {"content": "%b!"}}]}\n\n' % (b"a" * 60)]
    assert row_of(logged(streamed=True, answer=streamed), redaction).note == "response could not be redacted in time"
    assert row_of(logged(), redaction).note == ""


@given(text=st.text("ab1{}[]:,e dgit\\", max_size=20))
@settings(deadline=None)
@pytest.mark.parametrize(
    "pattern",
    [
        "a{e}",
        "a{i<=1}",
        "a{,2}b",
        "{}",
        r"\{e}",
        "[{e}]",
        "a{2}{1e}",
        "[a:]e",
        "[:e]",
        r"\[:a",
        r"[\\[:]",
        r"\d+",
        r"\N{COLON}",
    ],
)
def test_a_pattern_means_what_it_means_to_pythons_re(pattern: str, text: str) -> None:
    """Whatever else the library that looks for it would understand."""
    assert Redaction([], [pattern], KEY).apply(text) == re.sub(pattern, MARK, text)


def test_equal_texts_have_equal_hashes_under_one_key() -> None:
    """So that repetition can be seen, and nobody without the key can try texts."""
    one, other = (Redaction(["content"], [], key) for key in (KEY, b"other" * 4))
    a, b, c = one.apply([{"content": "hello"}, {"content": "hello"}, {"content": "hellO"}])
    assert a == b != c
    assert a["content"]["redacted"]["length"] == 5
    assert one.apply({"content": "hello"}) != other.apply({"content": "hello"})
    assert one.apply({"content": None}) == {"content": None}


def test_a_path_ends_where_it_says() -> None:
    """Names with dots are the last part of the way to a member; lists on it do not count."""
    value = {"messages": [{"content": "x", "name": "n"}], "content": "y"}
    redacted = Redaction(["messages.content"], [], KEY).apply(value)
    assert (redacted["content"], redacted["messages"][0]["name"]) == ("y", "n")
    assert "redacted" in redacted["messages"][0]["content"]


def test_gateways_share_the_key_of_the_hash(tmp_path: Path) -> None:
    """It is made once, lies beside the log's folder, and only its owner may read it."""
    keys = {hash_key(tmp_path) for _ in range(3)}
    assert len(keys) == 1
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_equal_values_have_equal_hashes_whichever_gateway_logs_them(tmp_path: Path) -> None:
    """The writers of several gateways have one key, which the first of them makes."""
    hidden = []
    for _ in range(2):
        writer = Writer(tmp_path / "gateway" / "requests", LogFiles(writers=2), Counts.new())
        hidden.append(writer._redaction(("content",), ()).apply({"content": "my name"}))
    assert hidden[0] == hidden[1]
    assert [path.parent.name for path in tmp_path.rglob("request-log.key")] == ["gateway"]


# ---------------------------------------------------------------- rows


def test_a_row_tells_what_was_asked_and_answered() -> None:
    """Bodies as they came, on one line."""
    line = to_line(row_of(logged(), NOTHING))
    assert line.count(b"\n") == 1
    row = json.loads(line)
    assert (row["request"], row["response"]) == (json.loads(CHAT_BODY), json.loads(CHAT_ANSWER))
    assert (row["at"], row["key"], row["status"], row["note"]) == ("2001-09-09T01:46:40Z", "k", 200, "")
    assert (row["queue_s"], row["ttft_s"], row["duration_s"]) == (0.25, 0.5, 1.0)
    assert (row["prompt_tokens"], row["completion_tokens"], row["sampling_rate"]) == (7, 3, 1.0)


def test_a_streamed_answer_is_put_together() -> None:
    """A field is redacted in it as in an answer of one piece."""
    pieces = [b'data: {"choices": [{"index": 0, "delta": {"content": "%b"}}]}\n\n' % word for word in (b"Xyz", b"zy")]
    streamed = logged(streamed=True, answer=pieces)
    assert json.loads(bytes(row_of(streamed, NOTHING).response)) == {
        "choices": [{"index": 0, "message": {"content": SECRET}}]
    }
    for redaction in (Redaction(["message.content"], [], KEY), Redaction([], [SECRET], KEY)):
        assert SECRET.encode() not in to_line(row_of(streamed, redaction))


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"request": None}, "request too large"),
        ({"request": b"{"}, "request is not JSON that can be read"),
        ({"answer": [b"<html>"]}, "response is not JSON that can be read"),
        ({"answer": [CHAT_ANSWER], "cut": True}, "response too large"),
        ({"answer": [b"data: {}\n\n"], "cut": True, "streamed": True}, "response cut"),
    ],
)
@pytest.mark.parametrize("redaction", [NOTHING, Redaction(["content"], [], KEY)])
def test_what_cannot_be_redacted_is_not_written(fields: dict[str, Any], note: str, redaction: Redaction) -> None:
    """And the row says what is missing."""
    row = row_of(logged(**fields), redaction)
    assert row.note == note
    assert json.loads(to_line(row))


@given(body=st.binary(max_size=60) | _JSON.map(lambda value: json.dumps(value, indent=1).encode()))
@settings(deadline=None)
def test_any_body_is_one_line(body: bytes) -> None:
    """Whatever somebody sent."""
    for redaction in (NOTHING, Redaction(["a"], [SECRET], KEY)):
        line = to_line(row_of(logged(request=body, answer=[body]), redaction))
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        json.loads(line)


@given(answer=st.lists(st.binary(max_size=3), max_size=3000), body=st.none() | st.binary(max_size=9))
@settings(max_examples=20, deadline=None)
def test_requests_pass_through_a_pipe(answer: list[bytes], body: bytes | None) -> None:
    """Whole, however many pieces their answers have; what is cut short is none."""
    request = logged(answer=answer, request=body)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 2**16)
    write_frame(writing, request)
    write_frame(writing, logged())
    os.close(writing)
    found = [read_frame(reading), read_frame(reading), read_frame(reading)]
    os.close(reading)
    assert found == [msgspec.structs.replace(request, answer=[b"".join(answer)]), logged(), None]


@given(data=st.data())
@settings(deadline=None)
def test_what_is_cut_short_is_none(data: st.DataObject) -> None:
    """A gateway that was killed in the middle of a request leaves nothing of it."""
    reading, writing = os.pipe()
    write_frame(writing, logged())
    whole = os.read(reading, 2**16)
    os.write(writing, whole[: data.draw(st.integers(0, len(whole) - 1))])
    os.close(writing)
    assert read_frame(reading) is None
    os.close(reading)


# ---------------------------------------------------------------- files


def segments(folder: Path, **options: Any) -> Segments:
    """Of one writer."""
    return Segments(folder, **({"max_bytes": 10**6, "segment_bytes": 10**5} | options))


def test_files_follow_each_other(tmp_path: Path) -> None:
    """One that is large or old enough is followed by another; only the one that is written is locked."""
    for folder, options in ((tmp_path / "size", {"segment_bytes": 1}), (tmp_path / "age", {"segment_s": 0.0})):
        files = segments(folder, **options)
        for number in range(3):
            files.close_if_due()
            files.append(b'{"n": %d}\n' % number)
        found = sorted(folder.iterdir())
        assert [row["n"] for row in lines_in(folder)] == [0, 1, 2]
        assert [is_written(path) for path in found] == [False, False, True]
        assert {path.stat().st_mode & 0o777 for path in (folder, *found)} == {0o700, 0o600}
        files.close()
        assert not is_written(found[-1])
        assert files.due_in_s is None


def test_the_oldest_files_go(tmp_path: Path) -> None:
    """Before all of them take more than they may; what somebody else writes stays, however old it is."""
    other = segments(tmp_path)
    other.append(b'{"n": "other"}\n')
    files = segments(tmp_path, max_bytes=100, segment_bytes=20)
    for number in range(30):
        files.append(b'{"n": %7d}\n' % number)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 120
    rows = [row["n"] for row in lines_in(tmp_path)]
    rows.remove("other")
    assert rows == list(range(30))[-len(rows) :]
    assert len(rows) > 2


@pytest.mark.parametrize("gateways", [1, 3])
def test_the_bound_is_of_the_whole_log(tmp_path: Path, gateways: int) -> None:
    """However many gateways write there, and whatever gateways left that are no more."""
    (tmp_path / "20200101T000000Z-0-000001.jsonl").write_bytes(b"x" * 3000)
    files = LogFiles(max_bytes=2000, writers=gateways)
    writing = [
        segments(tmp_path, max_bytes=2000, segment_bytes=files.segment_bytes, writers=gateways) for _ in range(gateways)
    ]
    for number in range(300):
        writing[number % gateways].append(b'{"n": %7d}\n' % number)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2000
    assert max(row["n"] for row in lines_in(tmp_path)) == 299


def test_half_a_line_of_a_killed_writer_goes(tmp_path: Path) -> None:
    """The lines before it stay; files that are written are left alone."""
    living = segments(tmp_path)
    living.append(b"{}\n")
    (tmp_path / "1.jsonl").write_bytes(b'{"n": 1}\n{"n": 2}\n{"n"')
    (tmp_path / "2.jsonl").write_bytes(b"x" * 200_000)
    segments(tmp_path).recover()
    assert (tmp_path / "1.jsonl").read_bytes() == b'{"n": 1}\n{"n": 2}\n'
    assert (tmp_path / "2.jsonl").read_bytes() == b""
    living.append(b"{}\n")
    assert len(lines_in(tmp_path)) == 4


def test_what_cannot_be_written_is_counted(tmp_path: Path) -> None:
    """And the next one is written, once there is room again."""
    counts = Counts.new()
    folder = tmp_path / "requests"
    folder.touch()
    writer = Writer(folder, LogFiles(), counts)
    for number in range(2):
        writer.write(logged(number))
    assert (counts.written, counts.failed, counts.trouble) == (0, 2, os.strerror(errno.EEXIST))
    folder.unlink()
    writer.write(logged(2, settings=RequestLog(redact_patterns=("(",))))  # cannot be: nobody lets it through
    writer.write(logged(3))
    assert (counts.written, counts.failed, counts.trouble) == (1, 3, "")
    assert [row["request_id"] for row in lines_in(folder)] == ["3"]
    counts.close()


# ---------------------------------------------------------------- Parquet


def test_a_closed_file_becomes_parquet(tmp_path: Path) -> None:
    """With the same rows and columns, bodies as JSON in texts, readable by its owner only."""
    counts = Counts.new()
    writer = Writer(tmp_path / "requests", LogFiles(format=LogFormat.PARQUET), counts)
    reading, writing = os.pipe()
    bare = {"prompt_tokens": None, "ttft_s": None, "request": None}
    write_frame(writing, logged(1))
    write_frame(writing, logged(2, **bare))
    os.close(writing)
    writer.serve(reading)
    os.close(reading)
    (path,) = (tmp_path / "requests").iterdir()
    assert (path.suffix, path.stat().st_mode & 0o777) == (".parquet", 0o600)
    one, two = pq.read_table(path).to_pylist()
    assert json.loads(one["request"]) == json.loads(CHAT_BODY)
    assert (one["request_id"], one["at"].isoformat()) == ("1", "2001-09-09T01:46:41+00:00")
    assert (two["prompt_tokens"], two["ttft_s"], two["request"]) == (None, None, None)
    assert two["note"] == "request too large"
    counts.close()


def test_what_a_killed_writer_left_becomes_parquet(tmp_path: Path) -> None:
    """All its whole rows, however many there are; a file with lines that are none stays as it is."""
    row = to_line(row_of(logged(), NOTHING))
    (tmp_path / "1.jsonl").write_bytes(row * 2501 + b'{"at')
    (tmp_path / "2.jsonl").write_bytes(b"")
    (tmp_path / "3.jsonl").write_bytes(row + b"no row\n")
    segments(tmp_path, closed=to_parquet).recover()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.parquet", "3.jsonl"]
    assert pq.read_table(tmp_path / "1.parquet").num_rows == 2501


def test_what_cannot_be_made_parquet_stays_as_it_is(tmp_path: Path) -> None:
    """The rows of a file are in one of its two forms, and the log goes on."""
    files = segments(tmp_path, segment_bytes=1, closed=to_parquet)
    row = to_line(row_of(logged(), NOTHING))
    files.append(row)
    (path,) = tmp_path.iterdir()
    path.with_suffix(".parquet").mkdir()
    (path.with_suffix(".parquet") / "x").touch()
    files.append(row)
    assert len(lines_in(tmp_path)) == 2
    assert not list(tmp_path.glob("*.new"))
