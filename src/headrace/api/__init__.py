"""Floor 6: control-plane routes, one folder per contract."""
