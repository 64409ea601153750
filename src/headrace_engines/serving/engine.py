"""The one engine of a process, from the first second of loading to its end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from headrace_engines.serving.chat_prompt import ChatPrompt, render_chat
from headrace_engines.serving.codec import ChatMessage, ChatRefused, EncodingFailed, encoded
from headrace_engines.serving.detokenise import remembering
from headrace_engines.serving.embedder import Embedder
from headrace_engines.serving.errors import BadRequest, TokenizerFailed, Unavailable, UnknownModel
from headrace_engines.serving.fatal import FatalError, fatal_from
from headrace_engines.serving.frozen import FROZEN_AFTER_S, ComputesElsewhere, FrozenWatch
from headrace_engines.serving.generator import GenerationRequest, Generator, Load, LoadModel, Sampling, ServedModel
from headrace_engines.serving.logprobs import token_texts
from headrace_engines.serving.metrics import Metrics
from headrace_engines.serving.template_process import TemplateProcess
from headrace_engines.serving.text_size import require_readable

T = TypeVar("T")

_log = logging.getLogger("headrace.engine")

EngineState = Literal["loading", "ready", "dead"]
"""``loading`` until one real token was generated; ``dead`` once no token can be."""


class Engine:
    """What the routes serve: the model when it is there, and its state until then.

    Args:
        model_name: The name clients call the model by.
        versions: What ``GET /version`` answers; ``engine`` is its name in `serving.capabilities`.
        on_death: Called once on the loop's thread, when the engine cannot serve (any more).
        tool_parser: How the model writes tool calls, a name of `serving.tools.formats`; None to see it in its template.
        templates: Renders chat templates; None for a process of its own.
        frozen_after_s: Processes that compute are frozen when they use no processor for this long under a load.
    """

    def __init__(
        self,
        model_name: str,
        versions: Mapping[str, str],
        on_death: Callable[[FatalError], None],
        *,
        tool_parser: str | None = None,
        templates: TemplateProcess | None = None,
        frozen_after_s: float = FROZEN_AFTER_S,
    ) -> None:
        self.model_name = model_name
        self.versions = versions
        self.name = versions["engine"]
        self.tool_parser = tool_parser
        self.state: EngineState = "loading"
        self.metrics = Metrics(model_name, self._load)
        self._on_death = on_death
        self._served: ServedModel | None = None
        # One thread: tokenisers are not safe for concurrent use, and long prompts must not hold up the event loop.
        self._codec_thread = ThreadPoolExecutor(1, thread_name_prefix="codec")
        # Another: a chat template is the folder's own program, and while one hangs, completions go on.
        self._template_thread = ThreadPoolExecutor(1, thread_name_prefix="template")
        self._templates = templates or TemplateProcess()
        self._watch = FrozenWatch(frozen_after_s)

    @property
    def served(self) -> ServedModel:
        """The model.

        Raises:
            Unavailable: It is still loading, or dead.
        """
        if self._served is None or self.state != "ready":
            raise Unavailable(f"The engine is {self.state}.", code=f"engine_{self.state}", retry_after_s=1)
        return self._served

    @property
    def generator(self) -> Generator:
        """What computes tokens.

        Raises:
            Unavailable: It is still loading, or dead.
            BadRequest: This model only embeds.
        """
        generator = self.served.generator
        if generator is None:
            raise BadRequest(
                f"{self.model_name!r} is an embedding model: it answers /v1/embeddings and generates no text. "
                'Among the instances of :predict it takes {"content": TEXT}.',
                param="model",
                code="unsupported_task",
            )
        return generator

    def require_generator(self) -> None:
        """Refuse what wants text of a model that generates none.

        Raises:
            ApiError: As `generator`.
        """
        _ = self.generator

    @property
    def embedder(self) -> Embedder:
        """What computes embeddings.

        Raises:
            Unavailable: It is still loading, or dead.
            BadRequest: This model generates.
        """
        embedder = self.served.embedder
        if embedder is None:
            raise BadRequest(
                f"{self.model_name!r} generates text and was not made for embeddings: deploy an embedding model.",
                param="model",
                code="unsupported_task",
            )
        return embedder

    @property
    def task(self) -> Literal["generate", "embed"]:
        """What the model does."""
        return "embed" if self.served.generator is None else "generate"

    @property
    def max_model_len(self) -> int:
        """Tokens of context, or of one input of an embedding model."""
        return self.embedder.limits.max_input_tokens if self.task == "embed" else self.generator.limits.max_model_len

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        return self.embedder.limits.vocab_size if self.task == "embed" else self.generator.limits.vocab_size

    @property
    def frozen(self) -> bool:
        """Whether what computes stands still though requests wait; to be asked with every health check."""
        generator = None if self._served is None else self._served.generator
        return isinstance(generator, ComputesElsewhere) and self._watch.frozen(generator.compute)

    def check_model(self, name: str) -> None:
        """Refuse the name of another model.

        Raises:
            UnknownModel: It is not the one served here.
        """
        if name != self.model_name:
            raise UnknownModel(
                f"The model {name!r} is not served here; {self.model_name!r} is.", param="model", code="model_not_found"
            )

    async def start(self, load_model: LoadModel) -> None:
        """Load the weights, generate one token, and only then be ready. Every failure ends in `on_death`."""
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[ServedModel] = loop.create_future()

        def load() -> None:
            try:
                served = load_model(loop, self.die)
            except BaseException as error:  # whatever stops the loader stops the engine
                loop.call_soon_threadsafe(loaded.set_exception, fatal_from(error))
            else:
                loop.call_soon_threadsafe(loaded.set_result, served)

        # A daemon, so that SIGTERM while loading does not wait for the weights.
        threading.Thread(target=load, name="load", daemon=True).start()
        try:
            served = await loaded
            await self._warm(served)
        except Exception as error:
            self.die(fatal_from(error))
            return
        self._served = served
        self.decode = remembering(served.codec.decode)
        self.token_text = token_texts(served.codec)
        self.state = "ready"

    def die(self, fatal: FatalError) -> None:
        """Serve nothing any more."""
        if self.state != "dead":
            self.state = "dead"
            self._on_death(fatal)

    async def encode(self, text: str, *, add_special_tokens: bool, param: str | None = None) -> list[int]:
        """Token ids of a prompt.

        Args:
            text: The prompt.
            add_special_tokens: With the model's own leading and trailing tokens.
            param: The parameter that says it; None for the one of the model's task.

        Raises:
            BadRequest: It is so long that it cannot fit the context, and is not even tokenised; or the tokeniser fails
                on it, or makes a token of it that the model has no weights for.
        """
        codec = self.served.codec
        param = param or ("input" if self.task == "embed" else "prompt")
        require_readable(len(text), max_model_len=self.max_model_len, param=param)
        try:
            token_ids = await _in_thread(
                self._codec_thread, lambda: encoded(codec, text, add_special_tokens=add_special_tokens)
            )
        except EncodingFailed as error:
            raise TokenizerFailed(str(error), param=param) from error
        if (last := max(token_ids, default=0)) >= self.vocab_size:
            raise BadRequest(
                f"`{param}` has text that the model's tokeniser makes token {last} of; the model itself has tokens 0 "
                f"to {self.vocab_size - 1}.",
                param=param,
                code="invalid_value",
            )
        return token_ids

    async def decode_all(self, token_ids: Sequence[int]) -> str:
        """The text of many tokens, special ones included."""
        codec = self.served.codec
        return await _in_thread(self._codec_thread, lambda: codec.decode(token_ids, skip_special_tokens=False))

    async def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """The vocabulary's own spelling of each of many tokens."""
        codec = self.served.codec
        return await _in_thread(self._codec_thread, lambda: [codec.piece(token_id) for token_id in token_ids])

    async def encode_chat(self, prompt: ChatPrompt, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids of a conversation; the template writes special tokens itself.

        Raises:
            BadRequest: The model has no chat template, its template refuses these messages, or they cannot fit.
        """
        codec = self.served.codec
        try:
            text = await _in_thread(self._template_thread, lambda: render_chat(codec, self._templates, prompt))
        except ChatRefused as error:
            raise BadRequest(str(error), param="messages", code="chat_template_error") from error
        return await self.encode(text, add_special_tokens=add_special_tokens, param="messages")

    async def _warm(self, served: ServedModel) -> None:
        """Compute something real, so that ready means ready."""
        prompt_ids = encoded(served.codec, "Hello", add_special_tokens=True)
        if served.embedder is not None:
            await _warm_embedder(served.embedder, prompt_ids)
        if served.generator is None:
            return
        request = GenerationRequest(prompt_ids=prompt_ids, max_tokens=1, sampling=Sampling(temperature=0))
        tokens = [token_id async for event in served.generator.submit(request) for token_id in event.token_ids]
        if len(tokens) != 1:
            raise FatalError("ENGINE_DIED", "The engine generated no token.", evidence=f"tokens: {tokens}")
        greeting = ChatPrompt(messages=[ChatMessage(role="user", content="Hello")])
        try:
            await _in_thread(self._template_thread, lambda: render_chat(served.codec, self._templates, greeting))
        except ChatRefused as error:  # completions work all the same
            _log.warning("A chat of one word: %s", error)

    def _load(self) -> Load:
        generator = None if self._served is None else self._served.generator
        return Load(0, 0) if generator is None else generator.load()


async def _warm_embedder(embedder: Embedder, prompt_ids: list[int]) -> None:
    vectors = await embedder.embed([prompt_ids], lambda _: None)
    lengths = [len(vector) for vector in vectors]
    if lengths != [embedder.limits.dimensions]:
        raise FatalError("ENGINE_DIED", "The engine computed no embedding.", evidence=f"lengths: {lengths}")


async def _in_thread(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)
