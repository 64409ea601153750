"""Floor 5: the agent of one machine: stages weights, installs runtimes, runs replicas, reports."""

from headrace.node.agent import Agent

__all__ = ["Agent"]
