"""How urgent a request says that it is, in whichever wire it says so."""

from __future__ import annotations

from headrace.contracts.openai import priority as openai
from headrace.contracts.openai.requests import OpenAIBody
from headrace.contracts.vertex import priority as vertex
from headrace.gateway.request_head import RequestHead
from headrace.resources.priority import Priority
from headrace.resources.snapshot import DeployedRoute


def priority_of(head: RequestHead, body: OpenAIBody, deployed: DeployedRoute) -> Priority:
    """BATCH if the body or the header asks for that; INTERACTIVE if neither does.

    Raises:
        BadField: A value is unknown. In a body for an external server it is that server's to judge.
    """
    asked = openai.priority_of(body, strict=not deployed.external_host)
    told = vertex.priority_of(head.header(vertex.SHARED_REQUEST_TYPE))
    return told if asked is Priority.INTERACTIVE else asked
