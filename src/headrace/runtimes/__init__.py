"""Floor 3: how a model version becomes a server: the environment, the command, the meaning of its output."""

from headrace.runtimes.choice import Choice, MachineFacts, ModelFacts, choose, facts_of, machine_of
from headrace.runtimes.conversions import CONVERTERS
from headrace.runtimes.environments import Environments
from headrace.runtimes.runtime import Conversion, EngineCommand, EngineEnd, Environment, Installable, Launch, Runtime
from headrace.runtimes.table import RUNTIMES, find

__all__ = [
    "CONVERTERS",
    "RUNTIMES",
    "Choice",
    "Conversion",
    "EngineCommand",
    "EngineEnd",
    "Environment",
    "Environments",
    "Installable",
    "Launch",
    "MachineFacts",
    "ModelFacts",
    "Runtime",
    "choose",
    "facts_of",
    "find",
    "machine_of",
]
