"""A part of a step's work: what a body that does several things side by side gives to each of them.

The same step to everybody who asks, with a cancel token, keys and effects of its own.  Knows no driver: it lives and ends with
the context it was forked from.
"""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Self

from engine.context import StepContext, current_part
from engine.errors import ForkedWaitError
from engine.identity import part_key
from engine.speech import Speech


class PartContext(StepContext):
    """The context of one part of a step's work; see `StepContext.fork`.  As a context manager it is what `current_step` tells inside."""

    __slots__ = ("_entered", "_whole", "part")

    def __init__(self, whole: StepContext, part: str) -> None:
        run_id, path, node, visit, attempt, run_attempt = whole._facts  # noqa: SLF001 - of its own kind
        super().__init__(
            run_id, path, node, visit, attempt - 1, run_attempt, whole._error, whole._decisions, whole._live, whole._index,  # noqa: SLF001
            whole._effects, whole._transacting, whole._run,  # noqa: SLF001
        )  # fmt: skip
        self._whole = whole
        self.part = part
        """Its name within the step."""
        self.began_at = whole.began_at
        self.works_on(whole._item)  # noqa: SLF001
        self.is_known_by(part_key(whole.idempotency_key, part))
        self._cancel = whole.cancel.child()
        self._entered: contextvars.Token[Any] | None = None

    def __enter__(self) -> Self:
        self.check()
        self._entered = current_part(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._entered is not None:
            self._entered.var.reset(self._entered)
            self._entered = None
        self.revoke(f"its part {self.part!r} is over")

    @property
    def ended(self) -> bool:
        """Whether the part or the whole attempt is over."""
        return self._over is not None or self._whole.ended

    def check(self) -> None:
        """Raise StaleContextError where the part or the whole attempt is over."""
        self._whole.check()
        super().check()

    def wait_for_sync(self, event: str, *, timeout: timedelta | None = None) -> Any:
        """Raises ForkedWaitError: a body that waits runs again from its beginning, and cannot do so in the middle of its parts."""
        raise ForkedWaitError(self._facts[2], self._facts[1], self.part, event)

    @asynccontextmanager
    async def transaction(self, *, limit: timedelta | None = None) -> AsyncIterator[Any]:
        """The step's own: a node entry has one transaction, whichever part of it asks."""
        self.check()
        async with self._whole.transaction(limit=limit) as connection:
            yield connection

    def _effect_name(self, name: str) -> str:
        return f"{self.part}/{self._whole._effect_name(name)}"  # noqa: SLF001

    def _spoken(self) -> Speech:
        return self._whole._spoken()  # noqa: SLF001 - a step says what it says in one voice
