"""Floor 2: the models that may be deployed by name: what they are, where their weights are, and what they need."""

from headrace.catalogue.entries import Entry, Licence, entries, find_entry, find_on_hub, hub_id
from headrace.catalogue.mirrors import Mirror, read_mirror
from headrace.catalogue.notebook import notebook_of
from headrace.catalogue.options import Option, options_of
from headrace.catalogue.shown import entry_json, option_json

__all__ = [
    "Entry",
    "Licence",
    "Mirror",
    "Option",
    "entries",
    "entry_json",
    "find_entry",
    "find_on_hub",
    "hub_id",
    "notebook_of",
    "option_json",
    "options_of",
    "read_mirror",
]
