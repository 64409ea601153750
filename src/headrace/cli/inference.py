"""``headrace chat`` and ``headrace predict``: requests to an endpoint. Both work while the control plane is down."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from headrace.cli.endpoints import EndpointArgument, endpoint_id
from headrace.cli.exits import report
from headrace.cli.help import SERVE
from headrace.cli.invocation import Invocation, command
from headrace.cli.paths import segment
from headrace.resources.errors import BadJson, HeadraceError

if TYPE_CHECKING:
    from headrace.cli.conversation import Conversation

_GOODBYE = ("/exit", "/quit")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "chat", panel=SERVE)(chat)
    command(app, "predict", panel=SERVE)(predict)


def chat(
    invocation: Invocation,
    *,
    endpoint: EndpointArgument,
    message: Annotated[
        str, typer.Option("--message", "-m", help="Ask this and end; `-` reads it from stdin. Without: a conversation.")
    ] = "",
    system: Annotated[str, typer.Option(help="A system message to begin with.")] = "",
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, in tokens. Without: as long as the context allows.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="0 always picks the likeliest token.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Show time to first token and tokens/s.")] = False,
) -> None:
    """Talk to a model: answers are streamed. /exit leaves; Ctrl-C stops the answer, not the conversation."""
    from headrace.cli.conversation import Conversation  # noqa: PLC0415  # brings the HTTP client

    options: dict[str, Any] = {"model": endpoint}
    options |= {"max_tokens": max_tokens} if max_tokens is not None else {}
    options |= {"temperature": temperature} if temperature is not None else {}
    options |= {"seed": seed} if seed is not None else {}
    with invocation.client() as client:
        conversation = Conversation(client, invocation.output, options, system=system, show_stats=stats)
        if message or invocation.as_json or not sys.stdin.isatty():
            conversation.answer(sys.stdin.read() if message in ("", "-") else message)
            return
        _converse(invocation, conversation, endpoint)


def _converse(invocation: Invocation, conversation: Conversation, endpoint: str) -> None:
    invocation.output.line(f"Talking to {endpoint}. /exit or Ctrl-D leaves; Ctrl-C stops an answer.")
    while True:
        try:
            asked = input("> ").strip()
        except EOFError:
            invocation.output.line()
            return
        except KeyboardInterrupt:
            invocation.output.line("\n(/exit leaves)")
            continue
        if asked in _GOODBYE:
            return
        if not asked:
            continue
        try:
            conversation.answer(asked)
        except KeyboardInterrupt:
            invocation.output.line("\n(stopped)")
        except HeadraceError as error:
            conversation.forget_last()
            report(error.failure, as_json=False)


def predict(
    invocation: Invocation,
    *,
    endpoint: EndpointArgument,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="A prompt; may be repeated.")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json-file", help='A whole request body, {"instances": […]}; `-` is stdin.', allow_dash=True),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer to a --prompt, in tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="For a --prompt.")] = 0.0,
) -> None:
    """Send one :predict request and print its predictions.

    A prompt is continued as it is: no chat template is used, so a model made for chat answers
    better to `headrace chat`.
    """
    if bool(prompt) == (json_file is not None):
        raise typer.BadParameter("Give --prompt (once or more) or --json-file, one of the two.")
    with invocation.client() as client:
        path = f"/v1/{client.login.scope}/endpoints/{segment(endpoint_id(client, endpoint))}:predict"
        if json_file is not None:
            answer = client.post(path, raw=_content(json_file), slow=True)
        else:
            sampling = {"max_tokens": max_tokens, "temperature": temperature}
            answer = client.post(path, {"instances": [{"prompt": one, **sampling} for one in prompt or []]}, slow=True)
    invocation.output.document(answer)
    for prediction in answer.get("predictions") or []:
        invocation.output.line(_text(prediction) if isinstance(prediction, str) else _pretty(prediction))


def _content(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise BadJson(f"{file} cannot be read.", evidence=str(error), fix="Name a file that holds the body.") from error


def _text(prediction: str) -> str:
    """What the model wrote: Vertex AI's containers of vLLM put the prompt before it, and so do we."""
    head, mark, text = prediction.partition("\nOutput:\n")
    return text if mark and head.startswith("Prompt:\n") else prediction


def _pretty(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
