"""Requests to servers that are not ours, and what their errors mean for a client that does not know of them."""

from __future__ import annotations

import email.utils
import time

from headrace import __version__
from headrace.contracts.openai.errors import REFUSALS, message_of
from headrace.gateway.request_head import Headers
from headrace.gateway.upstream import TimedOut, Untrusted, UpstreamAnswer, UpstreamError
from headrace.resources.errors import (
    EngineFailed,
    EngineRefused,
    EngineTimeout,
    ExternalModelMissing,
    ExternalNotOpenAI,
    ExternalRefused,
    ExternalTlsInvalid,
    ExternalUnreachable,
    HeadraceError,
    NotSupported,
    QueueFull,
)

KEY_REFUSALS = frozenset({401, 402, 403})
"""Statuses by which a server says that whoever sends its key may not: a wrong key, no rights, no credit."""

_OUR_WAY = "/v1"
_LONGEST_RETRY_S = 3600.0


def target(base_path: str, path: str) -> str:
    """Where a server keeps what our engines have at `path`: its base path takes the place of ``/v1``.

    >>> target("/api/v1", "/v1/chat/completions"), target("/api/v1", "/tokenize")
    ('/api/v1/chat/completions', '/api/tokenize')
    """
    if path.startswith(f"{_OUR_WAY}/"):
        return base_path + path.removeprefix(_OUR_WAY)
    return base_path.removesuffix(_OUR_WAY) + path


def headers(key: str) -> Headers:
    """What every request to a server carries besides its content. Some refuse clients that have no name."""
    named = [(b"user-agent", f"headrace/{__version__}".encode()), (b"accept-encoding", b"identity")]
    return [*named, (b"authorization", b"Bearer " + key.encode("ascii"))] if key else named


def error_of(host: str, answer: UpstreamAnswer, body: bytes) -> HeadraceError:
    """What a server's answer means that is no success.

    Its own words are passed on, but for those about our key, which may repeat a part of it.
    """
    status, message = answer.status, answer.secret.hide_in(message_of(body))
    evidence = f"{host} answered HTTP {status}" + (f": {message}" if message else ".")
    if status in REFUSALS:
        return EngineRefused(message or f"HTTP {status} without a reason.")
    if status in KEY_REFUSALS:
        return refused(host, status)
    if status == 429:
        return QueueFull(
            "The external server takes no more requests now.", evidence=evidence, retry_after_s=_wait_s(answer) or 1.0
        )
    if status == 404 and _names_model(body):
        return ExternalModelMissing(
            "The external server does not have the deployment's model any more.",
            evidence=evidence,
            fix="Deploy the model under the name that it has there now.",
        )
    if status in (404, 405, 501):
        return NotSupported("The external server does not offer this.", evidence=evidence)
    return EngineFailed(
        "The external server failed on this request.",
        evidence=evidence,
        fix="Try again later; what ails it is in its own log.",
        retry_after_s=_wait_s(answer),
    )


def encoded(answer: UpstreamAnswer) -> bool:
    """Whether its body is compressed, although it was asked not to be."""
    return answer.header(b"content-encoding").strip().lower() not in (b"", b"identity")


def require_plain(host: str, answer: UpstreamAnswer) -> None:
    """Hold that an answer's body can be read; nothing here unpacks what others packed.

    Raises:
        HeadraceError: It cannot be: what the status alone means, if that is enough, else `ExternalNotOpenAI`.
    """
    if not encoded(answer):
        return
    if answer.status >= 300 and answer.status not in REFUSALS:
        raise error_of(host, answer, b"")
    told = answer.header(b"content-encoding")[:40].decode("latin-1")
    raise ExternalNotOpenAI(
        "The external server compresses its answers although it was asked not to.",
        evidence=f"{host} answered HTTP {answer.status} with content-encoding {told!r} to accept-encoding 'identity'.",
        fix="Turn compression off at that server, or at the proxy before it.",
    )


def refused(host: str, status: int) -> ExternalRefused:
    """It does not let us in."""
    return ExternalRefused(
        "The external server refuses the deployment's key.",
        evidence=f"{host} answered HTTP {status}. What else it said may hold a part of the key, and is not shown.",
        fix="Your own key is good. Whoever deployed the model deploys it again, with a key that the server takes.",
    )


def silence_of(host: str, error: UpstreamError) -> HeadraceError:
    """What it means that a server gave no answer at all."""
    if isinstance(error, TimedOut):
        return EngineTimeout(
            f"The external server {host} did not begin its answer in time.",
            evidence=str(error),
            fix="Ask for fewer tokens, or stream the answer.",
        )
    if isinstance(error, Untrusted):
        return ExternalTlsInvalid(
            f"The external server {host} cannot be trusted.",
            evidence=str(error),
            fix="If its certificate is your own authority's: `headrace serve --external-ca-file FILE.pem`. If none at "
            "all is trusted, this machine lacks the package ca-certificates.",
        )
    return ExternalUnreachable(
        f"The external server {host} does not answer.",
        evidence=str(error),
        fix="Try again: it is looked at every few seconds, and used again once it answers.",
        retry_after_s=5.0,
    )


def _names_model(body: bytes) -> bool:
    """Whether a 404 is about the model; else it is about the path. OpenAI's code, vLLM's and Ollama's sentences."""
    said = body.lower()
    return b"model_not_found" in said or (b"model" in said and (b"exist" in said or b"found" in said))


def _wait_s(answer: UpstreamAnswer) -> float | None:
    """What ``Retry-After`` says, in seconds; it may be a date (RFC 9110, section 10.2.3)."""
    told = answer.header(b"retry-after").decode("latin-1").strip()
    if not told:
        return None
    try:
        wait_s = float(told)
    except ValueError:
        try:
            wait_s = email.utils.parsedate_to_datetime(told).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(wait_s, 0.0), _LONGEST_RETRY_S) if wait_s == wait_s else None  # noqa: PLR0124 - not a number
