"""How many tokens a request may come to at most: read from its body before an engine has it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from headrace.contracts.openai.requests import OpenAIBody
from headrace.resources.errors import BadField

EMBEDDINGS_PATH = "/v1/embeddings"

_BESIDE_MESSAGES = (
    "tools",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
)
"""What else of a chat makes a difference to its prompt. All engines of ours take these at ``/tokenize``."""

_CAPS = ("max_tokens", "max_completion_tokens")
_SAMPLES = ("n", "best_of")
_NUMBER_STARTS = b"-0123456789"
_NULL = msgspec.Raw(b"null")
_NOTHING = (_NULL, msgspec.Raw(b"[]"))
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_SHOWN_BYTES = 40
_MOST = 10**12
"""Of a number that a request says: more is as good as this, and refused all the same."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What one request to an engine may use.

    Attributes:
        questions: Bodies for ``/tokenize``, without the model: one for each prompt whose tokens are not known yet.
        known: Tokens of the prompts that came as token ids.
        samples: Answers to each prompt; 0 where none is made.
        max_tokens: The most of each answer; None where only the context ends it.
    """

    questions: tuple[OpenAIBody, ...] = ()
    known: tuple[int, ...] = ()
    samples: int = 0
    max_tokens: int | None = None

    @property
    def prompts(self) -> int:
        """How many there are."""
        return len(self.questions) + len(self.known)

    def least(self, max_model_len: int) -> int:
        """What it needs at least, before its prompts are counted; each has a token.

        Args:
            max_model_len: As in `total`.
        """
        longest = max_model_len if self.max_tokens is None else self.max_tokens
        answers = self.samples * longest
        total = 0
        for prompt in (*(1 for _ in self.questions), *self.known):
            # An answer, too, ends where the context does, and then prompt and answer are all of that.
            whole = min(prompt + answers, max_model_len) if max_model_len else prompt + answers
            total += max(prompt, whole)
        return total

    def total(self, counted: Sequence[int], max_model_len: int) -> int | None:
        """What it needs; None where nothing says how long an answer may get.

        Args:
            counted: Tokens of each of the `questions`.
            max_model_len: The model's context in tokens; 0 where nobody knows.
        """
        total = 0
        for prompt in (*counted, *self.known):
            room = max(max_model_len - prompt, 0) if max_model_len else None
            caps = [cap for cap in (self.max_tokens, room) if cap is not None]
            if self.samples and not caps:
                return None
            total += prompt + self.samples * min(caps, default=0)
        return total


def need_of(path: str, body: Mapping[str, msgspec.Raw]) -> Need:
    """What a request for `path` may use. A prompt that cannot be read is the engine's to refuse, and makes nothing.

    Args:
        path: Of the engine's route.
        body: Its fields.

    Raises:
        BadField: How much it asks for is no number: taken for nothing said, it would be refused for all that may be.
    """
    if path == EMBEDDINGS_PATH:
        questions, known = _prompts(body.get("input", _NULL), body)
        return Need(questions=questions, known=known)
    if "messages" in body:
        beside = {name: body[name] for name in _BESIDE_MESSAGES if body.get(name, _NULL) not in _NOTHING}
        questions, known = ({"messages": body["messages"]} | beside,), ()
    else:
        questions, known = _prompts(body.get("prompt", _NULL), body)
    # Below zero there is no cap: servers that are not ours have it so. Of 0 some make a token all the same.
    caps = [max(cap, 1) for cap in (_number(body, name) for name in _CAPS) if cap is not None and cap >= 0]
    samples = max(1, *(_number(body, name) or 1 for name in _SAMPLES))
    # Engines differ in which of the two caps they obey, so the larger one is what may come.
    return Need(questions=questions, known=known, samples=samples, max_tokens=max(caps, default=None))


def _prompts(value: msgspec.Raw, body: Mapping[str, msgspec.Raw]) -> tuple[tuple[OpenAIBody, ...], tuple[int, ...]]:
    """Questions for the prompts that are texts, and the lengths of those that are token ids."""
    if value == _NULL:
        return (), ()
    items = _items(value)
    if items is None:
        return (_question(value, body),), ()
    if items and all(bytes(item)[:1] in _NUMBER_STARTS for item in items):
        return (), (len(items),)
    lists = [(item, _items(item)) for item in items]
    texts = tuple(_question(item, body) for item, ids in lists if ids is None)
    return texts, tuple(len(ids) for _, ids in lists if ids is not None)


def _question(text: msgspec.Raw, body: Mapping[str, msgspec.Raw]) -> OpenAIBody:
    special = body.get("add_special_tokens", _NULL)
    return {"prompt": text} if special == _NULL else {"prompt": text, "add_special_tokens": special}


def _items(value: msgspec.Raw) -> list[msgspec.Raw] | None:
    """The items of a list; None if it is none."""
    try:
        return _ITEMS.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _number(body: Mapping[str, msgspec.Raw], name: str) -> int | None:
    """A number, rounded up, also from a string, as some servers read it; None where nothing is said.

    Raises:
        BadField: It is none.
    """
    value = body.get(name, _NULL)
    if value == _NULL:
        return None
    try:
        return math.ceil(max(min(msgspec.json.decode(value, type=float, strict=False), _MOST), -_MOST))
    except ValueError as error:
        raise BadField(
            f"`{name}` must be a number.",
            evidence=f"It is {bytes(value)[:_SHOWN_BYTES].decode(errors='replace')}.",
            fix="Give a whole number, or leave it out.",
        ) from error
