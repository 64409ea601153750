"""The answer at the end of a quickstart: streamed to the terminal and measured, and the commands to try next."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from headrace.cli.client import Client
from headrace.cli.output import Output
from headrace.cli.streaming import AnswerStats, stream_chat
from headrace.resources.errors import AnswerNotStreamed, NotReady

QUESTION = "Why does a river bend? Answer in two sentences."
_MAX_TOKENS = 96
_READY_TIMEOUT_S = 180.0
_ASK_AGAIN_S = 0.25


def streamed_answer(client: Client, output: Output, endpoint: str) -> AnswerStats:
    """Ask the endpoint, show the answer token by token, and say what was measured.

    Raises:
        AnswerNotStreamed: It came in one piece, or not at all.
        HeadraceError: Whatever the server says.
    """
    output.line(f"\n> {QUESTION}")
    body: dict[str, Any] = {
        "model": endpoint,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": _MAX_TOKENS,
        "temperature": 0,
    }

    def show(piece: str) -> None:
        output.event({"content": piece})
        output.piece(piece)

    stats = _asked(client, body, show)
    output.line(f"\n\n[{stats.sentence()}]")
    output.event({"stats": stats.document()})
    if stats.chunks < 2:
        raise AnswerNotStreamed(
            "The answer was not streamed.",
            evidence=f"It came in {stats.chunks} piece(s) with {stats.completion_tokens} token(s).",
            fix="Look whether a proxy between here and the server buffers, and at `headrace status`.",
        )
    return stats


def _asked(client: Client, body: dict[str, Any], show: Callable[[str], None]) -> AnswerStats:
    """Ask, and ask again while replicas are being started anew: a server that was stopped comes back without any."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        stats = AnswerStats()
        try:
            stream_chat(client, body, show, stats)
        except NotReady:
            if time.monotonic() > deadline:
                raise
            time.sleep(_ASK_AGAIN_S)
        else:
            return stats


def three_commands(url: str, endpoint: str, *, headrace: str = "headrace", url_needed: bool = False) -> str:
    """What to try next: curl, OpenAI's SDK, ``headrace chat``; the key stays out of screens and shells' histories.

    Args:
        url: The server.
        endpoint: The endpoint to ask.
        headrace: How to call this program.
        url_needed: Whether it would talk to another server without ``--url``.
    """
    there = f" --url {url}" if url_needed else ""
    return f"""\
{headrace} chat {endpoint}{there}

# a key for the other two
export OPENAI_API_KEY=$({headrace} keys create me --role predictor --secret-only{there})

curl {url}/v1/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" -H 'Content-Type: application/json' \\
  -d '{{"model": "{endpoint}", "max_tokens": 60, "stream": true,
       "messages": [{{"role": "user", "content": "Hello!"}}]}}'

# with OpenAI's client (pip install openai)
python3 -c 'import openai
client = openai.OpenAI(base_url="{url}/v1")
messages = [{{"role": "user", "content": "Hello!"}}]
answer = client.chat.completions.create(model="{endpoint}", messages=messages, max_tokens=60)
print(answer.choices[0].message.content)'"""
