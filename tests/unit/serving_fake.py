"""The real shell around a model that says what the test tells it to: no weights, one token per character."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from headrace_engines.serving.app import build_app
from headrace_engines.serving.codec import TextCodec
from headrace_engines.serving.embedder import Embedder
from headrace_engines.serving.engine import Engine
from headrace_engines.serving.generator import (
    Generation,
    GenerationFailed,
    GenerationRequest,
    Generator,
    GrammarInvalid,
    Limits,
    Load,
    QueueFull,
    ServedModel,
    TokenEvent,
    TokenLogprob,
)
from headrace_engines.serving.template_process import TemplateProcess

MODEL = "fake"
END = 256
"""The end-of-sequence token; 257 is another special token, which shows as ``<mark>`` when it shows at all."""
MARK = 257
VOCAB_SIZE = 258

HERMES_TEMPLATE = (
    "{% if tools %}{{ tools | tojson }} Call with <tool_call>{}</tool_call>.{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
PLAIN_TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}|{% endfor %}{{ mood }}"


class Bytes(TextCodec):
    """Tokens are bytes."""

    def __init__(self, template: str | None) -> None:
        self._template = template

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """One token per byte."""
        return list(text.encode())

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The bytes as text; special tokens only where they are wanted."""
        special = {END: b"", MARK: b""} if skip_special_tokens else {END: b"<end>", MARK: b"<mark>"}
        return b"".join(special.get(each) or bytes([each]) for each in token_ids if special.get(each) != b"").decode(
            errors="replace"
        )

    def piece(self, token_id: int) -> str:
        """As byte-fallback vocabularies spell them."""
        return f"<0x{token_id:02X}>" if token_id >= 0x80 else chr(token_id)

    def chat_template(self, *, tools: bool = False) -> str | None:
        """What the test gave."""
        return self._template

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """None that a template would want."""
        return {}


class Saying(Generator):
    """Says `text` to every request, some tokens at a time, as long as its budget lasts.

    Attributes:
        requests: All that was submitted.
        cancelled: How many were given up.
        hold: While set, nothing after the first event is said.
    """

    def __init__(self, text: str | bytes, *, tokens_per_event: int = 1, limits: Limits | None = None) -> None:
        self.limits = limits or Limits(max_model_len=2000, max_running=4, max_waiting=4, vocab_size=VOCAB_SIZE)
        self.text = text
        self.tokens_per_event = tokens_per_event
        self.requests: list[GenerationRequest] = []
        self.cancelled = 0
        self.open = 0
        self.hold = False
        self.failure: GenerationFailed | None = None
        self.ending: tuple[int, ...] = (END,)
        self._held = asyncio.Semaphore(0)

    def submit(self, request: GenerationRequest) -> Generation:
        """Say it, from the loop's next turn on."""
        if self.open >= self.limits.max_running + self.limits.max_waiting:
            raise QueueFull(self.limits)
        if request.grammar is not None and request.grammar.text == '{"type":"impossible"}':
            raise GrammarInvalid("there is no such type.")
        self.open += 1
        generation = Generation(self._cancel)
        self.requests.append(request)
        asyncio.get_running_loop().call_soon(self._say, generation, request, 0)
        return generation

    def load(self) -> Load:
        """What is open."""
        return Load(self.open, 0, 0.25)

    async def all_held(self, count: int) -> None:
        """Wait until so many sequences have said one event and are held."""
        for _ in range(count):
            await self._held.acquire()

    def _cancel(self) -> None:
        self.cancelled += 1
        self.open -= 1

    def _say(self, generation: Generation, request: GenerationRequest, start: int) -> None:
        if generation.ended:
            return
        if self.failure is not None and start:
            self.open -= 1
            generation.deliver(self.failure)
            return
        text = self.text if isinstance(self.text, bytes) else self.text.encode()
        everything = ([*text, *self.ending])[: request.max_tokens]
        end = start + self.tokens_per_event
        token_ids = tuple(everything[start:end])
        over = end >= len(everything)
        reason = None if not over else "stop" if token_ids[-1] == END else "length"
        generation.began(time.monotonic())
        logprobs = () if request.top_logprobs is None else tuple(map(likely, token_ids))
        self.open -= over
        generation.deliver(TokenEvent(token_ids, reason, logprobs))
        if self.hold:
            self._held.release()
        elif not over:
            asyncio.get_running_loop().call_soon(self._say, generation, request, end)


def likely(token_id: int) -> TokenLogprob:
    """The token itself, then its neighbour."""
    return TokenLogprob(-0.5, ((token_id, -0.5), ((token_id + 1) % 256, float("-inf"))))


Client = httpx.AsyncClient

TEMPLATES = TemplateProcess()
"""One for all tests: it takes a tenth of a second to start."""


@asynccontextmanager
async def serving(
    generator: Generator | None,
    *,
    embedder: Embedder | None = None,
    engine: str = "transformers",
    template: str | None = HERMES_TEMPLATE,
    tool_parser: str | None = None,
    sees: bool = False,
    codec: TextCodec | None = None,
    continues: bool = True,
) -> AsyncIterator[Client]:
    """A client of the shell once it is ready."""
    shell = Engine(MODEL, {"engine": engine}, _never, tool_parser=tool_parser, templates=TEMPLATES)
    served = ServedModel(generator, codec or Bytes(template), embedder=embedder, sees=sees, continues=continues)
    await shell.start(lambda loop, on_death: served)
    assert shell.state == "ready"
    if isinstance(generator, Saying):
        generator.requests.clear()  # the shell's own, to be ready
    async with Client(transport=httpx.ASGITransport(build_app(shell, None)), base_url="http://engine") as client:
        yield client


def _never(fatal: Exception) -> None:
    raise AssertionError(fatal)


async def post(client: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer, which must be one."""
    response = await client.post(path, json={"model": MODEL} | body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def refused(client: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The error of a request that must be refused with 400."""
    response = await client.post(path, json={"model": MODEL} | body)
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error


async def stream(client: Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a stream, which must end as OpenAI's do."""
    response = await client.post(path, json={"model": MODEL, "stream": True} | body)
    assert response.status_code == 200, response.text
    *events, done = response.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]
