"""The answer at the end of a quickstart: streamed to the terminal and measured, and the commands to try next."""

from __future__ import annotations

import sys
from typing import Any

from headrace.cli.client import Client
from headrace.cli.output import Output
from headrace.cli.streaming import AnswerStats, stream_chat
from headrace.resources.errors import AnswerNotStreamed

QUESTION = "Why does a river bend? Answer in two sentences."
_MAX_TOKENS = 96


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
        if not output.as_json:
            sys.stdout.write(piece)
            sys.stdout.flush()

    stats = AnswerStats()
    stream_chat(client, body, show, stats)
    output.line(f"\n\n[{stats.sentence()}]")
    output.event({"stats": stats.document()})
    if stats.chunks < 2:
        raise AnswerNotStreamed(
            "The answer was not streamed.",
            evidence=f"It came in {stats.chunks} piece(s) with {stats.completion_tokens} token(s).",
            fix="Look whether a proxy between here and the server buffers, and at `headrace status`.",
        )
    return stats


def three_commands(url: str, endpoint: str) -> str:
    """What to try next: curl, OpenAI's SDK, ``headrace chat``. The key stays out of the text and of shells' histories."""
    return f"""\
headrace chat {endpoint}

export HEADRACE_API_KEY=$(headrace keys create me --role predictor --secret-only)

curl {url}/v1/chat/completions -H "Authorization: Bearer $HEADRACE_API_KEY" -H 'Content-Type: application/json' \\
  -d '{{"model": "{endpoint}", "messages": [{{"role": "user", "content": "Hello!"}}], "stream": true}}'

python3 -c 'import os, openai
client = openai.OpenAI(base_url="{url}/v1", api_key=os.environ["HEADRACE_API_KEY"])
messages = [{{"role": "user", "content": "Hello!"}}]
print(client.chat.completions.create(model="{endpoint}", messages=messages).choices[0].message.content)'"""
