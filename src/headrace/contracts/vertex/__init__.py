"""Vertex AI's wire shapes, which are this project's native ones."""
