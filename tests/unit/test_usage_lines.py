"""The lines of the usage log: whole ones are read as they were written, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.resources.usage import Service, UsageRecord, read_lines, to_line

_TEXT = st.text(max_size=8)
_COUNT = st.integers(0, 10**9)
_RECORDS = st.lists(
    st.builds(
        UsageRecord,
        request_id=_TEXT,
        at=st.floats(0, 4e9),
        key_id=_TEXT,
        project=_TEXT,
        location=_TEXT,
        endpoint_id=_TEXT,
        deployed_model_id=_TEXT,
        model_id=_TEXT,
        model_version=_TEXT,
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        finished=st.booleans(),
        inexact=st.booleans(),
        sent=st.booleans(),
        service=st.none() | st.builds(Service, failed=st.booleans(), first_token_s=st.none() | st.floats(0, 1e5)),
    ),
    max_size=5,
)


@given(records=_RECORDS, data=st.data())
def test_any_cut_leaves_the_records_before_it(records: list[UsageRecord], data: st.DataObject) -> None:
    """However a file is cut short, what is read is its first records and nothing else; the rest is read from there."""
    written = b"".join(map(to_line, records))
    cut = data.draw(st.integers(0, len(written)))
    first = read_lines(written[:cut])
    assert (first.records, first.torn) == (records[: len(first.records)], 0)
    assert first.size_bytes == sum(len(to_line(one)) for one in first.records) <= cut
    then = read_lines(written[first.size_bytes :])
    assert (first.records + then.records, then.torn) == (records, 0)


@given(records=_RECORDS.filter(bool), damage=st.integers(1, 255), data=st.data())
def test_a_damaged_line_is_never_believed(records: list[UsageRecord], damage: int, data: st.DataObject) -> None:
    """One wrong byte costs the records of the lines that it is in, and no other one."""
    written = bytearray(b"".join(map(to_line, records)))
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= damage
    found = read_lines(bytes(written))
    assert len(found.records) >= len(records) - 2  # a line feed that is lost joins two
    left = iter(records)
    assert all(one in left for one in found.records), "those that are left, in their order"


@given(garbage=st.binary(max_size=300))
def test_garbage_has_no_records(garbage: bytes) -> None:
    """Whatever lies in a file, nobody is billed for it."""
    found = read_lines(garbage)
    assert (found.records, found.torn) == ([], garbage.count(b"\n"))
