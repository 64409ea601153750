"""A chat template that is given beside the model's folder, and takes the place of the folder's own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from headrace_engines.serving.codec import ChatRefused, TextCodec
from headrace_engines.serving.fatal import FatalError
from headrace_engines.serving.generator import LoadModel, OnDeath, ServedModel
from headrace_engines.serving.template_process import TemplateProcess


def read_template(path: Path) -> str:
    """A template that parses. Blocks for a tenth of a second.

    A folder's own template that does not parse costs chats only; one that somebody gave for this model is a mistake
    that they want to hear of at once.

    Raises:
        FatalError: The file cannot be read, or holds no template.
    """
    try:
        template = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FatalError("CHAT_TEMPLATE_INVALID", "The chat template cannot be read.", evidence=str(error)) from error
    with closing(TemplateProcess()) as process:
        try:
            process.check(template)
        except ChatRefused as error:
            raise FatalError(
                "CHAT_TEMPLATE_INVALID", "The chat template given with the model cannot be used.", evidence=str(error)
            ) from error
    return template


def with_template(load_model: LoadModel, path: Path | None) -> LoadModel:
    """The same model with the template in a file; without one, as it is."""
    if path is None:
        return load_model

    def load(loop: asyncio.AbstractEventLoop, on_death: OnDeath) -> ServedModel:
        template = read_template(path)  # before the weights, which take longer
        served = load_model(loop, on_death)
        return served._replace(codec=_Retemplated(served.codec, template))

    return load


class _Retemplated(TextCodec):
    """A tokeniser with another chat template."""

    def __init__(self, codec: TextCodec, template: str) -> None:
        self._codec = codec
        self._template = template

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """As the folder's tokeniser."""
        return self._codec.encode(text, add_special_tokens=add_special_tokens)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """As the folder's tokeniser."""
        return self._codec.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def piece(self, token_id: int) -> str:
        """As the folder's tokeniser."""
        return self._codec.piece(token_id)

    def chat_template(self, *, tools: bool = False) -> str:  # noqa: ARG002 - one template for chats with and without
        """The one that was given."""
        return self._template

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """As the folder's tokeniser."""
        return self._codec.special_tokens
