"""What to try with a model that is READY: only requests that it answers."""

from __future__ import annotations

from typing import Literal

Kind = Literal["chat", "complete", "embed"]


def kind_of(uri: str) -> Kind:
    """What a model's folder is for; where this machine cannot look into it, a chat model."""
    from headrace.resources.errors import HeadraceError  # noqa: PLC0415  # what reads folders brings NumPy
    from headrace.storage import open_artifacts  # noqa: PLC0415
    from headrace.weights import inspect, task_of  # noqa: PLC0415

    if uri.startswith("garden:"):
        from headrace.catalogue import find_entry  # noqa: PLC0415

        return "chat" if find_entry(uri.partition(":")[2]).instruct else "complete"
    if "://" in uri or uri.startswith("hf:"):
        return "chat"
    try:
        folder = inspect(open_artifacts(uri))
    except HeadraceError:  # the server read it, as somebody else perhaps
        return "chat"
    if task_of(folder.config, folder.files) == "embed":
        return "embed"
    return "chat" if folder.has_chat_template else "complete"


def what_next(url: str, address: str, endpoint: str, kind: Kind) -> str:
    """The address, and the commands to try next.

    Args:
        url: The server's.
        address: The endpoint's, as Vertex AI has it.
        endpoint: Its name.
        kind: What the model does.
    """
    commands = {
        "chat": [
            f"headrace chat {endpoint}",
            f"headrace predict {endpoint} --prompt 'The river'",
            _curl(url, "chat/completions", f'"model": "{endpoint}", {_HELLO}, "max_tokens": 60'),
        ],
        "complete": [
            f"headrace predict {endpoint} --prompt 'The river'",
            _curl(url, "completions", f'"model": "{endpoint}", "prompt": "The river", "max_tokens": 60'),
        ],
        "embed": [_curl(url, "embeddings", f'"model": "{endpoint}", "input": ["The river", "The sea"]')],
    }
    lines = "".join(f"\n  {line}" for line in commands[kind])
    return f"\nREADY at {address}\nOpenAI-compatible at {url}/v1, model {endpoint!r}. Try:{lines}"


_HELLO = '"messages": [{"role": "user", "content": "Hello!"}]'


def _curl(url: str, path: str, fields: str) -> str:
    return (
        f"curl {url}/v1/{path} -H \"Authorization: Bearer $OPENAI_API_KEY\" -H 'Content-Type: application/json' \\\n"
        f"    -d '{{{fields}}}'"
    )
