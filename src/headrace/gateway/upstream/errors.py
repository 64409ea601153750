"""What can go wrong with an upstream server, seen from its client.

UpstreamError
├── Unreachable  no connection
│   └── Untrusted  because of TLS: a certificate that does not hold, or none
├── NoAnswer     the connection ended before the answer began
├── TimedOut     the answer did not begin in time
└── BrokeOff     the answer began and did not come to its end
    └── Stalled  nothing of it came for too long
"""

from __future__ import annotations


class UpstreamError(Exception):
    """The request got no complete answer; the message is the evidence."""


class Unreachable(UpstreamError):
    """No connection could be made; the request was not sent."""


class Untrusted(Unreachable):
    """TLS did not come about: nobody knows who is there."""


class NoAnswer(UpstreamError):
    """The connection ended, or brought something that is not HTTP, before the answer began."""


class TimedOut(UpstreamError):
    """The answer did not begin within its deadline."""


class BrokeOff(UpstreamError):
    """The answer began and did not come to its end."""


class Stalled(BrokeOff):
    """The answer began and then stood still for longer than it may."""
