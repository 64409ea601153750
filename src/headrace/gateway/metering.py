"""What a request used, from the engine's answers to the usage log."""

from __future__ import annotations

import time

from headrace.contracts.openai.events import ends_stream, text_pieces
from headrace.contracts.openai.usage import Usage, usage_in
from headrace.gateway.fault import is_its_fault
from headrace.gateway.record import RequestRecord
from headrace.gateway.usage_log import UsageLog
from headrace.resources.errors import HeadraceError
from headrace.resources.snapshot import DeployedRoute, EndpointRoute
from headrace.resources.usage import Service, UsageRecord


class Meter:
    """Writes one request's record, once, before the end of its answer goes out.

    Nothing if no engine ever saw it; but where a rollout watches, what found no place by the fault of what answers.

    Args:
        log: Where it goes.
        record: The request.
        endpoint: What was asked.
        deployed: What answers.
    """

    def __init__(self, log: UsageLog, record: RequestRecord, endpoint: EndpointRoute, deployed: DeployedRoute) -> None:
        self._log = log
        self._record = record
        self._endpoint = endpoint
        self._deployed = deployed
        self._at_least = 0
        self._inexact = False
        self._refused = False
        self._failed = False
        self._over = False

    def waive(self) -> None:
        """Write nothing: no model computes for this request."""
        self._over = True

    def goes_to(self, deployed: DeployedRoute) -> None:
        """Another deployed model answers than was expected."""
        self._deployed = deployed

    def add(self, usage: Usage | None, *, at_least: int = 0) -> None:
        """Take in what one engine's answer told; where it told nothing, so many output tokens as a lower bound."""
        self._record.count(usage)
        if usage is None:
            self._at_least += at_least
            self._inexact = True

    def finish(self) -> None:
        """The answer is whole: its end may go out after this."""
        self._write(finished=True)

    def refuse(self) -> None:
        """The engine refused the request, which used nothing of it."""
        self._refused = True
        self._write(finished=False)

    def blame(self, error: HeadraceError) -> None:
        """Note what ended the request, before it is written that it broke off."""
        self._failed = is_its_fault(error)

    def break_off(self) -> None:
        """Whatever was not written yet failed or broke off, and the engine may have done more than it told."""
        self._inexact = True
        self._write(finished=False)

    def _write(self, *, finished: bool) -> None:
        record, deployed, scope = self._record, self._deployed, self._endpoint.scope
        sent = record.sent_s is not None
        if self._over or not (sent or (deployed.watched and self._failed)):
            return
        self._over = True
        self._log.append(
            UsageRecord(
                request_id=record.request_id,
                at=time.time(),
                key_id=record.key_id,
                project=scope.project,
                location=scope.location,
                endpoint_id=self._endpoint.id,
                deployed_model_id=deployed.id,
                model_id=deployed.model.rpartition("/")[2],
                model_version=deployed.model_version,
                prompt_tokens=record.prompt_tokens or 0,
                completion_tokens=(record.completion_tokens or 0) + self._at_least,
                finished=finished,
                inexact=self._inexact and sent,
                sent=sent,
                service=self._service(finished=finished) if deployed.watched else None,
            )
        )

    def _service(self, *, finished: bool) -> Service:
        """How the request was served until now."""
        record = self._record
        if self._refused or not record.stream:
            return Service(failed=self._failed)
        began_s = record.first_piece_s
        if began_s is None and self._failed:
            return Service(failed=True)
        # An answer of a single piece is written down before that goes out; any other one without was not waited for.
        waited_s = (time.monotonic() if began_s is None else began_s) - record.routed_s
        return Service(
            failed=self._failed,
            first_token_s=waited_s,
            inter_token_s=record.gaps.mean_s if record.gaps else None,
            abandoned=began_s is None and not finished,
        )


class StreamMeter:
    """Follows one streamed answer for its request's meter.

    Attributes:
        ended: Whether ``[DONE]`` has come: whoever reads it takes the answer for whole.
    """

    def __init__(self, meter: Meter) -> None:
        self.ended = False
        self._meter = meter
        self._usage: Usage | None = None
        self._text_pieces = 0
        self._added = False

    def follow(self, events: bytes) -> None:
        """See the whole events that are about to be passed on."""
        self._text_pieces += text_pieces(events)
        if b'"usage"' in events:
            self._usage = usage_in(events) or self._usage
        if b"[DONE]" in events and ends_stream(events):
            self.ended = True
            self.finish()

    def finish(self) -> None:
        """The answer is whole."""
        self.add()
        self._meter.finish()

    def add(self) -> None:
        """Take in what is known, if that was not done yet."""
        if not self._added:
            self._added = True
            self._meter.add(self._usage, at_least=self._text_pieces)
