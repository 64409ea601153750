"""Floor 3: where a server can run: processes on this machine, each behind its shim.

Imports nothing, because every shim imports it: `backend` has the seam, `local` the processes of this machine.
"""
