"""vLLM's own server, made to keep this house's promises.

vLLM is not ours and is not patched. `__main__` starts its server and leaves nothing of it behind; `gate` is the ASGI
middleware that its ``--middleware`` option loads: a token on every route, an allow-list of routes, parameters that it
would ignore refused by name, errors in the shape of our other engines. Read for vLLM 0.32.0.
"""
