"""From a converted folder to a served model: the shell's part."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from headrace_engines.openvino.generator import PipelineGenerator
from headrace_engines.openvino.grammar_process import GrammarProcess
from headrace_engines.openvino.messages import Load
from headrace_engines.openvino.pipeline_process import PipelineProcess
from headrace_engines.serving.fatal import FatalError, fatal_from, is_out_of_memory
from headrace_engines.serving.generator import Limits, OnDeath, ServedModel
from headrace_engines.serving.recommended import recommended_sampling
from headrace_engines.serving.tokenizer_file import TokenizerFile

TOKENIZER_MODEL = "openvino_tokenizer.xml"
"""What GenAI reads the vocabulary from."""


def start(order: Load, *, max_waiting: int, loop: asyncio.AbstractEventLoop, on_death: OnDeath) -> ServedModel:
    """Load a model in a process of its own. Blocks; not to be called on the loop's thread.

    Args:
        order: What to load; its tokeniser's end-of-sequence token is added here.
        max_waiting: Sequences accepted beyond those that are computed.
        loop: Where tokens are delivered.
        on_death: Called there when nothing can be computed any more.

    Raises:
        FatalError: The folder cannot be served; it says why.
    """
    process = PipelineProcess()  # it starts while the tokeniser is read
    folder = Path(order.folder)
    codec = _codec(folder)
    loaded = process.load(msgspec.structs.replace(order, end_id=codec.end_id))
    limits = Limits(
        max_model_len=loaded.max_model_len,
        max_running=order.max_running,
        max_waiting=max_waiting,
        vocab_size=loaded.vocab_size,
    )
    grammars = GrammarProcess(folder, loaded.vocab_size)
    generator = PipelineGenerator(process=process, limits=limits, grammars=grammars, loop=loop, on_death=on_death)
    asyncio.run_coroutine_threadsafe(generator.connect(), loop).result()
    return ServedModel(generator, codec, recommended_sampling(folder))


def _codec(folder: Path) -> TokenizerFile:
    try:
        (folder / TOKENIZER_MODEL).stat()
        return TokenizerFile(folder)
    except Exception as error:  # the tokenizers library raises plain ones
        if is_out_of_memory(error):
            raise fatal_from(error) from error
        raise FatalError(
            "TOKENIZER_INVALID",
            f"The tokenizer in {folder} cannot be read, or was not converted.",
            evidence=f"{type(error).__name__}: {error}",
        ) from error
