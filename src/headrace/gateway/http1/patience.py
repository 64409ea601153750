"""How long clients are waited for."""

from __future__ import annotations

import msgspec


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long the server waits for a client, in seconds.

    Attributes:
        head_s: From the first byte of a request's head to its end; Apache's `mod_reqtimeout` gives a head 20 to 40 s.
            For a TLS handshake as well.
        body_s: Between two pieces of its body; nginx waits twice as long.
        keep_alive_s: Between two requests. Longer than the 60 s of common load balancers, so that it is never us who
            close first under their hands.
        read_s: For the client to read something of what it is sent, where it lags behind; nginx waits twice as long.
        linger_s: How long a connection is still read from after its request was refused.
        last_call_s: For a kept connection to bring its last request, once the server retires. Closed at once, it would
            take a request with it that is under way: most clients send none of theirs a second time.
    """

    head_s: float = 30.0
    body_s: float = 30.0
    keep_alive_s: float = 75.0
    read_s: float = 30.0
    linger_s: float = 1.0
    last_call_s: float = 1.0

    @property
    def look_every_s(self) -> float:
        """How often deadlines are looked at: they are kept to within this."""
        shortest = min(self.head_s, self.body_s, self.keep_alive_s, self.read_s, self.linger_s, self.last_call_s)
        return min(1.0, shortest / 4)
