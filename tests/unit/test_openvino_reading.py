"""How much of the waiting prompts a step of the OpenVINO engine reads, and of whose."""

from hypothesis import given
from hypothesis import strategies as st

from headrace_engines.openvino.reading import FEW, LEAST_TOKENS, MANY_TOKENS, room, shares
from headrace_engines.serving.pace import PIECE_TOKENS, SHARE, Pace

BLOCK = 32
UNREAD = st.lists(st.integers(1, 3000), min_size=1, max_size=20)
ROOM = st.integers(LEAST_TOKENS, PIECE_TOKENS)


def learned(step_s: float, token_s: float) -> Pace:
    """What a pace says after many steps of a machine that needs so long."""
    pace = Pace(together=True)
    for _ in range(20):
        pace.decoded(step_s)
        pace.read(LEAST_TOKENS, step_s + LEAST_TOKENS * token_s)
    return pace


@given(UNREAD, ROOM)
def test_a_step_reads_the_oldest_and_cuts_one_at_most(unread: list[int], room: int) -> None:
    """Never more than there is room for; one at most is read in part, in whole blocks; the first always gets on."""
    given = shares(unread, room, BLOCK)
    cut = [place for place, (tokens, left) in enumerate(zip(given, unread, strict=True)) if 0 < tokens < left]
    assert sum(given) <= room
    assert given[0]
    assert len(cut) <= 1
    assert all(given[place] % BLOCK == 0 for place in cut)
    for place in cut:
        assert given[:place] == unread[:place]


@given(UNREAD, ROOM)
def test_whoever_passes_leaves_half_to_the_oldest(unread: list[int], room: int) -> None:
    """A prompt that does not fit gets at least half of what those before it left, less than a block of it lost."""
    given = shares(unread, room, BLOCK)
    left = room
    for tokens, got in zip(unread, given, strict=True):
        if tokens > left:
            assert got > left / 2 - BLOCK
            break
        left -= got


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3000)), min_size=1, max_size=30))
def test_nobody_starves(arrivals: list[tuple[int, int]]) -> None:
    """Whoever comes meanwhile: each prompt is read when half of each step has read all that came before."""
    waiting: list[list[int]] = []  # tokens left, and the step until which it may take
    coming = sorted(arrivals)
    step = 0
    while coming or waiting:
        while coming and coming[0][0] <= step:
            tokens = coming.pop(0)[1]
            before = sum(left for left, _ in waiting)
            waiting.append([tokens, step + (before + tokens) // (LEAST_TOKENS // 2) + len(waiting) + 1])
        for prompt, tokens in zip(
            waiting, shares([left for left, _ in waiting] or [], LEAST_TOKENS, BLOCK), strict=True
        ):
            prompt[0] -= tokens
            assert step <= prompt[1]
        waiting = [prompt for prompt in waiting if prompt[0]]
        step += 1


@given(st.integers(1, FEW), st.floats(0.005, 0.1), st.floats(1e-5, 1e-2))
def test_few_hardly_notice(decoding: int, step_s: float, token_s: float) -> None:
    """A step gets no longer than its share, or reads the least, and never more than it may beside many."""
    tokens = room(learned(step_s, token_s), decoding, decoding)
    assert LEAST_TOKENS <= tokens <= MANY_TOKENS
    assert tokens == LEAST_TOKENS or tokens * token_s <= SHARE * step_s * 1.01


@given(st.integers(1, 128), st.integers(1, 128))
def test_small_pieces_are_for_few(waiting: int, decoding: int) -> None:
    """Beside many, and where more wait for their first token than for a next one, a step reads all that it may."""
    tokens = room(learned(0.02, 1e-3), waiting, decoding)
    assert (tokens == MANY_TOKENS) == (decoding > FEW or waiting > decoding)


def test_nobody_waits_means_the_largest_piece() -> None:
    """Prompts into an idle engine are read at full speed."""
    assert room(Pace(together=True), 8, 0) == PIECE_TOKENS
