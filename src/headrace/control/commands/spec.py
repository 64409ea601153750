"""Bounds of a serving specification that hold for every model and machine; all else is seen in CHECKING."""

from __future__ import annotations

from headrace.control.commands.texts import check_text
from headrace.resources.errors import BadField
from headrace.resources.models import CHAT_TEMPLATE_MAX_BYTES, ServingSpec
from headrace.weights import require_specification


def check_spec(spec: ServingSpec) -> None:
    """Hold them.

    Raises:
        BadField: A text is empty, too long or not printable, a number makes no sense, or there is no such software
            specification.
    """
    check_text("The runtime", spec.runtime)
    if spec.tensor_parallel < 1:
        raise BadField(
            "A model is on at least one device.",
            evidence=f"tensor_parallel is {spec.tensor_parallel}.",
            fix="Give the number of GPUs that share the model, or leave it out for one.",
        )
    if spec.software_specification:
        require_specification(spec.software_specification)
    if spec.tool_parser is not None:
        check_text("The tool parser", spec.tool_parser)
        if not spec.tool_parser:
            raise BadField(
                "The tool parser has no name.", fix="Leave it out: the chat template shows how the model writes calls."
            )
    if spec.chat_template is not None:
        _check_template(spec.chat_template)


def _check_template(template: str) -> None:
    """Its size alone: what parses Jinja is in the engines' environments, and refuses it before it is READY."""
    if not template.strip():
        raise BadField(
            "The chat template is empty.", evidence=f"It has {len(template)} characters.", fix="Leave it out."
        )
    size_bytes = len(template.encode(errors="replace"))
    if size_bytes > CHAT_TEMPLATE_MAX_BYTES:
        raise BadField(
            "The chat template is too long.",
            evidence=f"It has {size_bytes:,} bytes, where {CHAT_TEMPLATE_MAX_BYTES:,} are allowed.",
            fix="Give the template alone, not the file of the tokenizer that it came in.",
        )
