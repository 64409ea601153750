"""Floor 6: control-plane routes, one folder per contract."""

from headrace.api.app import create_app

__all__ = ["create_app"]
