"""The AI gateway of a serving endpoint: limits, usage tracking, the inference table."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response

from headrace.api.access import Route
from headrace.api.databricks.found import named
from headrace.api.description import Description
from headrace.api.requests import answer, body_of, context_of
from headrace.contracts.databricks.ai_gateway import AiGatewayBody, ai_gateway_json
from headrace.contracts.databricks.paths import SERVING
from headrace.contracts.databricks.reading import read_message
from headrace.control import commands
from headrace.resources.access import Permission

_PATH = f"{SERVING}/{{name}}/ai-gateway"


async def put_ai_gateway(request: Request) -> Response:
    """Have the endpoint's limits and inference table be these; what the body leaves out is no longer so.

    Usage is counted of every endpoint, whether it says so or not. Guardrails and fallbacks are refused.
    """
    body = read_message(await body_of(request), AiGatewayBody)
    await context_of(request).write(lambda tx: commands.set_ai_gateway(tx, named(tx, request, "CAN_MANAGE"), body))
    return answer(ai_gateway_json(body))


ROUTES = (Route("PUT", _PATH, Permission.DEPLOY, put_ai_gateway),)
DESCRIPTIONS: Mapping[str, Description] = {
    f"PUT {_PATH}": Description(body=AiGatewayBody, answer=AiGatewayBody, errors="databricks"),
}
