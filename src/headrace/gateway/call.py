"""An inference request on its way through the gateway, once it is known what answers it."""

from __future__ import annotations

import time

import msgspec

from headrace.contracts.openai.usage import Usage
from headrace.gateway.fleet import Pool
from headrace.gateway.limits import Limits
from headrace.gateway.metering import Meter
from headrace.gateway.record import RequestRecord
from headrace.gateway.request_head import Headers, RequestHead
from headrace.gateway.throughput import Claim
from headrace.resources.priority import Priority
from headrace.resources.snapshot import DeployedRoute

_PASSED_ON = (b"traceparent", b"tracestate")
"""Headers of the client that an engine gets to see (W3C Trace Context). Its key is not among them."""


IMPATIENT_S = 30.0
"""A client that gives an answer less to begin is as one that left: that there was none says nothing of who was asked.
One that waits for longer and gets nothing is let down, though the gateway itself would have waited on."""


class Call(msgspec.Struct, kw_only=True):
    """An inference request that was authenticated and routed.

    Attributes:
        translated: Whether errors have another shape than OpenAI's, so that an engine's are told in our own words.
        headers: For the answer.
        forwarded: For the engine.
        patience_s: How long the client says that it waits for the answer to begin; None if it does not say.
        endpoint_s: What its endpoint has for that; 0: nothing.
        answers: Engines' answers that are over, so far: one, or one for each instance.
        sent_bytes: Of the bodies of those.
        priority: The class in which it waits for its turn.
        session: What it belongs to; empty where it does not say.
        settled: What of the tokens that engines told was charged already.
        owing: Requests to engines that used tokens, or may have.
        meter: Writes down what it uses.
        hides_usage: Whether a stream tells its usage only because we asked for that.
        claim: What it may use of the throughput that its deployed model was sold; None where none was.
    """

    record: RequestRecord
    deployed: DeployedRoute
    pool: Pool
    limits: Limits
    translated: bool
    headers: Headers
    forwarded: Headers
    patience_s: float | None = None
    endpoint_s: float = 0.0
    answers: int = 0
    sent_bytes: int = 0
    priority: Priority = Priority.INTERACTIVE
    session: bytes = b""
    settled: Usage = Usage(0, 0)
    owing: int = 0
    meter: Meter
    hides_usage: bool = False
    claim: Claim | None = None

    @property
    def waits_s(self) -> float | None:
        """For how long an answer to it may take to begin, by its client and its endpoint; None: nobody says."""
        said = [seconds for seconds in (self.patience_s, self.endpoint_s) if seconds]
        return min(said, default=None)

    @property
    def given_up(self) -> bool:
        """Whether an impatient client's time for it is over, and its endpoint's, if that has one, is not."""
        patience_s, waited_s = self.patience_s, time.monotonic() - self.record.arrived_s
        if patience_s is None or patience_s >= IMPATIENT_S:
            return False
        return waited_s >= patience_s and not 0.0 < self.endpoint_s <= waited_s

    def learn(self) -> None:
        """Tell the pool what the request came to, once all of it is answered and if the engines counted it."""
        record = self.record
        if self.answers and record.prompt_tokens is not None:
            self.pool.expectation.learn(
                size_bytes=self.sent_bytes,
                prompt_tokens=record.prompt_tokens,
                output_tokens=record.completion_tokens or 0,
                answers=self.answers,
            )

    def newly_used(self) -> Usage | None:
        """The tokens that engines told since this was asked last; None if they told of none."""
        told = Usage(self.record.prompt_tokens or 0, self.record.completion_tokens or 0)
        if told == self.settled:
            return None
        before, self.settled = self.settled, told
        return Usage(told.prompt_tokens - before.prompt_tokens, told.completion_tokens - before.completion_tokens)

    def goes_to(self, deployed: DeployedRoute, pool: Pool) -> None:
        """Be answered by another deployed model than was chosen first; nothing was sent to an engine yet.

        An answer that comments have begun (`heartbeat`) has told of the first one already.
        """
        self.deployed, self.pool = deployed, pool
        self.hides_usage = False
        self.record.deployed_model = deployed.id
        self.meter.goes_to(deployed)
        if self.record.recording is not None:
            self.record.recording.goes_to(deployed)
        told = dict(model_headers(deployed))
        self.headers = [(name, told.get(name, value)) for name, value in self.headers]


def model_headers(deployed: DeployedRoute) -> Headers:
    """What an answer says of the model that gave it."""
    return [
        (b"x-vertex-ai-deployed-model-id", deployed.id.encode()),
        (b"x-vertex-ai-model-id", deployed.model.rpartition("/")[2].encode()),
    ]


def forwarded_headers(head: RequestHead, record: RequestRecord) -> Headers:
    """What an engine is told of the request besides its body."""
    passed_on = [(name, value) for name, value in head.headers if name in _PASSED_ON]
    return [(b"content-type", b"application/json"), (b"x-request-id", record.request_id.encode("ascii")), *passed_on]
