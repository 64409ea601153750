"""How much of the waiting prompts the transformers engine reads in one pass."""

from hypothesis import given
from hypothesis import strategies as st

from headrace_engines.transformers.pace import (
    COMPANY_TOKENS,
    COMPANY_TOKENS_PER_ROW,
    MOST_PATIENCE,
    PIECE_TOKENS,
    SHARE,
    Pace,
)

PASS_S = st.floats(0.001, 1)
TOKEN_S = st.floats(0.00001, 0.05)
STEPS = 60


def settled(pass_s: float, token_s: float, prompts: int, decoding: int) -> tuple[Pace, int]:
    """A pace after many steps of a machine whose passes take ``pass_s + token_s * tokens``, and its last piece."""
    pace = Pace()
    piece = 0
    for _ in range(STEPS):
        piece = pace.piece_tokens(prompts, decoding)
        pace.read(piece, pass_s + token_s * piece)
        pace.decoded(pass_s + token_s * decoding)
    return pace, piece


def least(decoding: int) -> int:
    """Tokens that are read even where that takes long."""
    return max(COMPANY_TOKENS, COMPANY_TOKENS_PER_ROW * decoding)


@given(PASS_S, TOKEN_S, st.integers(1, 4), st.integers(4, 128))
def test_others_wait_no_longer_than_stated_for_a_piece(pass_s, token_s, prompts, decoding):
    """While fewer wait for a first token than for a next one, a piece takes its share of a step, or is the least."""
    _, piece = settled(pass_s, token_s, prompts, decoding)
    allowed_s = SHARE * (pass_s + token_s * decoding)
    assert piece <= least(decoding) or pass_s + token_s * piece <= allowed_s * 1.01


@given(PASS_S, TOKEN_S, st.integers(1, 127), st.integers(1, 128))
def test_time_that_is_allowed_is_used(pass_s, token_s, prompts, decoding):
    """No piece is much smaller than what would take its share of a step: prompts do not trickle in."""
    _, piece = settled(pass_s, token_s, prompts, decoding)
    patience = min(MOST_PATIENCE, max(1.0, prompts / decoding))
    possible = (SHARE * patience * (pass_s + token_s * decoding) - pass_s) / token_s
    assert piece >= int(min(PIECE_TOKENS, possible) * 0.9)


@given(
    st.lists(st.tuples(st.integers(1, 4096), st.floats(0, 100), st.floats(0, 100)), max_size=80), st.integers(0, 200)
)
def test_pieces_stay_within_their_bounds_whatever_the_clock_says(measured, decoding):
    """Any times, of a clock that stands still too, give a piece between the least and the most."""
    pace = Pace()
    for tokens, read_s, decode_s in measured:
        pace.read(tokens, read_s)
        pace.decoded(decode_s)
    assert min(PIECE_TOKENS, least(decoding)) <= pace.piece_tokens(8, decoding) <= PIECE_TOKENS


@given(PASS_S, TOKEN_S)
def test_more_is_read_at_once_where_most_wait_for_their_first_token(pass_s, token_s):
    """A request that was first by a moment does not make the many behind it trickle in."""
    pace, _ = settled(pass_s, token_s, 1, 4)
    assert pace.piece_tokens(31, 1) >= pace.piece_tokens(1, 1)


def test_nobody_waits_means_the_largest_piece():
    """With no sequence between two tokens, pieces are bounded by what is computed faster together, by nothing else."""
    assert Pace().piece_tokens(3, 0) == PIECE_TOKENS
