"""Deployments whose model stands behind somebody else's server: looked at, never started or stopped."""

from headrace.control.external.looks import Look, Looks, Pace, Wanted

__all__ = ["Look", "Looks", "Pace", "Wanted"]
