"""Floor 3: where a server can run: processes on this machine, each behind its shim."""
