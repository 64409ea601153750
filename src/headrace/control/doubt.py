"""Why a throughput that is sold may not be kept, although everything runs: nobody measured it, or not well."""

from __future__ import annotations

from headrace.capacity.units import tokens_per_s
from headrace.control.placement import home
from headrace.control.profiling import carries, is_sold
from headrace.control.standing import newest_profile, standing_of
from headrace.resources.deployments import Deployment
from headrace.resources.models import ModelVersion
from headrace.resources.profiles import Profile
from headrace.resources.states import ANSWERING
from headrace.store import Transaction

DOUBTFUL = 0.25
"""A fit that is further off on average, as a share. In the minute that a node has before a deployment is READY it is
off by 3 % on a quiet machine, and by 13 to 16 % on one that others slow (docs/throughput.md)."""

_AGAIN = "Measure on an idle machine: `headrace profile`, with the endpoint's name."


def doubt(tx: Transaction, deployment: Deployment) -> str:
    """A sentence for whoever bought it; empty where nothing is sold, and where it was measured well."""
    carried = deployment.carried
    if carried is None or deployment.state not in ANSWERING or not is_sold(tx, deployment):
        return ""
    if carried.measured:
        profile = tx.get(Profile, scope=deployment.scope, id=carried.profile_id) if carried.profile_id else None
        if profile is None or profile.mean_error <= DOUBTFUL:
            return ""
        return f"What is sold goes by a measurement whose fit is {profile.mean_error:.0%} off on average. {_AGAIN}"
    found = _measured_in_vain(tx, deployment)
    why = carries(found.carried) if found is not None else "What a replica carries was not measured."
    stays = f"It stays sold by the prediction, {tokens_per_s(carried):,.0f} tokens/s a replica, and may not be kept."
    return f"{why} {stays} {_AGAIN}"


def _measured_in_vain(tx: Transaction, deployment: Deployment) -> Profile | None:
    """The newest measurement that holds, where it says that nothing keeps the latencies."""
    version = tx.get(
        ModelVersion, scope=deployment.scope, model_id=deployment.model_id, version=deployment.model_version
    )
    if version is None or not deployment.runtime:
        return None
    found = newest_profile(tx, version, standing_of(deployment, version, home(tx)))
    return found if found is not None and not found.carried.concurrency else None
