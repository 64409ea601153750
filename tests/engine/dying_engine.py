"""Run by the engine's Python: the real shell and model thread around a batch that stops working after some steps.

Usage: that of ``headrace_engines.transformers``.
"""

import asyncio

from headrace_engines.serving.codec import TextCodec
from headrace_engines.serving.generator import Limits, OnDeath, ServedModel, TokenEvent
from headrace_engines.serving.process import serve, shared_arguments
from headrace_engines.transformers.batch import Batch, Outcome
from headrace_engines.transformers.generator import SteppingGenerator

STEPS = 4


class Letters(TextCodec):
    """Token ids are code points."""

    def encode(self, text, *, add_special_tokens):
        """One token per character."""
        return [ord(letter) for letter in text]

    def decode(self, token_ids, *, skip_special_tokens=True):
        """The characters."""
        return "".join(map(chr, token_ids))

    def piece(self, token_id):
        """The character."""
        return chr(token_id)

    def chat_template(self, *, tools=False):
        """The messages' words."""
        return "{% for m in messages %}{{ m.content }}{% endfor %}"

    @property
    def special_tokens(self):
        """None."""
        return {}


class DyingBatch(Batch):
    """Gives every sequence the letter a, a few times; then memory is gone."""

    cache_used = 0.0

    def __init__(self):
        self.running = []
        self.steps = 0

    def __len__(self):
        return len(self.running)

    def has_room(self, sequence):
        """One at a time."""
        return not self.running

    def add(self, sequence):
        """Take it."""
        self.running.append(sequence)

    def step(self):
        """One letter, or the end of memory."""
        self.steps += 1
        if self.steps > STEPS:
            raise MemoryError("no page left")
        for sequence in self.running:
            sequence.token_ids.append(ord("a"))
        outcomes = [Outcome(each, TokenEvent((ord("a"),), each.finish_reason)) for each in self.running]
        self.running = [each for each in self.running if each.finish_reason is None]
        return outcomes


def load(loop: asyncio.AbstractEventLoop, on_death: OnDeath) -> ServedModel:
    """Nothing to load."""
    limits = Limits(max_model_len=100, max_running=1, max_waiting=8, vocab_size=128)
    generator = SteppingGenerator(
        batch=DyingBatch(),
        limits=limits,
        end_ids=frozenset(),
        grammars=None,  # no request has one
        device="cpu",
        threads=None,
        alive=lambda: None,
        loop=loop,
        on_death=on_death,
    )
    return ServedModel(generator, Letters())


serve(shared_arguments("dying").parse_args(), load, {"engine": "transformers"})
