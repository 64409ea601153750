"""Floor 3: how a model version becomes a server: the environment, the command, the meaning of its output."""

from headrace.runtimes.choice import Choice, choose
from headrace.runtimes.conversions import CONVERTERS
from headrace.runtimes.environments import Environments
from headrace.runtimes.facts import MachineFacts, ModelFacts, facts_of, machine_of
from headrace.runtimes.runtime import (
    Conversion,
    EngineCommand,
    EngineEnd,
    Environment,
    Installable,
    Launch,
    Runtime,
    SleepMode,
)
from headrace.runtimes.table import RUNTIMES, computes_on_gpus, find, sleep_mode_of

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
    "SleepMode",
    "choose",
    "computes_on_gpus",
    "facts_of",
    "find",
    "machine_of",
    "sleep_mode_of",
]
