"""Where an argument of a Python call ends, in text that comes in pieces, and what it says as JSON. Pure."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from typing import Any

MAX_DEPTH = 64
"""Brackets within brackets of a literal that is read. The parser of Python slows down with them, and then gives up."""

MAX_CHARS = 256 * 1024
"""The longest literal that is read: a list of so many characters takes a third of a second."""

_OUTSIDE = re.compile(r"""["'()\[\]{},]|[^\w\s.:+\-=]""")
"""Outside of strings: brackets, quotes, commas, and what no literal has."""

_INSIDE = re.compile(r"""["'\\]""")
_WORDS = {"true": True, "false": False, "null": None}
"""JSON's words for Python's, which models write too (so does vllm/tool_parsers/utils.py, ``get_parameter_value``)."""


class PythonScan:
    """Finds the comma or the closing parenthesis that ends an argument.

    Args:
        start: Where in the text it begins.

    Attributes:
        plain: Nothing but strings, numbers, words and brackets so far, and not too deep: it may be a literal.
    """

    def __init__(self, start: int) -> None:
        self._position = start
        self._depth = 0
        self._quote = ""
        self.plain = True

    def find_end(self, text: str, *, final: bool) -> int | None:
        """Where it ends; None while it does not. Called again with the same text and more.

        Args:
            text: All of it.
            final: Nothing more follows, so that two quotes are an empty string and not the beginning of three.
        """
        while match := (_INSIDE if self._quote else _OUTSIDE).search(text, self._position):
            at, character = match.start(), match.group()
            if character in "'\"":
                if not self._pass_quote(text, at, final=final):
                    return None
                continue
            self._position = at + 1
            if self._quote:
                self._position = at + 2  # whatever is escaped, it does not end the string
            elif self._depth == 0 and character in ",)":
                return at
            elif not self._pass_bracket(character):
                self.plain = False
        self._position = max(self._position, len(text))
        return None

    def _pass_quote(self, text: str, at: int, *, final: bool) -> bool:
        """Go beyond a quote; False where it is too short to tell what it is."""
        quote = text[at]
        three = text[at : at + 3]
        undecided = len(three) < 3 and three == quote * len(three) and not final
        if not self._quote:
            if undecided:
                self._position = at
                return False
            self._quote = quote * 3 if three == quote * 3 else quote
            self._position = at + len(self._quote)
        elif text.startswith(self._quote, at):
            self._position, self._quote = at + len(self._quote), ""
        elif undecided and self._quote == quote * 3:
            self._position = at
            return False
        else:
            self._position = at + 1
        return True

    def _pass_bracket(self, character: str) -> bool:
        if character in "([{":
            self._depth += 1
        elif character in ")]}":
            self._depth = max(0, self._depth - 1)
        else:
            return character == ","
        return self._depth <= MAX_DEPTH


def literal_as_json(source: str) -> str | None:
    """The JSON of a Python literal: text, numbers, True, False, None, and lists, tuples, sets and dicts of such.

    Nothing is ever evaluated: the text is parsed, and the tree is read. None for whatever else it is.
    """
    if len(source) > MAX_CHARS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backslashes that escape nothing
            tree = ast.parse(f"[{source.strip()}\n]", mode="eval").body
        elements = tree.elts if isinstance(tree, ast.List) else []
        if len(elements) != 1:
            return None
        value = _value(elements[0])
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        return text if text.isascii() or _is_unicode(text) else json.dumps(value)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None


def _value(node: ast.expr) -> Any:
    """What a node says.

    Raises:
        ValueError: It is no literal, or one that JSON does not have.
    """
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str | int | float)):
        return node.value
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_value(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        return {_key(key): _value(each) for key, each in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return _number(node.operand) * (-1 if isinstance(node.op, ast.USub) else 1)
    raise ValueError(type(node).__name__)


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise ValueError("not text")


def _number(node: ast.expr) -> int | float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float) and math.isfinite(node.value):  # type: ignore[arg-type] # it is a number
        return node.value  # type: ignore[return-value] # as was just asked
    raise ValueError("not a number")


def _is_unicode(text: str) -> bool:
    """Whether it can be sent: half of a surrogate pair, which Python's escapes can write, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
