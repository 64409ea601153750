"""How an engine says why it cannot go on: one line that its log ends with, and exit status 3."""

from __future__ import annotations

import sys
from typing import Literal

import msgspec

FatalCode = Literal[
    "CHAT_TEMPLATE_INVALID",
    "CONVERSION_FAILED",
    "DISK_FULL",
    "ENGINE_BAD_TENSOR",
    "ENGINE_DIED",
    "ENGINE_OUT_OF_MEMORY",
    "ENGINE_UNSUPPORTED_ARCHITECTURE",
    "TOKENIZER_INVALID",
]

EXIT_STATUS = 3
"""Exit status of a fatal end; apart from 1 (an uncaught exception) and 2 (wrong arguments)."""

LINE_PREFIX = "HEADRACE_FATAL "

_EVIDENCE_MAX_CHARS = 2000


class FatalError(Exception):
    """The engine cannot serve.

    Attributes:
        code: What kind of failure; the control side knows each.
        message: One sentence: what happened.
        evidence: What proves it, such as the library's own words.
    """

    def __init__(self, code: FatalCode, message: str, *, evidence: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.evidence = evidence[:_EVIDENCE_MAX_CHARS]

    @property
    def line(self) -> str:
        """The log's last line: `LINE_PREFIX` and a JSON object, without a line break inside."""
        fields = {"code": self.code, "message": self.message, "evidence": self.evidence}
        return LINE_PREFIX + msgspec.json.encode(fields).decode()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what caused it, is the system or an allocator out of memory.

    The phrases are those of glibc's ENOMEM, torch's CPU and CUDA allocators, cuBLAS, CPython's thread start and ld.so.
    """
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        if isinstance(seen, MemoryError) or any(phrase in text for phrase in _OUT_OF_MEMORY_PHRASES):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


_OUT_OF_MEMORY_PHRASES = (
    "cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "std::bad_alloc",
    "failed to map segment",
    "can't start new thread",
    "cublas_status_alloc_failed",
)


def fatal_from(error: BaseException) -> FatalError:
    """What any exception means for the engine when nothing more is known about it."""
    if isinstance(error, FatalError):
        return error
    evidence = f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        return FatalError("ENGINE_OUT_OF_MEMORY", "The engine ran out of memory.", evidence=evidence)
    return FatalError("ENGINE_DIED", "The engine met an error that it cannot recover from.", evidence=evidence)


def write_last_line(fatal: FatalError) -> None:
    """End the log with the reason."""
    sys.stdout.flush()
    sys.stderr.write(f"\n{fatal.line}\n")
    sys.stderr.flush()
