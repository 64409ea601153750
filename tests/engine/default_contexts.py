"""Run by the engine's Python: the context of a model whose configuration says nothing of it, by ``model_type``.

Usage: ``python default_contexts.py < given.json``, with a list of types; prints JSON, without those that have no bound.
"""

import json
import sys

import transformers

from headrace_engines.transformers.loading import own_context

transformers.logging.set_verbosity_error()
UNMADE = {"gemma4_assistant"}
"""Whose class has no configuration of its own: it wants that of the model that it assists."""

found = {name: own_context(transformers.CONFIG_MAPPING[name]()) for name in json.load(sys.stdin) if name not in UNMADE}
print(json.dumps({name: tokens for name, tokens in found.items() if tokens}))
