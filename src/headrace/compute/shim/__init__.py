"""The shim: one small process per replica that owns its engine and outlives everything else.

Run as ``python -S -P -m headrace.compute.shim [--adopt] REPLICA_DIR`` by `headrace.compute.local`. It uses the standard
library only, and little of that (no asyncio, subprocess, pathlib or typing), because one runs beside every engine.

What lies in a replica's folder is named in `record.py`, what the shim answers in `server.py`.
"""
