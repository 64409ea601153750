"""OpenAI's wire shapes: what engines speak and what OpenAI's clients expect."""
