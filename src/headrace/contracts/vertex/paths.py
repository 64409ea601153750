"""Paths below an endpoint: ``/V/projects/P/locations/L/endpoints/E`` and what follows."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec

from headrace.resources.names import Scope

VERSIONS = ("v1", "v1beta1")

_INVOKE = "/invoke"


class EndpointPath(msgspec.Struct, frozen=True):
    """A path below one endpoint, percent-decoded.

    Attributes:
        deployed_model: The deployed model that the path asks for, or empty for the traffic split's choice.
        method: What follows: ``:predict``, ``/chat/completions``, …; empty for the endpoint itself. ``/invoke/…``,
            which calls the model server's own routes, is already taken off.
        by_name: Whether ``endpoint`` is what it is called, in the place of a publisher's model, and not its id.
    """

    project: str
    location: str
    endpoint: str
    method: str
    deployed_model: str = ""
    by_name: bool = False

    @property
    def scope(self) -> Scope:
        """Project and location.

        Raises:
            BadName: One of them cannot be a name.
        """
        return Scope(self.project, self.location)


def segments_of(target: bytes) -> list[str]:
    """The segments of a path as it was sent, each percent-decoded by itself: an encoded slash stays in its segment."""
    return [unquote(segment) for segment in target.decode("latin-1").split("/")[1:]]


def read_endpoint_path(segments: list[str]) -> EndpointPath | None:
    """The parts of a path below an endpoint; None if it is another kind of path.

    A method of ``publishers/P/models/NAME`` is one, too: google-genai makes that of every ``model`` that is no full
    name (of ``river`` ``publishers/google/models/river``, of ``endpoints/7`` ``publishers/endpoints/models/7``).
    """
    if len(segments) < 7 or segments[0] not in VERSIONS:
        return None
    if len(segments) == 9 and segments[1::2] == ["projects", "locations", "publishers", "models"]:
        name, colon, verb = segments[8].rpartition(":")
        return EndpointPath(segments[2], segments[4], name, colon + verb, by_name=True) if name else None
    if (segments[1], segments[3], segments[5]) != ("projects", "locations", "endpoints"):
        return None
    endpoint, colon, verb = segments[6].partition(":")
    rest = segments[7:]
    if not endpoint or (colon and rest):
        return None
    deployed_model = ""
    if len(rest) >= 2 and rest[0] == "deployedModels":
        deployed_model, rest = rest[1], rest[2:]
    method = colon + verb if colon else "".join(f"/{segment}" for segment in rest)
    if deployed_model and not method.startswith(f"{_INVOKE}/"):
        return None
    if method.startswith(f"{_INVOKE}/"):
        method = method.removeprefix(_INVOKE).removeprefix("/v1")
    return EndpointPath(segments[2], segments[4], endpoint, method, deployed_model)
