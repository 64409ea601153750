"""Fair among keys: whoever had least service goes next.

The virtual token counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): each key has a counter
of the tokens that it was served, weighted; of those who wait, the key with the lowest counter goes next; and a key that
comes back is lifted to where the others are, for what it did not use while it was away is not saved up for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from headrace.contracts.openai.usage import Usage
from headrace.resources.priority import Priority

PROMPT_WEIGHT, OUTPUT_WEIGHT = 1, 2
"""What a token counts: the paper's weights (section 3), after what vendors ask for them."""

FIRST_OUTPUT_TOKENS = 128
"""What a key's answers are expected to have before the first one is over: a short answer."""

REMEMBERED_KEYS = 1024
"""Keys that do not wait or run, and were served more than others: what they owe is remembered for so many of them."""

_ANSWERS_REMEMBERED = 5
"""How many of a key's last answers its expected output is the mean of, about: five, as in the paper's section 4.4."""


class Visit:
    """One request's way through the waiting room.

    Args:
        key_id: Whose it is: the key's, or the tenant's of a guarantee.
        priority: The class in which it waits.
        prompt_tokens: Of its prompt, about.
        generates: Whether the model writes something for it.

    Attributes:
        used: What it turned out to use, told before it leaves; while it is None the estimate stands.
        charged: Weighted tokens by which its key was charged when it was let in.
        turn: Done when it is let in, or sent away; None while it does not wait.
        number: Its place in the order in which they came.
    """

    __slots__ = ("charged", "generates", "key_id", "number", "priority", "prompt_tokens", "turn", "used")

    def __init__(
        self,
        key_id: str = "",
        priority: Priority = Priority.INTERACTIVE,
        *,
        prompt_tokens: int = 0,
        generates: bool = True,
    ) -> None:
        self.key_id = key_id
        self.priority = priority
        self.prompt_tokens = prompt_tokens
        self.generates = generates
        self.used: Usage | None = None
        self.charged = 0
        self.turn: asyncio.Future[None] | None = None
        self.number = 0

    @property
    def waits(self) -> bool:
        """Whether it stands in line and was not told anything yet."""
        return self.turn is not None and not self.turn.done()


def cost(prompt_tokens: int, output_tokens: int) -> int:
    """Tokens, weighted."""
    return PROMPT_WEIGHT * prompt_tokens + OUTPUT_WEIGHT * output_tokens


class _Account:
    """What is known of one key.

    Attributes:
        served: Its counter: weighted tokens.
        running: Its visits that were let in and have not left.
        line: Its visits that wait, in the order in which they came.
        output_tokens: What its answers have, in the mean.
    """

    __slots__ = ("key_id", "line", "output_tokens", "running", "served")

    def __init__(self, key_id: str, served: int) -> None:
        self.key_id = key_id
        self.served = served
        self.running = 0
        self.line: deque[Visit] = deque()
        self.output_tokens = float(FIRST_OUTPUT_TOKENS)

    def learn(self, output_tokens: int) -> None:
        self.output_tokens += (output_tokens - self.output_tokens) / _ANSWERS_REMEMBERED


