"""How many replicas a deployment has, by what they have to do."""

from headrace.control.autoscaling.autoscaler import Autoscaler

__all__ = ["Autoscaler"]
