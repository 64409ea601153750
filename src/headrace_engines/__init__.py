"""The model servers that Headrace ships: each its own process, in its own environment.

Nothing here imports ``headrace`` and nothing there imports this; the two meet on the wire only.
"""

__version__ = "0.1.0"
