"""Rate limits of a serving endpoint."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response

from headrace.api.access import Route
from headrace.api.databricks.found import named
from headrace.api.description import Description, listed
from headrace.api.requests import answer, body_of, context_of
from headrace.contracts.databricks.paths import SERVING
from headrace.contracts.databricks.rate_limits import RateLimit, RateLimitsBody, rate_limits_json
from headrace.contracts.databricks.reading import read_message
from headrace.control import commands
from headrace.resources.access import Permission

_PATH = f"{SERVING}/{{name}}/rate-limits"


async def put_rate_limits(request: Request) -> Response:
    """Limit what may be asked of the endpoint in any minute; what was said here before is forgotten.

    Those of its AI gateway hold besides; where two count the same, the lesser one holds.
    """
    limits = read_message(await body_of(request), RateLimitsBody).rate_limits or ()
    await context_of(request).write(lambda tx: commands.set_rate_limits(tx, named(tx, request, "CAN_MANAGE"), limits))
    return answer({"rate_limits": rate_limits_json(limits)})


ROUTES = (Route("PUT", _PATH, Permission.DEPLOY, put_rate_limits),)
DESCRIPTIONS: Mapping[str, Description] = {
    f"PUT {_PATH}": Description(body=RateLimitsBody, answer=listed("rate_limits", RateLimit), errors="databricks"),
}
