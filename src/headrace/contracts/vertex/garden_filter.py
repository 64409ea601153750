"""The filter of Model Garden's list: the part of https://google.aip.dev/160 that the vendor's clients send there.

``is_hf_wildcard(false)``, comparisons with ``=``, ``!=``, ``:`` and ``=~``, joined by ``AND`` and ``OR``, in brackets
where that is meant; as in that standard, ``OR`` binds more tightly. Of an expression behind ``=~`` this is read:
letters as they are, ``.`` for any of them, ``.*`` for any number of any, and ``(?i)`` before it; it may be found
anywhere in a value. That takes time that grows with the length of both and no faster, whoever wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from headrace.resources.errors import BadField

MAX_CHARACTERS = 2000
MAX_DEPTH = 20

_FIELDS = ("model_user_id", "display_name", "name", "open_source_category")
_SPELLINGS = {"modelUserId": "model_user_id", "displayName": "display_name", "openSourceCategory": _FIELDS[3]}
_FUNCTION = re.compile(r"\s*is_hf_wildcard\(\s*(?P<value>true|false)\s*\)", re.IGNORECASE)
_COMPARISON = re.compile(
    r'\s*(?P<field>[A-Za-z_][\w.-]*)\s*(?P<operator>=~|!=|=|:)\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s"()]+))'
)
_WORD = re.compile(r"\s*(?P<word>(?:AND|OR)(?!\w)|[()])")
_UNREAD = frozenset("^$|?+*()[]{}\\")

Asked = Mapping[str, Sequence[str]]
"""By field, the values that a model has for it; a comparison holds if it does for one of them."""

_Test = Callable[[Asked], bool]


class GardenFilter(msgspec.Struct, frozen=True):
    """A filter, understood.

    Attributes:
        accepts: Whether a model is wanted.
        names_hub: It asks for models under their names on the Hugging Face Hub.
    """

    accepts: _Test
    names_hub: bool


def read_filter(expression: str) -> GardenFilter:
    """A filter; an empty one takes everything.

    Raises:
        BadField: It is not understood; the evidence says where.
    """
    if len(expression) > MAX_CHARACTERS:
        raise BadField("filter is too long.", evidence=f"It has {len(expression):,} characters.")
    if not expression.strip():
        return GardenFilter(lambda _asked: True, names_hub=False)
    reader = _Reader(expression)
    test = reader.sequence(0)
    if not reader.ended:
        raise reader.error()
    return GardenFilter(test, reader.names_hub)


class _Reader:
    """Reads an expression from left to right."""

    def __init__(self, expression: str) -> None:
        self._expression = expression.strip()
        self._position = 0
        self.names_hub = False

    @property
    def ended(self) -> bool:
        return self._position == len(self._expression)

    def sequence(self, depth: int) -> _Test:
        """Factors joined by AND."""
        tests = [self._factor(depth)]
        while self._take("AND"):
            tests.append(self._factor(depth))
        return lambda asked: all(test(asked) for test in tests)

    def _factor(self, depth: int) -> _Test:
        """Terms joined by OR."""
        tests = [self._term(depth)]
        while self._take("OR"):
            tests.append(self._term(depth))
        return lambda asked: any(test(asked) for test in tests)

    def _term(self, depth: int) -> _Test:
        if self._take("("):
            if depth >= MAX_DEPTH:
                raise self.error()
            inner = self.sequence(depth + 1)
            if not self._take(")"):
                raise self.error()
            return inner
        if match := _FUNCTION.match(self._expression, self._position):
            self._position = match.end()
            wanted = match["value"].lower()
            self.names_hub = self.names_hub or wanted == "true"
            return lambda asked: wanted in asked.get("is_hf_wildcard", ())
        return self._comparison()

    def _comparison(self) -> _Test:
        match = _COMPARISON.match(self._expression, self._position)
        field = _SPELLINGS.get(match["field"], match["field"]) if match else ""
        if match is None or (field not in _FIELDS and not field.startswith("labels.")):
            raise self.error()
        self._position = match.end()
        value = match["plain"] if match["quoted"] is None else match["quoted"]
        return _comparison(field, match["operator"], value)

    def _take(self, word: str) -> bool:
        match = _WORD.match(self._expression, self._position)
        if match is None or match["word"] != word:
            return False
        self._position = match.end()
        return True

    def error(self) -> BadField:
        return BadField(
            "filter is not understood.",
            evidence=f"At {self._expression[self._position :][:100]!r} in {self._expression[:200]!r}.",
            fix=f"Compare {', '.join(_FIELDS)} or labels.KEY with =, != or =~, joined by AND and OR; "
            'such as is_hf_wildcard(false) AND display_name=~"(?i).*gemma.*".',
        )


def _comparison(field: str, operator: str, value: str) -> _Test:
    if operator == "=~":
        found = _expression(value)
        return lambda asked: any(found(each) for each in asked.get(field, ()))
    plain = re.sub(r"\\(.)", r"\1", value)
    if operator == ":":
        low = plain.lower()
        return lambda asked: any(low in {"*", each.lower()} or low in each.lower() for each in asked.get(field, ()))
    return lambda asked: (plain in asked.get(field, ())) is (operator == "=")


def _expression(value: str) -> Callable[[str], bool]:
    """Whether an expression is found in a text: its pieces between ``.*``, one after the other.

    Raises:
        BadField: It has more in it than is read here.
    """
    ignored = value.startswith("(?i)")
    pieces: list[str] = [""]
    for sign in re.findall(r"\\.|\.\*|.", value.removeprefix("(?i)"), re.DOTALL):
        if sign == ".*":
            pieces.append("")
        elif sign in _UNREAD or (sign.startswith("\\") and sign[1:].isalnum()):
            raise BadField(
                "The expression of a filter is not understood.",
                evidence=f"{sign!r} in {value[:100]!r}.",
                fix="Use letters, `.`, `.*` and a leading (?i); write other signs with a backslash.",
            )
        else:
            pieces[-1] += sign if sign == "." else re.escape(sign[-1])
    flags = re.IGNORECASE if ignored else re.NOFLAG
    compiled = [re.compile(piece, flags | re.DOTALL) for piece in pieces if piece]

    def found(text: str) -> bool:
        position = 0
        for piece in compiled:
            match = piece.search(text, position)
            if match is None:
                return False
            position = match.end()
        return True

    return found
