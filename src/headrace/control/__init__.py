"""Floor 5: the level-triggered reconciler, which keeps what runs equal to what was asked."""
