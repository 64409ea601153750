"""Databricks' REST API, as translations onto our nouns: https://docs.databricks.com/api/workspace."""
