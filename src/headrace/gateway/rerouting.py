"""Another deployed model for a request whose own was taken away while it waited: nobody has seen anything of it yet."""

from __future__ import annotations

from headrace.gateway.call import Call
from headrace.gateway.routing import Routing
from headrace.resources.errors import EndpointNotFound, NotReady
from headrace.resources.snapshot import EndpointRoute


def reroute(call: Call, routing: Routing, endpoint: EndpointRoute) -> bool:
    """Have a request answered by another deployed model of its endpoint, by the traffic split that is left.

    Only where nothing of it was sent to an engine, and where what it waited for was undeployed or failed: as long as
    that answers, it is waited for. The request stands in the other's line as one that came now.

    Args:
        call: The request, which could not be answered.
        routing: As of the newest snapshot.
        endpoint: What it asks, as it was when it came.

    Returns:
        Whether there is another.
    """
    table = routing.table
    if call.record.sent_s is not None:
        return False
    try:
        newest = table.endpoint(endpoint.scope, endpoint.id)
        if any(deployed.id == call.deployed.id and deployed.answers for deployed in newest.deployed):
            return False
        chosen = table.choose(newest, session=call.session)
    except (EndpointNotFound, NotReady):
        return False
    if not chosen.answers:
        return False
    call.goes_to(chosen, routing.fleet.pools[chosen.deployment_id])
    return True
