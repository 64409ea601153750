"""A key with a limit on a live server: real prompts, counted by a real engine, and a gateway that is replaced."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from server_process import PROJECT, ServerProcess, eventually

LIMIT, CALLERS, CAP = 250, 50, 12
CHAT = {"messages": [{"role": "user", "content": "What is the capital of Japan?"}], "max_tokens": CAP}


def test_many_callers_never_get_more_than_the_limit(shared_server: ServerProcess, endpoint: str) -> None:
    """50 at once share one key's limit to the token; its engine counts a prompt as it reads it; a gateway that takes
    another's place goes on from what that one counted."""
    server, path = shared_server, f"/v1/{endpoint}/chat/completions"
    limits = ("--tokens-per-minute", str(LIMIT))
    made = json.loads(server.cli("keys", "create", "limited", *limits, "--project", PROJECT, "--json").stdout)
    with server.client(made["secret"]) as client:

        def ask(_: int = 0) -> httpx.Response:
            return client.post(path, json=CHAT)

        eventually(lambda: client.get(f"/v1/{endpoint}/models").status_code == 200)
        began = time.monotonic()
        first = ask()
        assert first.status_code == 200, first.text
        reserved = LIMIT - int(first.headers["x-ratelimit-remaining-tokens"])
        assert reserved == first.json()["usage"]["prompt_tokens"] + CAP
        with ThreadPoolExecutor(CALLERS) as pool:
            answers = [first, *pool.map(ask, range(CALLERS))]
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {200, 429}, statuses
        used = sum(answer.json()["usage"]["total_tokens"] for answer in answers if answer.status_code == 200)
        assert used <= LIMIT
        [old] = server.pids("headrace.server.gateway")
        os.kill(old, signal.SIGTERM)
        eventually(lambda: server.pids("headrace.server.gateway") not in ([], [old]))
        after = eventually(lambda: (answer := ask()).status_code != 503 and answer)
        left = LIMIT - used - (reserved if after.status_code == 200 else 0)
        if time.monotonic() - began < 60:  # nothing of it is a minute old
            assert int(after.headers["x-ratelimit-remaining-tokens"]) == left, after.text
    told = server.cli("keys", "update", made["id"], "--tokens-per-minute", "0").stdout
    assert "has no limits" in told
