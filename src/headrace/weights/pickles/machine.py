"""Reads a pickle as the list of instructions that it is, and carries none of them out.

Python's own unpickler imports what a pickle names and calls it. Here names stay names (`symbols.Global`) and calls
become descriptions, so there is nothing that a pickle could run. The instructions are those of
``pickletools.opcodes``, of protocols 0 to 5.

Work and memory are bounded by the number of instructions, each of which makes at most one value (none copies what is
there already: the same list may stand in itself), and by the bytes that were read.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any

from headrace.weights.pickles.symbols import Global, Opaque, PickleRefused, Storage, call, is_allowed, storage

MAX_INSTRUCTIONS = 2_000_000
"""A tensor takes about 40: 50,000 tensors in a file. As many values of any kind took less than 200 MB."""

MAX_NAMED = 8
"""How many names outside the allow-list are told; the rest are only more of the same."""

_LONGEST_LINE_BYTES = 4096
_LONGEST_NUMBER_BYTES = 256

_MARK = object()
_OPAQUE = Opaque()
_KEYS = (str, int, float, bytes, type(None))


class PickleEnds(PickleRefused):
    """The bytes end before the pickle does."""


class Machine:
    """One pickle, read from ``position`` of ``content``.

    Attributes:
        position: Where the next byte is read; after `run` that behind the pickle.
        unsafe: The names outside the allow-list that it asked for, in that order.
        storages: The storages that it named, by key.
    """

    def __init__(self, content: bytes, position: int = 0) -> None:
        self.position = position
        self.unsafe: list[str] = []
        self.storages: dict[str, Storage] = {}
        self._content = content
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Read to the end of the pickle and return what it describes.

        Raises:
            PickleEnds: The bytes end first.
            PickleRefused: It is no pickle, or a larger one than any file of weights has.
        """
        for _ in range(MAX_INSTRUCTIONS):
            at = self.position
            code = self.take(1)
            if code == pickle.STOP:
                return self.pop()
            step = _STEPS.get(code)
            if step is None:
                raise PickleRefused(f"byte {at:,}, {code.hex()}, is no instruction of a pickle")
            step(self)
        raise PickleRefused(f"it has more than {MAX_INSTRUCTIONS:,} instructions")

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self.position + count
        if end > len(self._content):
            raise PickleEnds(f"its {len(self._content):,} bytes end inside an instruction")
        taken = self._content[self.position : end]
        self.position = end
        return taken

    def number(self, width: int) -> int:
        """The next bytes as a length or an index."""
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        """Text up to the next line break, as protocol 0 writes its values."""
        end = self._content.find(b"\n", self.position, self.position + _LONGEST_LINE_BYTES)
        if end < 0:
            if len(self._content) - self.position < _LONGEST_LINE_BYTES:
                raise PickleEnds("its bytes end inside a line")
            raise PickleRefused("a line in it does not end")
        text = self.take(end + 1 - self.position)[:-1]
        return text.decode("utf-8", "replace")

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the last value from the stack."""
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleRefused("it takes more values than it has")
        return self._stack.pop()

    def top(self) -> Any:
        """The last value, left where it is."""
        value = self.pop()
        self._stack.append(value)
        return value

    def since_mark(self) -> list[Any]:
        """Take all values since the last mark, and the mark."""
        values: list[Any] = []
        while self._stack:
            value = self._stack.pop()
            if value is _MARK:
                return values[::-1]
            values.append(value)
        raise PickleRefused("it has no mark where it needs one")

    def name(self, module: Any, name: Any) -> Global:
        """A name that the pickle asks for; one outside the allow-list is noted."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleRefused("a name in it is not made of text")
        wanted = Global(module[:200], name[:200])
        if not is_allowed(wanted) and wanted.dotted not in self.unsafe and len(self.unsafe) < MAX_NAMED:
            self.unsafe.append(wanted.dotted)
        return wanted

    def refer(self, reference: Any) -> None:
        """Put the storage on the stack that a persistent id names."""
        named = storage(reference)
        self.storages[named.key] = named
        self.push(named)

    def extension(self, width: int) -> None:
        """A name by its number in a registry of the process that reads: never in a file of weights."""
        self.push(self.name("copyreg", f"extension {self.number(width)}"))

    def remember(self, index: int) -> None:
        """Keep the last value under a number."""
        self._memo[index] = self.top()

    def recall(self, index: int) -> None:
        """Put a kept value on the stack."""
        if index not in self._memo:
            raise PickleRefused(f"it recalls value {index:,}, which it never kept")
        self.push(self._memo[index])

    def memoize(self) -> None:
        """Keep the last value under the next number."""
        self.remember(len(self._memo))

    def set_items(self, values: list[Any]) -> None:
        """Give the dict on the stack keys and values in turn. Keys that are no plain values name no tensor."""
        target = self.top()
        if len(values) % 2:
            raise PickleRefused("a key in it has no value")
        if isinstance(target, dict):
            for key, value in zip(values[::2], values[1::2], strict=True):
                if isinstance(key, _KEYS):
                    target[key] = value

    def append(self, values: list[Any]) -> None:
        """Lengthen the list on the stack."""
        target = self.top()
        if isinstance(target, list):
            target.extend(values)

    def call(self, arguments: Any, wanted: Any) -> None:
        """Put on the stack what a call would make."""
        self.push(call(wanted, arguments))

    def mark(self) -> None:
        """Begin a run of values."""
        self._stack.append(_MARK)

    def pop_one(self) -> None:
        """Forget the last value, or the last mark."""
        if not self._stack:
            raise PickleRefused("it takes more values than it has")
        self._stack.pop()


