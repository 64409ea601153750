"""The body of a streamed answer, cut into JSON documents: of server-sent events, of an array, or of lines."""

from __future__ import annotations

import codecs
import json
from abc import ABC, abstractmethod

from headrace.contracts.openai.events import WholeEvents, event_data

EVENTS = "text/event-stream"

_BETWEEN = " \t\r\n,[]"
_DECODER = json.JSONDecoder()


class Documents(ABC):
    """Takes a body piece by piece, and gives the documents that have become whole."""

    @abstractmethod
    def feed(self, piece: bytes) -> list[bytes]:
        """Those that are whole with this piece."""

    @abstractmethod
    def rest(self) -> list[bytes]:
        """What is left at the end, whole or not."""


def documents(content_type: str) -> Documents:
    """For a body of this type."""
    return _Events() if content_type.partition(";")[0].strip().lower() == EVENTS else _Json()


class _Events(Documents):
    """The ``data`` of server-sent events, without the mark of the end that OpenAI's streams have."""

    def __init__(self) -> None:
        self._events = WholeEvents()

    def feed(self, piece: bytes) -> list[bytes]:
        return self._data(self._events.feed(piece))

    def rest(self) -> list[bytes]:
        return self._data(self._events.rest())

    @staticmethod
    def _data(events: bytes) -> list[bytes]:
        return [data for data in event_data(events) if data and data != b"[DONE]"]


class _Json(Documents):
    """Documents one after the other: in lines, or in an array as Google's streams over REST have them."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""

    def feed(self, piece: bytes) -> list[bytes]:
        self._held = (self._held + self._decode(piece)).lstrip(_BETWEEN)
        found = []
        while self._held:
            try:
                _, end = _DECODER.raw_decode(self._held)
            except ValueError:  # not whole yet
                break
            found.append(self._held[:end].encode())
            self._held = self._held[end:].lstrip(_BETWEEN)
        return found

    def rest(self) -> list[bytes]:
        return [self._held.encode()] if self._held else []
