"""Text generation with Hugging Face transformers: the engine for breadth."""
