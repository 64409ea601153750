"""Tools that a chat model may call: their definitions, the formats of calls in text, and reading calls out of it."""
