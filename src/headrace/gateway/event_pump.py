"""A stream of events on its way from the engine to the client, followed by its request's meter."""

from __future__ import annotations

from collections.abc import Callable

from headrace.contracts.openai.events import WholeEvents
from headrace.contracts.openai.stream_usage import without_usage
from headrace.gateway.call import Call
from headrace.gateway.exchange import Exchange
from headrace.gateway.metering import StreamMeter


class EventPump:
    """Takes the pieces of an engine's stream and writes whole events to the client.

    `take` is called where the bytes arrive, not by the task that answers the request: a chunk costs no wake-up.

    Args:
        exchange: The client's side.
        call: What is answered.
        meter: Sees every event before the client does.
        rewrite: From whole events to what the client gets of them; None: they go on as they are.
    """

    __slots__ = ("_events", "_exchange", "_hides_usage", "_meter", "_record", "_recording", "_rewrite")

    def __init__(
        self, exchange: Exchange, call: Call, meter: StreamMeter, rewrite: Callable[[bytes], bytes] | None
    ) -> None:
        self._exchange = exchange
        self._record = call.record
        self._recording = call.record.recording
        self._hides_usage = call.hides_usage
        self._events = WholeEvents()
        self._meter = meter
        self._rewrite = rewrite

    def take(self, piece: bytes) -> bool:
        """Pass on the events that are whole with this piece.

        Returns:
            Whether the client keeps up.

        Raises:
            ClientGone: It hung up.
            HeadraceError: The events are not what they should be.
        """
        passed_on = self._shown(self._events.feed(piece))
        if not passed_on:
            return True
        self._record.piece(len(passed_on), timed=not self._meter.ended)
        return self._exchange.write_soon(passed_on)

    def rest(self) -> bytes:
        """What is left for the client at the stream's end: an event without its blank line."""
        return self._shown(self._events.rest())

    def _shown(self, whole: bytes) -> bytes:
        if not whole:
            return b""
        self._meter.follow(whole)
        if self._recording is not None:
            self._recording.events(whole)
        if self._hides_usage:
            whole = without_usage(whole)
        return whole if self._rewrite is None else self._rewrite(whole)
