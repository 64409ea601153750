"""Floor 0: the nouns, their states and the moves between them, principals and roles, the tree of errors."""
