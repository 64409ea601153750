"""Floor 4: the data plane: authenticate, route, admit, balance, stream, meter."""
