"""Inference tables: each logged request once in its endpoint's Delta table, whoever is killed and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logged_requests import logged

from headrace.request_log import Counts, LogFiles, LogFormat
from headrace.request_log.delta import InferenceTableWriter, Position
from headrace.request_log.parquet import to_parquet
from headrace.request_log.payloads import PAYLOAD_SCHEMA, log_segments
from headrace.request_log.redaction import Redaction
from headrace.request_log.rows import row_of, to_line
from headrace.request_log.segments import Segments
from headrace.request_log.writer import Writer

NO_REDACTION = Redaction((), (), b"")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """All of a table, as another program reads it."""
    rows: list[dict[str, Any]] = DeltaTable(str(path)).to_pyarrow_table().to_pylist()
    return rows


def ids_of(path: Path) -> list[str]:
    """The requests in it."""
    return sorted(row["databricks_request_id"] for row in rows_of(path))


def table(path: Path) -> InferenceTableWriter:
    """What fills it, just started."""
    return InferenceTableWriter(path, project="p", location="l", endpoint="e")


def segments(folder: Path, **more: Any) -> Segments:
    """Files of the log."""
    return Segments(folder, max_bytes=1 << 30, segment_bytes=1 << 20, **more)


def append(files: Segments, number: int, **fields: Any) -> None:
    """Log one request."""
    files.append(to_line(row_of(logged(number, **fields), NO_REDACTION)))


def test_a_row_has_the_vendors_columns(tmp_path: Path) -> None:
    """With what the log says of the request, and what could not be kept as codes."""
    files = segments(tmp_path / "requests")
    body = b'{"client_request_id": "mine", "messages": []}'
    append(files, 1, request=body, duration_s=1.2344, status=200, deployed_model="d7", key="key-1")
    append(files, 2, request=None, answer=[], status=413, endpoint="e")
    append(files, 3, endpoint="other")
    assert table(tmp_path / "t").append(log_segments(tmp_path / "requests")) == 2
    assert DeltaTable(str(tmp_path / "t")).to_pyarrow_table().column_names == PAYLOAD_SCHEMA.names
    first, second = sorted(rows_of(tmp_path / "t"), key=lambda row: str(row["databricks_request_id"]))
    assert (first["databricks_request_id"], first["client_request_id"]) == ("1", "mine")
    assert (first["status_code"], first["execution_duration_ms"], first["sampling_fraction"]) == (200, 1234, 1.0)
    assert (first["served_entity_id"], first["requester"]) == ("d7", "key-1")
    assert json.loads(first["request"])["client_request_id"] == "mine"
    assert first["request_date"] == first["request_time"].date()
    assert first["logging_error_codes"] == []
    assert (second["request"], second["logging_error_codes"]) == (None, ["MAX_REQUEST_SIZE_EXCEEDED"])


def test_what_is_read_again_is_not_written_again(tmp_path: Path) -> None:
    """By the same filler or by one that knows nothing; of files that grow, are closed, and become Parquet."""
    folder, path = tmp_path / "requests", tmp_path / "t"
    files = segments(folder, closed=to_parquet)
    filler = table(path)
    for number in range(4):
        append(files, number)
        assert filler.append(log_segments(folder)) == 1
        assert table(path).append(log_segments(folder)) == 0
    files.close()
    assert [each.path.suffix for each in log_segments(folder)] == [".parquet"]
    assert filler.append(log_segments(folder)) == 0
    assert table(path).append(log_segments(folder)) == 0
    append(files, 4)
    assert table(path).append(log_segments(folder)) == 1
    assert filler.append(log_segments(folder)) == 0
    assert ids_of(path) == ["0", "1", "2", "3", "4"]


def test_endpoints_may_share_a_table(tmp_path: Path) -> None:
    """Each notes for itself how far it is."""
    folder, path = tmp_path / "requests", tmp_path / "t"
    files = segments(folder)
    for number in range(6):
        append(files, number, endpoint="e" if number % 2 else "f")
    fillers = [table(path), InferenceTableWriter(path, project="p", location="l", endpoint="f")]
    assert [filler.append(log_segments(folder)) for filler in fillers * 2] == [3, 3, 0, 0]
    assert ids_of(path) == ["0", "1", "2", "3", "4", "5"]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    """A file that is written at this moment is read up to its last whole line."""
    folder = tmp_path / "requests"
    folder.mkdir()
    line = to_line(row_of(logged(1), NO_REDACTION))
    path = folder / "20260101T000000Z-0a1b2c3d-000001.jsonl"
    filler = table(tmp_path / "t")
    path.write_bytes(line + line[:20])
    assert filler.append(log_segments(folder)) == 1
    path.write_bytes(line + line)
    assert filler.append(log_segments(folder)) == 1
    assert ids_of(tmp_path / "t") == ["1", "1"]


def test_lines_that_are_not_ours_are_left_out(tmp_path: Path) -> None:
    """Those behind them are not."""
    folder = tmp_path / "requests"
    folder.mkdir()
    lines = [to_line(row_of(logged(number), NO_REDACTION)) for number in range(2)]
    path = folder / "20260101T000000Z-0a1b2c3d-000001.jsonl"
    path.write_bytes(lines[0] + b"nonsense\n" + lines[1])
    (folder / "notes.txt").write_text("nobody's")
    assert table(tmp_path / "t").append(log_segments(folder)) == 2
    assert ids_of(tmp_path / "t") == ["0", "1"]


@pytest.mark.parametrize("kind", list(LogFormat))
def test_what_the_logs_own_writer_writes_is_read(tmp_path: Path, kind: LogFormat) -> None:
    """In either format, closed or not."""
    writer = Writer(tmp_path / "requests", LogFiles(format=kind), Counts.new())
    for number in range(3):
        writer.write(logged(number))
    filler = table(tmp_path / "t")
    assert filler.append(log_segments(tmp_path / "requests")) == 3
    writer._segments.close()
    assert filler.append(log_segments(tmp_path / "requests")) == 0


STEPS = st.lists(
    st.sampled_from(["ask", "ask", "ask", "close", "fill", "restart filler", "kill filler", "new gateway"]), max_size=25
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_every_request_once_whatever_happens(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """Requests, files that close, fillers that are killed before and after they commit, gateways that begin anew."""
    home = tmp_path_factory.mktemp("t")
    folder, path = home / "requests", home / "table"
    files, filler, asked = segments(folder, closed=to_parquet), table(path), 0
    for step in [*steps, "fill"]:
        if step == "ask":
            append(files, asked)
            asked += 1
        elif step == "close":
            files.close()
        elif step == "new gateway":
            files.close()
            files = segments(folder, closed=to_parquet)
        elif step == "restart filler":
            filler = table(path)
        elif step == "kill filler":  # after its commit, before it remembers anything
            table(path).append(log_segments(folder))
            filler = table(path)
        else:
            filler.append(log_segments(folder))
    assert (ids_of(path) if asked else []) == sorted(str(number) for number in range(asked))


@given(number=st.integers(0, 2**31 - 1), rows=st.integers(0, 2**32 - 1))
def test_a_position_is_a_number_that_only_grows(number: int, rows: int) -> None:
    """It is read back, and every row and every file counts more than those before."""
    position = Position(number, rows)
    assert Position.of(position.version) == position
    assert position.version < 2**63
    assert Position(number + 1, 0).version > position.version
