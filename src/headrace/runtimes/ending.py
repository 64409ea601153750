"""What the end of an engine of ours means: its own last words first, then its exit status and its memory."""

from __future__ import annotations

import signal

import msgspec

from headrace.resources.errors import CODES, EngineDied, EngineOutOfMemory, Failure
from headrace.runtimes.runtime import EngineEnd

FATAL_PREFIX = "HEADRACE_FATAL "
"""How an engine of ours begins the line that says why it cannot go on (`headrace_engines.serving.fatal`)."""

FIXES = {
    "CHAT_TEMPLATE_INVALID": "Correct the file, or deploy without --chat-template: the folder's own is used then.",
    "ENGINE_OUT_OF_MEMORY": "Deploy with a shorter --max-model-len, on a machine with more memory, or a smaller model.",
    "ENGINE_UNSUPPORTED_ARCHITECTURE": "Check `model_type` in config.json, or choose another runtime.",
    "ENGINE_BAD_TENSOR": "Export the weights again from the model that config.json describes, and import that.",
    "TOKENIZER_INVALID": "Copy the tokenizer's files from the model's source again.",
    "ENGINE_DIED": "Read its log (`headrace logs`); if it names nothing you can change, report it.",
}

_OUT_OF_MEMORY_WORDS = (
    "memoryerror",
    "allocate memory",
    "memory allocation of",  # Rust's last words (the tokenizers library), before it aborts
    "std::bad_alloc",
    "out of memory",
    "not enough memory",
)
_NEAR_LIMIT = 0.9
_EVIDENCE_LINES = 5


class _Fatal(msgspec.Struct):
    code: str
    message: str
    evidence: str = ""


def classify(end: EngineEnd) -> Failure:
    """Why an engine ended though nobody asked it to."""
    fatal = _last_words(end)
    if fatal is not None:
        return Failure(code=fatal.code, message=fatal.message, evidence=fatal.evidence, fix=FIXES.get(fatal.code, ""))
    how = _how(end.exit_status)
    memory = _memory_evidence(end)
    if memory:
        return EngineOutOfMemory(
            f"The engine ran out of memory: {how}.", evidence=memory, fix=FIXES["ENGINE_OUT_OF_MEMORY"]
        ).failure
    lines = [line for line in end.log_tail if line.strip()][-_EVIDENCE_LINES:]
    evidence = "Its last lines: " + " | ".join(lines) if lines else "It wrote nothing."
    return EngineDied(f"The engine ended by itself: {how}.", evidence=evidence, fix=FIXES["ENGINE_DIED"]).failure


def _last_words(end: EngineEnd) -> _Fatal | None:
    for line in reversed(end.log_tail):
        if line.startswith(FATAL_PREFIX):
            try:
                fatal = msgspec.json.decode(line.removeprefix(FATAL_PREFIX), type=_Fatal)
            except msgspec.MsgspecError:
                return None  # cut off: the status and the lines say what they can
            return fatal if fatal.code in CODES else None
    return None


def _how(exit_status: int | None) -> str:
    if exit_status is None:
        return "its exit status is unknown, because its shim was killed before"
    if exit_status >= 0:
        return f"exit status {exit_status}"
    try:
        return f"killed by {signal.Signals(-exit_status).name}"
    except ValueError:
        return f"killed by signal {-exit_status}"


def _memory_evidence(end: EngineEnd) -> str:
    for line in reversed(end.log_tail):
        if any(word in line.lower() for word in _OUT_OF_MEMORY_WORDS):
            return f"Its log says: {line.strip()}"
    if end.exit_status not in {-signal.SIGKILL, None}:
        return ""
    if end.oom_kills:
        return f"The kernel ended {end.oom_kills} process(es) for want of memory while it ran."
    limit = min(end.memory_limit_bytes or end.machine_memory_bytes, end.machine_memory_bytes or 2**63)
    if limit and end.peak_resident_bytes >= _NEAR_LIMIT * limit:
        return f"It had {end.peak_resident_bytes:,} bytes in memory; the limit is {limit:,}."
    return ""
