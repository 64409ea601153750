"""How much of everything one gateway takes."""

from __future__ import annotations

import msgspec

MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what a request may use. Sizes in bytes, times in seconds.

    Attributes:
        body_bytes: Of an inference request. Bodies for the control plane pass through; it has limits of its own.
        snapshot_bytes: Of a routing snapshot.
        connect_timeout_s: To reach an engine or the control plane.
        noticed_s: From when the last engine of a deployment does not answer its socket any more until control knows.
            A request waits so long for word that the engine is being replaced, and then for its successor.
        first_byte_timeout_s: From a streaming request's arrival at the engine to the first byte of its answer, where
            the engine does nothing for anybody meanwhile.
        answer_timeout_s: The same where it works for others, and for a unary request, whose first byte comes when all
            tokens are made. OpenAI's client gives up after 600 s.
        stall_timeout_s: The longest that nothing comes of an answer that has begun, while its client reads.
        control_timeout_s: The same for the control plane.
        control_returns_s: How long a request for the control plane waits while nobody listens there: it was killed and
            is back within seconds, or the server has just been started.
        held_answer_bytes: A unary answer up to this size is held until it is complete, so that one that is cut off
            becomes an error with a status. A longer one streams.
        predict_parallel: Instances of one ``:predict`` that are worked on at a time.
        heartbeat_s: A stream that stands in line, or waits for its engine to begin, gets a comment each time so long
            has passed, and with the first its status 200. The standard of server-sent events advises about 15 s (HTML,
            9.2.7), and no proxy that is common gives up sooner: Heroku's and Google's do after 30 s, nginx and AWS
            after 60 s. Requests that wait less keep whatever status they come to.
    """

    body_bytes: int = 32 * MIB
    snapshot_bytes: int = 64 * MIB
    connect_timeout_s: float = 5.0
    noticed_s: float = 5.0
    first_byte_timeout_s: float = 120.0
    answer_timeout_s: float = 600.0
    stall_timeout_s: float = 120.0
    control_timeout_s: float = 600.0
    control_returns_s: float = 15.0
    held_answer_bytes: int = MIB
    predict_parallel: int = 16
    heartbeat_s: float = 15.0
