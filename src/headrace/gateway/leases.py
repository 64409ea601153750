"""What this gateway may give away of each key's limits, where several gateways share them.

Control splits each limit (`headrace.control.leases`). A gateway holds its part until control wants it back, and then
gives back what is not in use: so whatever is used or reserved anywhere is covered by the lease of some gateway, and all
leases of a limit are together at most the limit. What a gateway holds lies on disk before any of it is used, so that
the one in its place goes on with it, whether control is there or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from headrace.gateway.allowance import Allowance
from headrace.gateway.budget import Budget, T
from headrace.gateway.notes import UNREADABLE
from headrace.resources.errors import KeyLimitReached
from headrace.resources.leases import LeaseAnswer, LeaseReport, LeaseUse, LimitName

WAIT_S = 1.5
"""The longest that a request waits for what other gateways give back: each of them is told within half a second."""

_LOGGER = logging.getLogger(__name__)


class KeptLeases(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway holds, as it lies on disk.

    Attributes:
        run: Of the server: with the next one leases begin anew.
        note: The file in which it tells what it uses.
        left: Whether it handed over, and from then on uses only what its note says.
        amounts: By limit.
    """

    run: str
    note: str
    left: bool
    amounts: tuple[tuple[LimitName, int], ...]


class Leases:
    """The leases of one gateway, and the requests that wait for more.

    Args:
        path: Where it keeps what it holds. What lies there is of the gateway that was in its place.
        run: As in `KeptLeases`.
        note: As in `KeptLeases`.
        clock: Seconds that never go back, the same for all processes of the machine.

    Attributes:
        asked: Set when control should hear from this gateway before long.
        killed: The note of the gateway before, if that did not hand over; else empty. All that it held counts as used.
    """

    def __init__(self, path: Path, *, run: str, note: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._run = run
        self._note = note
        self._clock = clock
        before = _load(path)
        self.killed = "" if before is None or before.left else before.note
        self._goes_on = before is not None and before.run == run
        self._inherited = dict(before.amounts) if before is not None and (self._goes_on or self.killed) else {}
        self._budgets: Mapping[str, Budget] = {}
        self._look: Callable[[], None] = lambda: None
        self._on_disk: frozenset[LimitName] = frozenset()
        self._told: dict[LimitName, LeaseUse] = {}
        self._whole = True
        self._left = False
        self._wanted: Counter[LimitName] = Counter()
        self._coming: frozenset[str] = frozenset()
        self._next_answer = self._answer = asyncio.Event()
        self.asked = asyncio.Event()

    def follow(self, budgets: Mapping[str, Budget], look: Callable[[], None] = lambda: None) -> None:
        """Hold leases for these keys' limits from now on; at first those of the gateway before.

        Args:
            budgets: By key id.
            look: Sees what others in this gateway's place use of them.
        """
        self._budgets, self._look = budgets, look
        inherits = bool(self._inherited)
        for key_id, budget in budgets.items():
            self.add(key_id, budget)
        held = {name for name, _, _ in self._leased()} | self._inherited.keys()
        if (inherits or self._on_disk - held) and not self._left:
            self._keep()
        self.asked.set()

    @property
    def inherited(self) -> set[str]:
        """Whose leases are left of the gateway before, and not taken over yet."""
        return {key_id for key_id, _ in self._inherited}

    def add(self, key_id: str, budget: Budget) -> None:
        """Hold leases for one more of the budgets that it follows."""
        budget.lender = self
        for unit, allowance in budget.allowances():
            if allowance.limit is None:
                allowance.lease = None
            elif allowance.lease is None:
                allowance.lease = self._inherit((key_id, unit), allowance)

    def forget(self, key_ids: Iterable[str]) -> None:
        """Hold nothing more of budgets that are no longer there; the disk knows before control does."""
        if not self._left and not {key_id for key_id, _ in self._on_disk}.isdisjoint(key_ids):
            self._keep()

    def report(self) -> LeaseReport:
        """What control is to hear now. Either `take` or `no_answer` follows."""
        self._answer, self._next_answer = self._next_answer, asyncio.Event()
        self.asked.clear()
        self._look()
        uses = {use.name: use for use in self._uses()}
        # Who waits is told of each time, so that each answer says whether more is still on its way.
        news = [use for name, use in uses.items() if self._whole or use.wanted or use != self._told.get(name)]
        if not self._whole:
            news += [LeaseUse(*name) for name in self._told.keys() - uses.keys()]
        self._told = uses
        return LeaseReport(number=time.monotonic_ns(), whole=self._whole, uses=tuple(news))

    def take(self, answer: LeaseAnswer) -> None:
        """Take what control gave, and give back what it wants, as far as that is not in use."""
        if not self._left:
            self._whole = answer.again
            changed = [self._hold(lease.name, lease.amount) for lease in answer.leases]
            if any(changed):
                self._keep()
            if answer.again:
                self.asked.set()
            waiting = (key_id for key_id, _ in self._wanted) if answer.again else ()
            self._coming = frozenset((*waiting, *(lease.key_id for lease in answer.leases if lease.coming)))
        self._answer.set()

    def no_answer(self) -> None:
        """Control is not there: what is held stays so, and nothing comes."""
        self._whole = True
        self._coming = frozenset()
        self._answer.set()

    def hand_over(self) -> None:
        """Leave it all to the gateway in this one's place; what is used here from now on its note tells."""
        if not self._left:
            self._left = True
            self._keep()
            self._next_answer.set()
            self._answer.set()

    async def until_it_fits(self, budget: Budget, tokens: int, attempt: Callable[[], T]) -> T:
        """As `Lender.until_it_fits`: for as long as control says that more is on its way, up to `WAIT_S`."""
        try:
            return attempt()
        except KeyLimitReached:
            if self._left:
                raise
        deadline = asyncio.get_running_loop().time() + WAIT_S
        with self._want(budget.key_id, tokens):
            while True:
                answered = await self._answered_by(deadline)
                try:
                    return attempt()
                except KeyLimitReached:
                    if not answered or budget.key_id not in self._coming:
                        raise

    @contextlib.contextmanager
    def _want(self, key_id: str, tokens: int) -> Iterator[None]:
        """Tell control, for as long as the block takes, that one more request needs room."""
        needs: Counter[LimitName] = Counter({(key_id, "requests"): 1, (key_id, "tokens"): tokens})
        self._wanted += needs
        try:
            yield
        finally:
            self._wanted -= needs

    async def _answered_by(self, deadline: float) -> bool:
        """Wait for an answer of control's that takes account of who waits now."""
        self.asked.set()
        try:
            async with asyncio.timeout_at(deadline):
                await self._next_answer.wait()
        except TimeoutError:
            return False
        return True

    def _inherit(self, name: LimitName, allowance: Allowance) -> int:
        """What the gateway before held of a limit. If it was killed, all of that is used, as far as anybody knows."""
        amount = self._inherited.pop(name, 0)
        if self.killed:
            allowance.fill(amount, self._clock())
        return amount if self._goes_on else 0

    def _hold(self, name: LimitName, amount: int) -> bool:
        """Hold so much, or as much as is in use; returns whether that changes anything."""
        told = self._told.get(name) or LeaseUse(*name)
        # What control believes: until it hears of less, that is the most that it ever gave.
        self._told[name] = msgspec.structs.replace(told, held=max(told.held, amount))
        allowance = self._allowance(name)
        if allowance is None or allowance.lease is None:
            return False
        allowance.forget(self._clock())
        before, allowance.lease = allowance.lease, max(amount, min(allowance.lease, allowance.busy))
        if allowance.lease < before:
            self.asked.set()  # somebody waits for it
        return allowance.lease != before

    def _allowance(self, name: LimitName) -> Allowance | None:
        budget = self._budgets.get(name[0])
        return None if budget is None else dict(budget.allowances())[name[1]]

    def _leased(self) -> Iterator[tuple[LimitName, Allowance, int]]:
        for key_id, budget in self._budgets.items():
            for unit, allowance in budget.allowances():
                if allowance.limit is not None and allowance.lease is not None:
                    yield (key_id, unit), allowance, allowance.lease

    def _uses(self) -> Iterator[LeaseUse]:
        now = self._clock()
        for name, allowance, lease in self._leased():
            allowance.forget(now)
            busy = allowance.busy
            yield LeaseUse(*name, max(lease, busy), busy, self._wanted[name])
        for name, amount in self._inherited.items():  # of keys that are not in the snapshot yet
            yield LeaseUse(*name, amount, amount)

    def _keep(self) -> None:
        """Write down what is held. A full disk costs exactness over this gateway's end, and nothing else."""
        rest = self._inherited if self._goes_on else {}
        amounts = (*((name, lease) for name, _, lease in self._leased() if lease), *rest.items())
        left = self._left and not (self.killed and rest)
        kept = KeptLeases(run=self._run, note=self._note, left=left, amounts=amounts)
        self._on_disk = frozenset(name for name, _ in amounts)
        fresh = self._path.with_suffix(".fresh")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.touch(mode=0o600)
            fresh.write_bytes(msgspec.json.encode(kept))
            fresh.replace(self._path)
        except OSError as error:
            _LOGGER.warning("Leases cannot be written to %s: %s", self._path, error)


def _load(path: Path) -> KeptLeases | None:
    with contextlib.suppress(*UNREADABLE):
        return msgspec.json.decode(path.read_bytes(), type=KeptLeases)
    return None
