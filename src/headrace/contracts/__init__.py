"""Floor 1: the wire shapes of each vendor's API and their pure translation onto our nouns. No I/O."""
