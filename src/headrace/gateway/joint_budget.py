"""Several budgets that one request needs room in at once: its key's, its endpoint's, and its key's at that endpoint.

A request takes from all of them or from none, in one step of the event loop: so each holds its promise by itself, and
a request that one of them refuses costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from headrace.gateway.allowance import Allowance
from headrace.gateway.budget import Budget, Reservation, T
from headrace.resources.errors import KeyLimitReached


class JointReservation:
    """What is set aside for one request in each of several budgets."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Reservation]) -> None:
        self._parts = parts

    @property
    def tokens(self) -> int:
        """How many."""
        return max(part.tokens for part in self._parts)

    def widen(self, tokens: int) -> None:
        """As `Reservation.widen`, in each; what was widened before one refuses stays so until the request is over."""
        for part in self._parts:
            part.widen(tokens)

    def settle(self, used: int) -> None:
        """As `Reservation.settle`, in each."""
        for part in self._parts:
            part.settle(used)


class JointBudget:
    """As one `Budget`, whose limits are those that leave the least.

    Args:
        budgets: At least one.
    """

    __slots__ = ("_budgets",)

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self._budgets = budgets

    @property
    def requests(self) -> Allowance:
        """The limit of requests of which the least is left; one that limits nothing where none does."""
        return _tightest([budget.requests for budget in self._budgets])

    @property
    def tokens(self) -> Allowance:
        """The same of tokens."""
        return _tightest([budget.tokens for budget in self._budgets])

    def now(self) -> float:
        """As `Budget.now`."""
        return [budget.now() for budget in self._budgets][-1]

    def require(self, tokens: int, *, at_least: bool = False) -> None:
        """As `Budget.require`, of each."""
        for budget in self._budgets:
            budget.require(tokens, at_least=at_least)

    def reserve(self, tokens: int) -> JointReservation:
        """As `Budget.reserve`, in each or in none."""
        self.require(tokens)
        return JointReservation([budget.reserve(tokens) for budget in self._budgets])

    async def when_it_fits(self, tokens: int, attempt: Callable[[], T]) -> T:
        """As `Budget.when_it_fits`: each that other gateways share is waited for, one after the other."""
        try:
            return attempt()
        except KeyLimitReached:
            if all(budget.lender is None for budget in self._budgets):
                raise
        for budget in self._budgets:
            await budget.when_it_fits(tokens, partial(budget.require, tokens))
        return attempt()


AnyBudget: TypeAlias = Budget | JointBudget
AnyReservation: TypeAlias = Reservation | JointReservation


def _tightest(allowances: Sequence[Allowance]) -> Allowance:
    limited = [allowance for allowance in allowances if allowance.limit is not None]
    return min(limited, key=lambda allowance: allowance.free) if limited else allowances[0]
