"""Floor 7: assembly: processes, configuration, start and stop. No logic."""
