"""Floor 3: how a model version becomes a server: the environment, the command, the meaning of its output."""