class FairQueue:
    """Those of one class who wait, and the counters of their keys. First in, first out within a key.

    A key is charged by estimate when a request is let in: its prompt, and an output as its last ones were. When the
    request leaves, the counter is corrected to what was used. Virtual time is the highest counter at which anybody was
    let in; a key that has nobody in line begins there, if it was behind. So two keys that both have requests in line
    all the time differ in service by no more than as many of the largest requests as run at a time.

    Memory is bounded: by who waits and runs, and by `REMEMBERED_KEYS`. A key that was served no more than virtual time
    is forgotten, which changes nothing; so are all when nobody is left.
    """

    def __init__(self) -> None:
        self._active: dict[str, _Account] = {}  # who waits or runs
        self._idle: dict[str, _Account] = {}  # who owes something, the longest idle first
        self._virtual_time = 0
        self._size = 0
        self._arrivals = 0

    def __len__(self) -> int:
        return self._size

    @property
    def keys(self) -> int:
        """How many keys are remembered."""
        return len(self._active) + len(self._idle)

    def served(self, key_id: str) -> int | None:
        """A key's counter, in weighted tokens; None for one that is not remembered."""
        account = self._active.get(key_id) or self._idle.get(key_id)
        return None if account is None else account.served

    def held(self, key_id: str) -> int:
        """Places in line that a key holds."""
        account = self._active.get(key_id)
        return 0 if account is None else len(account.line)

    def join(self, visit: Visit) -> None:
        """Stand in line, behind the others of the same key."""
        account = self._arrive(visit)
        account.line.append(visit)
        self._size += 1

    def leave(self, visit: Visit) -> None:
        """Stand in line no longer; nothing happens if it does not."""
        account = self._active.get(visit.key_id)
        if account is not None and visit in account.line:
            account.line.remove(visit)
            self._size -= 1
            self._rest(account)

    def enter(self, visit: Visit) -> None:
        """Let in somebody who did not have to wait."""
        self._charge(self._arrive(visit), visit)

    def next(self, fits: Callable[[str], bool] | None = None) -> Visit | None:
        """Let in who is next, and charge the key for it; None if nobody waits.

        Args:
            fits: Tells of a key whether it may be; None: any.
        """
        while self._size:
            waiting = self._waiting() if fits is None else (each for each in self._waiting() if fits(each.key_id))
            account = min(waiting, key=lambda each: (each.served, each.line[0].number), default=None)
            if account is None:
                return None
            visit = account.line.popleft()
            self._size -= 1
            if visit.waits:
                self._charge(account, visit)
                return visit
            self._rest(account)
        return None

    def release(self, visit: Visit) -> None:
        """Somebody who was let in has left: correct the counter by what was used."""
        account = self._active[visit.key_id]
        account.running -= 1
        if visit.used is not None:
            account.served += cost(visit.used.prompt_tokens, visit.used.completion_tokens) - visit.charged
            if visit.generates and visit.used.prompt_tokens:
                account.learn(visit.used.completion_tokens)
        self._rest(account)

    def crowding(self, places: int) -> Visit | None:
        """Who came last of the key that holds most places in line, if it holds more than so many."""
        crowd = max(self._waiting(), key=lambda each: (len(each.line), each.line[-1].number), default=None)
        return crowd.line[-1] if crowd is not None and len(crowd.line) > places else None

    def clear(self) -> list[Visit]:
        """Send everybody out of the line."""
        visits = [visit for account in self._waiting() for visit in account.line]
        for visit in visits:
            self.leave(visit)
        return visits

    def _waiting(self) -> Iterator[_Account]:
        return (account for account in self._active.values() if account.line)

    def _arrive(self, visit: Visit) -> _Account:
        self._arrivals += 1
        visit.number = self._arrivals
        account = self._active.get(visit.key_id)
        if account is None:
            account = self._idle.pop(visit.key_id, None) or _Account(visit.key_id, self._virtual_time)
            self._active[visit.key_id] = account
        if not account.line:
            account.served = max(account.served, self._virtual_time)
        return account

    def _charge(self, account: _Account, visit: Visit) -> None:
        self._virtual_time = max(self._virtual_time, account.served)
        visit.charged = cost(visit.prompt_tokens, int(account.output_tokens) if visit.generates else 0)
        account.served += visit.charged
        account.running += 1

    def _rest(self, account: _Account) -> None:
        """Forget a key that has nobody here any more, as far as that may be."""
        if account.line or account.running:
            return
        del self._active[account.key_id]
        if not self._active:  # whoever comes next finds nobody to be fair to
            self._idle.clear()
            self._virtual_time = 0
        elif account.served > self._virtual_time:
            self._idle[account.key_id] = account
            if len(self._idle) > REMEMBERED_KEYS:
                del self._idle[next(iter(self._idle))]
