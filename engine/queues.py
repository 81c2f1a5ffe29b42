"""What waits for one consumer of events, and what happens when it is slow.

A queue keeps facts (`engine.facts`) as they are; events are made of them only
when the consumer takes them (engine.narrating).  When the queue is full, the
consumer's own choice (`Delivery`) decides.  Knows no run and no store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from checkpoint_stores.errors import ArgumentError
from engine.arguments import one_of
from engine.errors import SlowConsumerError
from engine.facts import Closed, Fact, Said

Policy: TypeAlias = Literal["catch_up", "pause", "drop_oldest", "degrade", "fail"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What happens when a consumer is slower than its run, and ``size`` events wait for it already.

    >>> Delivery("pause", size=10).policy
    'pause'
    """

    policy: Policy = "catch_up"
    """
    - ``catch_up``: the queue is forgotten, and the consumer reads what it missed from the store.  The run never waits,
      nothing is lost; tokens of a step then come together, once the step is committed.
    - ``pause``: the run waits for the consumer after its next commit; a node that awaits `StepContext.emit_token`, yields, or runs in
      a thread waits at once.
    - ``drop_oldest``: the oldest waiting token goes; never another event.  An event of kind ``dropped`` says how many.
    - ``degrade``: ``merge`` makes one token of the waiting tokens of a step.
    - ``fail``: the consumer gets SlowConsumerError; the run goes on.
    """
    size: int = 1000
    merge: Callable[[Sequence[str]], str] = "".join
    """Of ``degrade``: the texts of the tokens that wait, oldest first, to the text of the one that replaces them."""

    def __post_init__(self) -> None:
        one_of("policy", self.policy, get_args(Policy))
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1:
            raise ArgumentError("size", self.size, "a whole number from 1")
        if not callable(self.merge):
            raise ArgumentError("merge", self.merge, "a function of the waiting texts that returns one")


class Behind(NamedTuple):
    """The queue overflowed and was forgotten: read on from the store."""


BEHIND: Final = Behind()


class Queue:
    """What waits for one consumer."""

    __slots__ = ("_error", "_facts", "_is_behind", "_left", "_run_id", "_stir", "_waiter", "delivery", "dropped")

    def __init__(self, run_id: str, delivery: Delivery, *, stir: Callable[[], None], left: Callable[[Queue], None]) -> None:
        self._run_id = run_id
        self._stir = stir
        """Called when there is room again."""
        self._left = left
        self._error: Exception | None = None
        """What the consumer's own function raised."""
        self.delivery = delivery
        self._facts: deque[Fact] = deque()
        self._is_behind = False
        self._waiter: asyncio.Future[None] | None = None
        self.dropped: dict[tuple[str, int], list[int]] = {}
        """By branch path and step index: how many tokens went, and which of the step's sayings was the last that did."""

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def holds_up(self) -> bool:
        """Whether the run must wait for this consumer."""
        return self.delivery.policy == "pause" and len(self._facts) >= self.delivery.size

    def put(self, fact: Fact) -> None:
        if self._is_behind and type(fact) is not Closed:
            return
        if len(self._facts) >= self.delivery.size and type(fact) is not Closed and not self._has_made_room():
            self._facts.clear()
            self._is_behind = True
        else:
            self._facts.append(fact)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> Fact | Behind:
        """The next fact.  Raises SlowConsumerError, and what the consumer's own ``merge`` raised."""
        while not self._facts and not self._is_behind:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._is_behind:
            if self._error is not None:
                raise self._error
            if self.delivery.policy == "fail":
                raise SlowConsumerError(self._run_id, self.delivery.size)
            self._is_behind = False
            return BEHIND
        fact = self._facts.popleft()
        if len(self._facts) == self.delivery.size - 1:
            self._stir()
        return fact

    def close(self) -> None:
        """Nobody takes from this queue any more.  Idempotent."""
        self._left(self)

    def _has_made_room(self) -> bool:
        try:
            return self._make_room()
        except Exception as error:  # noqa: BLE001 - the consumer's function may raise anything: that is the consumer's, not the run's
            self._error = error
            return False

    def _make_room(self) -> bool:
        policy = self.delivery.policy
        if policy == "pause":
            return True  # what is told before the run has come to its next stop waits, too
        if policy == "drop_oldest":
            oldest = next(self._waiting_tokens(), None)
            if oldest is not None:
                self._drop(oldest)
            return oldest is not None
        return policy == "degrade" and self._merge(list(self._waiting_tokens()))

    def _waiting_tokens(self) -> Iterator[int]:
        """Where in the queue tokens wait, oldest first."""
        return (place for place, fact in enumerate(self._facts) if type(fact) is Said and fact.entry.kind == "step_token")

    def _drop(self, place: int) -> None:
        fact = self._facts[place]
        assert isinstance(fact, Said)  # noqa: S101 - only tokens are dropped
        self._count(fact)
        del self._facts[place]

    def _count(self, fact: Said) -> None:
        count = self.dropped.setdefault((fact.path, fact.step_index), [0, -1])
        count[0] += 1
        count[1] = max(count[1], fact.ordinal)

    def _merge(self, tokens: list[int]) -> bool:
        """Put one token in the place of the oldest step's waiting tokens; False where that makes no room."""
        groups: dict[tuple[str, int], list[int]] = {}
        for place in tokens:
            fact = self._facts[place]
            assert isinstance(fact, Said)  # noqa: S101
            groups.setdefault((fact.path, fact.step_index), []).append(place)
        places = next((group for group in groups.values() if len(group) > 1), None)
        if places is None:
            return False
        facts = [fact for place in places if isinstance(fact := self._facts[place], Said)]
        newest = facts[-1]
        text = self.delivery.merge([fact.entry.fields["content"] for fact in facts])
        for fact in facts[:-1]:
            self._count(fact)
        self._facts[places[-1]] = newest._replace(entry=newest.entry._replace(fields={**newest.entry.fields, "content": text}))
        for place in reversed(places[:-1]):
            del self._facts[place]
        return True
