"""Telling those who wait for a writer what became of their work.  Knows no database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, TypeAlias

JOBS_AT_ONCE: Final = 1_000
"""The most work in one batch, so that the first of it does not wait for thousands."""


class Answer(asyncio.Future[Any]):
    """A future whose waiter goes on within `answer`, in the very callback of the loop that brings the answer.

    An ordinary future has its waiter called in the loop's next turn, and a turn asks the operating system about every socket: at a
    step that takes a tenth of a millisecond that is felt.  To be settled by `answer` alone, in a callback of the loop and in no task:
    one task cannot go on within another.
    """

    _waiter: tuple[Callable[[Any], object], Context | None] | None = None
    """The first one who waits: mostly the only one."""

    def answer(self, result: Any, error: BaseException | None) -> None:
        """Have the result, or the error; who waits goes on before this returns."""
        if error is None:
            super().set_result(result)
        else:
            super().set_exception(error)
        if self._waiter is not None:
            (goes_on, context), self._waiter = self._waiter, None
            if context is None:
                goes_on(self)
            else:
                context.run(goes_on, self)

    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        if self._waiter is None and not self.done():
            self._waiter = (fn, context)
        else:
            super().add_done_callback(fn, context=context)

    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        removed = super().remove_done_callback(fn)
        if self._waiter is not None and self._waiter[0] == fn:
            self._waiter = None
            removed += 1
        return removed

    def cancel(self, msg: Any | None = None) -> bool:
        # Whoever cancels may be a task: who waits is told in the loop's next turn, as by any future.
        is_cancelled = super().cancel(msg)
        if is_cancelled and self._waiter is not None:
            (goes_on, context), self._waiter = self._waiter, None
            self.get_loop().call_soon(goes_on, self, context=context)
        return is_cancelled


Outcome: TypeAlias = "tuple[Answer, Any, BaseException | None]"
"""Who waits, what it gets, or what it is told instead."""


def answer(outcomes: list[Outcome], unheard: Callable[[], object] | None = None) -> None:
    """Tell everybody who still waits; to be called by the loop.  ``unheard`` is called for each who does not: others may have to be told."""
    for place, (waiting, result, error) in enumerate(outcomes):
        if waiting.done():
            if unheard is not None:
                unheard()  # the caller was cancelled; what it asked for was done all the same
            continue
        try:
            waiting.answer(result, error)
        except BaseException:
            # Who went on ends the loop (Ctrl-C, sys.exit): the others are told all the same.
            waiting.get_loop().call_soon(answer, outcomes[place + 1 :], unheard)
            raise
