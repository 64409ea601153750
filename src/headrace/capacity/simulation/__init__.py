"""What a deployment would do under a load, by the fitted cost of its requests: events, not time steps."""

from headrace.capacity.simulation.load import Arrival, Tenant, arrivals_of
from headrace.capacity.simulation.outcome import Outcome, TenantOutcome
from headrace.capacity.simulation.run import Scale, simulate

__all__ = ["Arrival", "Outcome", "Scale", "Tenant", "TenantOutcome", "arrivals_of", "simulate"]
