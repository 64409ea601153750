"""The one engine of a process, from the first second of loading to its end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from headrace_engines.serving.codec import ChatMessage, ChatRefused
from headrace_engines.serving.errors import BadRequest, Unavailable
from headrace_engines.serving.fatal import FatalError, fatal_from
from headrace_engines.serving.generator import GenerationRequest, Load, LoadModel, Sampling, ServedModel
from headrace_engines.serving.metrics import Metrics

T = TypeVar("T")

_log = logging.getLogger("headrace.engine")

EngineState = Literal["loading", "ready", "dead"]
"""``loading`` until one real token was generated; ``dead`` once no token can be."""


class Engine:
    """What the routes serve: the model when it is there, and its state until then.

    Args:
        model_name: The name clients call the model by.
        versions: What ``GET /version`` answers.
        on_death: Called once on the loop's thread, when the engine cannot serve (any more).
    """

    def __init__(self, model_name: str, versions: dict[str, str], on_death: Callable[[FatalError], None]) -> None:
        self.model_name = model_name
        self.versions = versions
        self.state: EngineState = "loading"
        self.metrics = Metrics(model_name, self._load)
        self._on_death = on_death
        self._served: ServedModel | None = None
        # One thread: tokenisers are not safe for concurrent use, and long prompts must not hold up the event loop.
        self._codec_thread = ThreadPoolExecutor(1, thread_name_prefix="codec")
        # Another: a chat template is the folder's own program, and while one hangs, completions go on.
        self._template_thread = ThreadPoolExecutor(1, thread_name_prefix="template")

    @property
    def served(self) -> ServedModel:
        """The model.

        Raises:
            Unavailable: It is still loading, or dead.
        """
        if self._served is None or self.state != "ready":
            raise Unavailable(f"The engine is {self.state}.", code=f"engine_{self.state}", retry_after_s=1)
        return self._served

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
        self.state = "ready"

    def die(self, fatal: FatalError) -> None:
        """Serve nothing any more."""
        if self.state != "dead":
            self.state = "dead"
            self._on_death(fatal)

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a prompt."""
        codec = self.served.codec
        return await _in_thread(self._codec_thread, lambda: codec.encode(text, add_special_tokens=add_special_tokens))

    async def encode_chat(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation.

        Raises:
            BadRequest: The model has no chat template, or its template refuses these messages.
        """
        codec = self.served.codec
        try:
            prompt = await _in_thread(
                self._template_thread, lambda: codec.render_chat(messages, add_generation_prompt=add_generation_prompt)
            )
        except ChatRefused as error:
            raise BadRequest(str(error), param="messages", code="chat_template_error") from error
        return await self.encode(prompt, add_special_tokens=False)  # the template wrote them

    async def _warm(self, served: ServedModel) -> None:
        prompt_ids = served.codec.encode("Hello", add_special_tokens=True)
        request = GenerationRequest(prompt_ids=prompt_ids, max_tokens=1, sampling=Sampling(temperature=0))
        tokens = [token_id async for event in served.generator.submit(request) for token_id in event.token_ids]
        if len(tokens) != 1:
            raise FatalError("ENGINE_DIED", "The engine generated no token.", evidence=f"tokens: {tokens}")
        greeting = ChatMessage(role="user", content="Hello")
        try:
            await _in_thread(self._template_thread, lambda: served.codec.render_chat([greeting]))
        except ChatRefused as error:  # completions work all the same
            _log.warning("A chat of one word: %s", error)

    def _load(self) -> Load:
        return Load(0, 0) if self._served is None else self._served.generator.load()


async def _in_thread(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)
