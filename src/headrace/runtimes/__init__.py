"""Floor 3: how a model version becomes a server: the environment, the command, the meaning of its output."""

from headrace.runtimes.environments import Environments
from headrace.runtimes.runtime import EngineCommand, EngineEnd, Environment, Launch, Runtime
from headrace.runtimes.table import RUNTIMES, choose, find

__all__ = [
    "RUNTIMES",
    "EngineCommand",
    "EngineEnd",
    "Environment",
    "Environments",
    "Launch",
    "Runtime",
    "choose",
    "find",
]
