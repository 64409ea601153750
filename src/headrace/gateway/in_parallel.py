"""Several requests to engines for one of a client: so many at a time, all of them or the first error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


async def in_parallel(
    ask: Callable[[Question], Awaitable[Answer]], questions: Sequence[Question], *, at_a_time: int
) -> list[Answer]:
    """The answers to all questions, in their order.

    A few tasks take one question after the other, so that a thousand are no thousand tasks.

    Raises:
        Exception: What the first question that failed raised; the others were cancelled.
    """
    answers: dict[int, Answer] = {}
    to_do = iter(enumerate(questions))

    async def work() -> None:
        for index, question in to_do:
            answers[index] = await ask(question)

    failed: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_a_time, len(questions))):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        failed = failures.exceptions[0]  # the others were cancelled, or failed in the same moment
    if failed is not None:
        try:
            raise failed
        finally:
            del failed, group  # else its traceback and this frame would hold each other
    return [answers[index] for index in range(len(questions))]
