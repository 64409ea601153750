"""What vLLM's compiler of grammars cannot read of a schema, told before it could fail in the middle of an answer."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_engines.serving.followable import refused, walk
from headrace_engines.serving.generator import Grammar


def require_plain_references(grammar: Grammar, param: str) -> None:
    """Refuse references with escapes, and those to other documents.

    xgrammar 0.2.8 looks for names as they are written ("Cannot find field a~1b", json_schema_converter.cc:4950), and
    takes a reference to elsewhere for a schema that lets everything through.

    Raises:
        ApiError: 400, ``grammar_invalid``; it names the parameter.
    """
    if grammar.kind != "json_schema":
        return
    for value, _ in walk(msgspec.json.decode(grammar.text)):
        reference: Any = value.get("$ref") if isinstance(value, dict) else None
        if not isinstance(reference, str):
            continue
        if not reference.startswith("#"):
            why = f"its reference {reference[:100]!r} leads to another document, which vllm does not read; write what "
            raise refused(f"{why}it leads to under `$defs`.", param)
        if "~" in reference or "%" in reference:
            why = f"its reference {reference[:100]!r} has an escape (~0, ~1 or %), which vllm does not read; name "
            raise refused(f"{why}what it leads to without `/`, `~` and `%`.", param)