def _reduce(machine: Machine) -> None:
    arguments = machine.pop()
    machine.call(arguments, machine.pop())


def _new_with_keywords(machine: Machine) -> None:
    machine.pop()
    _reduce(machine)


def _from_class(machine: Machine) -> None:
    wanted = machine.name(machine.line(), machine.line())
    machine.call(tuple(machine.since_mark()), wanted)


def _from_stack(machine: Machine) -> None:
    values = machine.since_mark()
    if not values:
        raise PickleRefused("it makes an object of no class")
    machine.call(tuple(values[1:]), values[0])


def _stack_name(machine: Machine) -> None:
    name = machine.pop()
    machine.push(machine.name(machine.pop(), name))


def _set_item(machine: Machine) -> None:
    value = machine.pop()
    machine.set_items([machine.pop(), value])


def _tuple_of(count: int) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(values[::-1]))

    return step


def _bytes(width: int) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.take(machine.number(width)))


def _text(width: int) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.take(machine.number(width)).decode("utf-8", "replace"))


def _long(width: int) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        length = machine.number(width)
        if length > _LONGEST_NUMBER_BYTES:
            raise PickleRefused(f"a number in it has {length:,} bytes")
        machine.push(int.from_bytes(machine.take(length), "little", signed=True))

    return step


def _number_line(machine: Machine) -> None:
    text = machine.line()
    try:
        machine.push({"00": False, "01": True}[text] if text in {"00", "01"} else int(text.rstrip("L")))
    except ValueError as error:
        raise PickleRefused("a number in it is not made of digits") from error


def _float_line(machine: Machine) -> None:
    try:
        machine.push(float(machine.line()))
    except ValueError as error:
        raise PickleRefused("a number in it is not made of digits") from error


def _quoted_line(machine: Machine) -> None:
    machine.push(machine.line()[1:-1])


def _frozen_set(machine: Machine) -> None:
    machine.since_mark()
    machine.push(_OPAQUE)


def _dict(machine: Machine) -> None:
    values = machine.since_mark()
    machine.push({})
    machine.set_items(values)


def _ignore(machine: Machine) -> None:
    machine.pop()  # a state that some object would be given


