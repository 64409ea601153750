"""Chat templates: whether a folder's own turns conversations into prompts."""

from headrace.weights.templates.findings import check_template
from headrace.weights.templates.source import OLDER_FILE, Template, given_template, read_template

__all__ = ["OLDER_FILE", "Template", "check_template", "given_template", "read_template"]
