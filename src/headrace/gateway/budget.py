"""What one key may use in any minute: reserved before it is used, charged once it is known.

The promise, for tokens: at every moment what requests under way have reserved, and what was charged for others within
the last 60 s, is together at most the limit. A charge takes its reservation's place in one step. So whatever 60 s one
looks at, all that was used by all requests that were under way at any moment of them is at most the limit, as long as
none uses more than it reserved. Nothing has to be known of when within a request its tokens were made.

For requests it is the same, with nothing to reserve: those that arrived in any 60 s are at most the limit.

There is no bucket that refills: one that holds a minute's worth lets twice as much through within a minute.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from headrace.gateway.allowance import AT_LEAST_S, WINDOW_S, Allowance, KeyUse, Log
from headrace.gateway.limit_words import words_of
from headrace.resources.errors import Draining, KeyLimitReached, KeyLimitTooSmall
from headrace.resources.leases import Unit
from headrace.resources.limits import KeyLimits

T = TypeVar("T")

KEPT_SHARE = 4
"""A gateway that hands over keeps this part of what is free: a fourth."""


class Reservation:
    """Tokens of a key that are set aside for one request.

    Attributes:
        tokens: How many.
    """

    __slots__ = ("_budget", "_settled", "tokens")

    def __init__(self, budget: Budget, tokens: int) -> None:
        self._budget = budget
        self._settled = False
        self.tokens = tokens

    def widen(self, tokens: int) -> None:
        """See that so many are set aside; more than that stay so.

        Raises:
            KeyLimitReached: The rest does not fit now.
            KeyLimitTooSmall: So many never do.
            Draining: Another gateway knows.
        """
        if tokens > self.tokens:
            self._budget.set_aside(tokens, reserved=self.tokens)
            self.tokens = tokens

    def settle(self, used: int) -> None:
        """Charge what was used in its place; only the first time counts."""
        if not self._settled:
            self._settled = True
            self._budget.charge(used, reserved=self.tokens)


class Lender(Protocol):
    """Knows who may have what is missing here."""

    async def until_it_fits(self, budget: Budget, tokens: int, attempt: Callable[[], T]) -> T:
        """Try once, and again when more has come, as long as that may be.

        Raises:
            KeyLimitReached: It did not fit even then.
        """
        ...


class Budget:
    """The limits of one key and what is used of them.

    Args:
        limits: Of the key.
        clock: Seconds that never go back, the same for all processes of the machine.
        changed: Told whenever something is used or reserved.
        key_id: Whose it is: a key's, or the name of an endpoint's budget (`headrace.resources.endpoint_limits`).

    Attributes:
        leaving: Whether another gateway takes over, and no more is given away here than was kept.
        lender: Where there is more, if several gateways share the limits; else None.
    """

    def __init__(
        self,
        limits: KeyLimits,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[], None] = lambda: None,
        *,
        key_id: str = "",
    ) -> None:
        self._clock = clock
        self._changed = changed
        self.key_id = key_id
        self.leaving = False
        self.lender: Lender | None = None
        self.requests = Allowance(limits.requests_per_minute)
        self.tokens = Allowance(limits.tokens_per_minute)

    def now(self) -> float:
        """By its clock; what is a window old by then is left out."""
        now = self._clock()
        self.requests.forget(now)
        self.tokens.forget(now)
        return now

    def allowances(self) -> Iterator[tuple[Unit, Allowance]]:
        """Both, whether they are limited or not."""
        yield "requests", self.requests
        yield "tokens", self.tokens

    @property
    def idle(self) -> bool:
        """Whether nothing of it is used or reserved."""
        self.now()
        return not any(allowance.busy or allowance.kept for _, allowance in self.allowances())

    def follow(self, limits: KeyLimits) -> None:
        """Take other limits. What was used of the old ones counts; what is under way goes on."""
        self.requests.limit, self.tokens.limit = limits.requests_per_minute, limits.tokens_per_minute

    def require(self, tokens: int, *, at_least: bool = False) -> None:
        """Hold that one more request with so many tokens fits now.

        Args:
            tokens: Of its prompt and of the longest answer to it.
            at_least: Whether it may turn out to need more.

        Raises:
            KeyLimitReached: It does not.
            KeyLimitTooSmall: It never does.
            Draining: Another gateway knows.
        """
        now = self.now()
        wanted = (("request", self.requests, 1), ("token", self.tokens, tokens))
        for unit, allowance, need in wanted:
            if allowance.limit is not None and need > allowance.limit:
                raise _too_small(self.key_id, unit, allowance.limit, f"{'at least ' if at_least else ''}{need}")
        for unit, allowance, need in wanted:
            self._require_room(unit, allowance, need, now, at_least=at_least)

    def _require_room(self, unit: str, allowance: Allowance, need: int, now: float, *, at_least: bool = False) -> None:
        if self.leaving and allowance.limit is not None and need > allowance.kept:
            raise Draining(
                "This gateway goes down, and the one in its place counts what the key uses.",
                fix="Send the request again, on another connection.",
                retry_after_s=AT_LEAST_S,
            )
        if not self.leaving and not allowance.has_room(need):
            raise _reached(self.key_id, unit, allowance, need, now, at_least=at_least)

    def reserve(self, tokens: int) -> Reservation:
        """Let a request through, and set its tokens aside.

        Raises:
            KeyLimitReached: It does not fit now.
            KeyLimitTooSmall: It never does.
            Draining: Another gateway knows.
        """
        self.require(tokens)
        self.requests.log.add(1, self._clock())
        self.tokens.reserved += tokens
        if self.leaving:
            self.requests.kept = max(self.requests.kept - 1, 0)
            self.tokens.kept = max(self.tokens.kept - tokens, 0)
        self._changed()
        return Reservation(self, tokens)

    def set_aside(self, tokens: int, *, reserved: int) -> None:
        """Set more tokens aside for a request that was let through.

        Args:
            tokens: All that it needs.
            reserved: What it has.

        Raises:
            KeyLimitReached: The rest does not fit now.
            KeyLimitTooSmall: So many never do.
            Draining: Another gateway knows.
        """
        allowance, more = self.tokens, tokens - reserved
        if allowance.limit is not None and tokens > allowance.limit:
            raise _too_small(self.key_id, "token", allowance.limit, str(tokens))
        self._require_room("token", allowance, more, self.now())
        allowance.reserved += more
        if self.leaving:
            allowance.kept = max(allowance.kept - more, 0)
        self._changed()

    async def when_it_fits(self, tokens: int, attempt: Callable[[], T]) -> T:
        """Try (`require` or `reserve`); where it does not fit, and other gateways may have room, wait for it a while.

        Raises:
            KeyLimitReached: It does not fit.
            KeyLimitTooSmall: It never does.
            Draining: Another gateway knows.
        """
        if self.lender is None:
            return attempt()
        return await self.lender.until_it_fits(self, tokens, attempt)

    def charge(self, used: int, *, reserved: int) -> None:
        """Let go of what was reserved, and note what was used instead."""
        now = self.now()
        self.tokens.reserved -= reserved
        if used:
            self.tokens.log.add(used, now)
        self._changed()

    def hand_over(self) -> None:
        """Leave what is free to another gateway, but for a share: some requests are on their way here."""
        if not self.leaving:
            self.now()
            self.leaving = True
            self.requests.kept = self.requests.free // KEPT_SHARE
            self.tokens.kept = self.tokens.free // KEPT_SHARE

    def let_go(self) -> None:
        """Leave that share, too."""
        self.requests.kept = self.tokens.kept = 0

    def use(self) -> KeyUse:
        """What is counted here, for another gateway. Together it only becomes less, once this one hands over."""
        self.now()
        return KeyUse(
            requests=self.requests.log.cells,
            tokens=self.tokens.log.cells,
            requests_reserved=self.requests.kept,
            tokens_reserved=self.tokens.reserved + self.tokens.kept,
        )

    def look_elsewhere(self, uses: Iterable[KeyUse]) -> None:
        """Count what other gateways say, in place of what they said before."""
        now = self._clock()
        for allowance in (self.requests, self.tokens):
            allowance.log_elsewhere, allowance.reserved_elsewhere = Log(), 0
        for use in uses:
            self.requests.log_elsewhere.take(use.requests, now)
            self.tokens.log_elsewhere.take(use.tokens, now)
            self.requests.reserved_elsewhere += use.requests_reserved
            self.tokens.reserved_elsewhere += use.tokens_reserved

    def take_over(self, use: KeyUse) -> None:
        """Count as one's own what a gateway left that is gone.

        Nobody will tell what became of that which it had reserved: it was used, as far as anybody knows, until now.
        """
        now = self._clock()
        self.requests.log.take(use.requests, now)
        self.tokens.log.take(use.tokens, now)
        if use.requests_reserved:
            self.requests.log.add(use.requests_reserved, now)
        if use.tokens_reserved:
            self.tokens.log.add(use.tokens_reserved, now)


def _too_small(name: str, unit: str, limit: int, needs: str) -> KeyLimitTooSmall:
    words = words_of(name)
    return words.too_small(
        f"The request needs more than {words.may_use} in a minute: the limit is {limit} {unit}s.",
        evidence=f"This one needs {needs}, for its prompt and the longest answer that it allows.",
        fix=f"Ask for fewer with `max_tokens`, or {words.fix}",
    )


def _reached(name: str, unit: str, allowance: Allowance, need: int, now: float, *, at_least: bool) -> KeyLimitReached:
    words, fits_in_s = words_of(name), allowance.fits_in_s(need, now)
    when = f"in {math.ceil(fits_in_s)} s"
    if allowance.held + need > allowance.room:
        when = f"once requests under way have ended, {when} at the earliest"
    reserved = f", and {allowance.held} are reserved by requests under way" if unit == "token" else ""
    share = "" if allowance.lease is None else f"{allowance.room} of them are this gateway's: "
    return words.reached(
        f"{words.limit} of {allowance.limit} {unit}s per minute is reached.",
        evidence=f"{share}{allowance.used} were used in the last {WINDOW_S:.0f} s{reserved}. "
        f"This one needs {'at least ' if at_least else ''}{need}. It fits {when}.",
        fix=f"Try again then, or {words.fix}",
        retry_after_s=fits_in_s,
    )
