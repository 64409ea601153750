"""The engines' shell around a generator that computes nothing: started by ``bench/shell.py``, in a process of its own.

Every sequence gets one token a step, and steps follow each other as fast as the shell lets them: what the process uses
is the shell's own. The tokeniser is the real model's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer

from headrace_engines.serving.codec import TextCodec
from headrace_engines.serving.generator import (
    Generation,
    GenerationRequest,
    Generator,
    Limits,
    Load,
    OnDeath,
    ServedModel,
    TokenEvent,
    TokenLogprob,
)
from headrace_engines.serving.process import serve, shared_arguments

_LOGPROBS = (TokenLogprob(-0.5),)


class FastCodec(TextCodec):
    """The tokeniser of a model folder."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids."""
        token_ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return token_ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text."""
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text

    def piece(self, token_id: int) -> str:
        """The vocabulary's spelling."""
        return self._tokenizer.id_to_token(token_id) or ""

    def chat_template(self, *, tools: bool = False) -> str | None:  # noqa: ARG002 - the seam's signature
        """The messages' words."""
        return "{% for m in messages %}{{ m.content }}{% endfor %}"

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """None."""
        return {}


class FastGenerator(Generator):
    """The tokens of one English text, over and over."""

    def __init__(self, token_ids: list[int], vocab_size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = Limits(max_model_len=8192, max_running=256, max_waiting=1024, vocab_size=vocab_size)
        self._token_ids = token_ids
        self._loop = loop
        self._open: dict[Generation, tuple[int, GenerationRequest]] = {}  # with the tokens made

    def submit(self, request: GenerationRequest) -> Generation:
        """Begin with the next step."""
        generation = Generation(lambda: self._open.pop(generation, None))
        if not self._open:
            self._loop.call_soon(self._step)
        self._open[generation] = (0, request)
        return generation

    def load(self) -> Load:
        """What is open."""
        return Load(len(self._open), 0)

    def _step(self) -> None:
        for generation, (made, request) in tuple(self._open.items()):
            token_ids = (self._token_ids[made % len(self._token_ids)],)
            logprobs = () if request.top_logprobs is None else _LOGPROBS
            if made + 1 < request.max_tokens:
                self._open[generation] = (made + 1, request)
                generation.deliver(TokenEvent(token_ids, None, logprobs))
            else:
                del self._open[generation]
                generation.deliver(TokenEvent(token_ids, "length", logprobs))
        if self._open:
            self._loop.call_soon(self._step)


TEXT = "The river bends where the ground is soft, and the water carries what it takes to the next bank. " * 4


def main() -> None:
    """Serve until told to stop."""
    arguments = shared_arguments("fast").parse_args()

    def load(loop: asyncio.AbstractEventLoop, on_death: OnDeath) -> ServedModel:  # noqa: ARG001 - it does not die
        tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
        codec = FastCodec(tokenizer)
        token_ids = codec.encode(TEXT, add_special_tokens=False)
        return ServedModel(FastGenerator(token_ids, tokenizer.get_vocab_size(), loop), codec)

    serve(arguments, load, {"engine": "transformers"})


if __name__ == "__main__":
    main()
