"""Headrace: a self-hosted, managed model-serving service."""

__version__ = "0.1.0"