_STEPS: dict[bytes, Callable[[Machine], object]] = {
    pickle.PROTO: lambda m: m.take(1),
    pickle.FRAME: lambda m: m.take(8),
    pickle.MARK: Machine.mark,
    pickle.POP: Machine.pop_one,
    pickle.POP_MARK: Machine.since_mark,
    pickle.DUP: lambda m: m.push(m.top()),
    pickle.NONE: lambda m: m.push(None),
    pickle.NEWTRUE: lambda m: m.push(True),
    pickle.NEWFALSE: lambda m: m.push(False),
    pickle.INT: _number_line,
    pickle.LONG: _number_line,
    pickle.BININT: lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
    pickle.BININT1: lambda m: m.push(m.number(1)),
    pickle.BININT2: lambda m: m.push(m.number(2)),
    pickle.LONG1: _long(1),
    pickle.LONG4: _long(4),
    pickle.FLOAT: _float_line,
    pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    pickle.STRING: _quoted_line,
    pickle.UNICODE: lambda m: m.push(m.line()),
    pickle.BINSTRING: _text(4),
    pickle.SHORT_BINSTRING: _text(1),
    pickle.BINUNICODE: _text(4),
    pickle.SHORT_BINUNICODE: _text(1),
    pickle.BINUNICODE8: _text(8),
    pickle.BINBYTES: _bytes(4),
    pickle.SHORT_BINBYTES: _bytes(1),
    pickle.BINBYTES8: _bytes(8),
    pickle.BYTEARRAY8: _bytes(8),
    pickle.EMPTY_TUPLE: lambda m: m.push(()),
    pickle.TUPLE: lambda m: m.push(tuple(m.since_mark())),
    pickle.TUPLE1: _tuple_of(1),
    pickle.TUPLE2: _tuple_of(2),
    pickle.TUPLE3: _tuple_of(3),
    pickle.EMPTY_LIST: lambda m: m.push([]),
    pickle.LIST: lambda m: m.push(m.since_mark()),
    pickle.APPEND: lambda m: m.append([m.pop()]),
    pickle.APPENDS: lambda m: m.append(m.since_mark()),
    pickle.EMPTY_DICT: lambda m: m.push({}),
    pickle.DICT: _dict,
    pickle.SETITEM: _set_item,
    pickle.SETITEMS: lambda m: m.set_items(m.since_mark()),
    pickle.EMPTY_SET: lambda m: m.push(_OPAQUE),
    pickle.ADDITEMS: Machine.since_mark,
    pickle.FROZENSET: _frozen_set,
    pickle.GET: lambda m: m.recall(_index(m.line())),
    pickle.BINGET: lambda m: m.recall(m.number(1)),
    pickle.LONG_BINGET: lambda m: m.recall(m.number(4)),
    pickle.PUT: lambda m: m.remember(_index(m.line())),
    pickle.BINPUT: lambda m: m.remember(m.number(1)),
    pickle.LONG_BINPUT: lambda m: m.remember(m.number(4)),
    pickle.MEMOIZE: Machine.memoize,
    pickle.GLOBAL: lambda m: m.push(m.name(m.line(), m.line())),
    pickle.STACK_GLOBAL: _stack_name,
    pickle.REDUCE: _reduce,
    pickle.NEWOBJ: _reduce,
    pickle.NEWOBJ_EX: _new_with_keywords,
    pickle.INST: _from_class,
    pickle.OBJ: _from_stack,
    pickle.BUILD: _ignore,
    pickle.BINPERSID: lambda m: m.refer(m.pop()),
    pickle.EXT1: lambda m: m.extension(1),
    pickle.EXT2: lambda m: m.extension(2),
    pickle.EXT4: lambda m: m.extension(4),
}
"""What each instruction does to the stack. Missing: PERSID, whose text names no storage, and the out-of-band buffers of
protocol 5, which a file does not have."""


def _index(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        raise PickleRefused("a place in its memo is no number")
    return int(text)
