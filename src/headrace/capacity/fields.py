"""Fields of a configuration that only some families have, read with the care that `config.json` deserves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.resources.errors import ConfigInvalid

_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")


class Fields:
    """Reads one part of a configuration.

    Args:
        raw: The part.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    def value(self, name: str) -> Any:
        """As it is written; None where it is not."""
        return self._raw.get(name)

    def number(self, *names: str) -> int:
        """The first of these that is there; 0 where none is.

        Raises:
            ConfigInvalid: It is not a whole number, or one below zero.
        """
        for name in names:
            value = self._raw.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
                raise ConfigInvalid(
                    f"config.json is not valid: {name} is not a whole number.",
                    evidence=f"{name} is {str(value)[:80]!r}.",
                    fix="Copy config.json from the model's source again.",
                )
            return value
        return 0

    def known(self, *names: str) -> int:
        """The first of these that is a number, whole; 0 where none is.

        For what a plan can do without: some families have a list where others have a number.
        """
        values = (self._raw.get(name) for name in names)
        numbers = (each for each in values if isinstance(each, int | float) and not isinstance(each, bool))
        return next((int(each) for each in numbers if 0 < each < 2**40), 0)

    def numbers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers; what is none is left out."""
        value = self._raw.get(name)
        return tuple(each for each in value if isinstance(each, int)) if isinstance(value, list) else ()

    def words(self, name: str) -> tuple[str, ...]:
        """A list of words; what is none is left out."""
        value = self._raw.get(name)
        return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()

    def flag(self, name: str) -> bool:
        """Whether it is there and true."""
        return self._raw.get(name) is True

    @property
    def experts(self) -> int:
        """Experts that a layer's router chooses among."""
        return self.number(*_EXPERTS)

    @property
    def experts_per_token(self) -> int:
        """How many of them it chooses for a token; no more than there are, whatever is written."""
        chosen = self.number(*_CHOSEN)
        return min(chosen or 1, self.experts) if self.experts else chosen

    @property
    def router_bias(self) -> bool:
        """Whether the router has a bias for each expert (DeepSeek V3's ``noaux_tc``)."""
        return self._raw.get("topk_method") == "noaux_tc"
