"""A stream of events on its way from the engine to the client, followed by its request's meter."""

from __future__ import annotations

from collections.abc import Callable

from headrace.contracts.openai.events import ErrorEvent, WholeEvents, error_in
from headrace.contracts.openai.stream_usage import without_usage
from headrace.gateway.call import Call
from headrace.gateway.exchange import Exchange
from headrace.gateway.metering import StreamMeter
from headrace.resources.errors import EngineBrokeOff, EngineRefused


class EventPump:
    """Takes the pieces of an engine's stream and writes whole events to the client.

    `take` is called where the bytes arrive, not by the task that answers the request: a chunk costs no wake-up.

    Args:
        exchange: The client's side.
        call: What is answered.
        meter: Sees every event before the client does.
        rewrite: From whole events to what the client gets of them; None: they go on as they are.
    """

    __slots__ = ("_call", "_events", "_exchange", "_hides_usage", "_meter", "_record", "_recording", "_rewrite")

    def __init__(
        self, exchange: Exchange, call: Call, meter: StreamMeter, rewrite: Callable[[bytes], bytes] | None
    ) -> None:
        self._exchange = exchange
        self._call = call
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
            EngineBrokeOff: One of the events says that the engine failed; those before it were passed on.
            EngineRefused: The same, where it says that the request is at fault.
            HeadraceError: The events are not what they should be.
        """
        whole = self._events.feed(piece)
        error = error_in(whole)
        keeps_up = self._pass_on(whole if error is None else error.before)
        if error is not None:
            raise _ended_by(self._call, error)
        return keeps_up

    def rest(self) -> bytes:
        """What is left for the client at the stream's end: an event without its blank line.

        Raises:
            HeadraceError: As `take`.
        """
        whole = self._events.rest()
        if error := error_in(whole):
            raise _ended_by(self._call, error)
        return self._shown(whole)

    def _pass_on(self, whole: bytes) -> bool:
        passed_on = self._shown(whole)
        if not passed_on:
            return True
        self._record.piece(len(passed_on), timed=not self._meter.ended)
        return self._exchange.write_soon(passed_on)

    def _shown(self, whole: bytes) -> bytes:
        if not whole:
            return b""
        self._meter.follow(whole)
        if self._recording is not None:
            self._recording.events(whole)
        if self._hides_usage:
            whole = without_usage(whole)
        return whole if self._rewrite is None else self._rewrite(whole)


def _ended_by(call: Call, error: ErrorEvent) -> EngineBrokeOff | EngineRefused:
    """An error in the midst of an answer, as what it means for who asked."""
    if error.refused:
        return EngineRefused(error.message)
    host = call.deployed.external_host
    who = f"The external server {host}" if host else f"The engine of {call.pool.name}"
    look = "" if host else " If it stays: `headrace logs`."
    return EngineBrokeOff(
        f"{who} failed in the middle of its answer.",
        evidence=error.message,
        fix=f"Send the request again.{look}",
    )
