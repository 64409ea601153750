"""Converters: programs that turn a model's folder into one that an engine loads, each in an environment of its own.

Run as ``python -P -m headrace_engines.convert.WAY SOURCE TARGET``; see `convert.program` for what they tell and how
they end.
"""
