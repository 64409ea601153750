"""Floor 7: assembly: processes, configuration, start and stop. No logic.

`supervisor.serve` is ``headrace serve``: it keeps gateway, control and node alive until it is told to stop. Each of
these imports only what it needs itself, so nothing is gathered here.
"""
