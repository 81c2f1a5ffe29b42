"""From facts to events, for one consumer: what was told ahead of its checkpoint is not told again with it.

Pure.  A `Narrator` remembers which steps its consumer has seen begin and how
much of what they said; the rest is the `Teller`'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from checkpoint_stores.codec import unpack
from checkpoint_stores.records import Row
from engine.catalog import EventId
from engine.facts import Began, Closed, Fact, Said, Stopped
from engine.telling import Teller, Told

_SAYINGS = frozenset({"step_token", "tool_call", "custom"})


class _Ahead:
    """A step in flight, as far as it was told."""

    __slots__ = ("heard", "index", "node", "text", "tokens")

    def __init__(self, node: str, index: int) -> None:
        self.node = node
        self.index = index
        self.heard = 0
        """How many of its sayings were told or dropped."""
        self.text: list[str] = []


class Narrator:
    """What one consumer is told of one run.

    Args:
        teller: stands before the first row to come.
        after: of that first row, tell only events after this one.
        dropped: by branch path and step index, tokens that did not reach the consumer (see `engine.queues.Queue`).
    """

    def __init__(self, teller: Teller, after: EventId | None = None) -> None:
        self.teller = teller
        self.dropped: dict[tuple[str, int], list[int]] = {}
        self.policy = ""
        self._after = after
        self._ahead: dict[str, _Ahead] = {}

    @property
    def seq(self) -> int:
        """The newest row told."""
        return self.teller.seq

    def row(self, row: Row) -> list[Told]:
        """A committed row, the next one."""
        before: list[Told] = []
        if row.kind == "attempt":
            for path in list(self._ahead):
                before += self._stop(path, row.committed_at)
        ahead = self._ahead.get(row.path)
        if ahead is not None and ahead.node == row.node:
            del self._ahead[row.path]
            before += self._tell_dropped(row.path, ahead, row.committed_at)
        else:
            ahead = None
        told = self.teller.tell(row, unpack(row.payload))
        if ahead is not None:
            told = _unheard(told, row.path, ahead.heard)
        if self._after is not None and row.seq == self._after.seq:
            told = [each for each in told if each.n > self._after.n]
            self.teller.next_n = max(self.teller.next_n, self._after.n + 1)
        return [*before, *told]

    def fact(self, fact: Fact) -> list[Told]:
        """Whatever the run passed on."""
        if type(fact) is Row:
            return self.row(fact) if fact.seq > self.seq else []
        if type(fact) is Said:
            return self._say(fact)
        if type(fact) is Began:
            return self._begin(fact)
        if type(fact) is Stopped:
            return self._stop(fact.path, fact.at)
        assert type(fact) is Closed  # noqa: S101
        return self.teller.waiting(fact.at // 1000) if fact.parked else []

    def now_in_flight(self, facts: Iterable[Fact], at: int) -> list[Told]:
        """Everything that is in flight at this moment: what was and is not any more has been cancelled meanwhile."""
        facts = list(facts)
        going = {(fact.path, fact.step_index) for fact in facts if type(fact) is Began}
        told: list[Told] = []
        for path, ahead in list(self._ahead.items()):
            if (path, ahead.index) not in going:
                told += self._stop(path, at)
        for fact in facts:
            told += self.fact(fact)
        return told

    # --- parts ------------------------------------------------------------------------------------------------------
    def _begin(self, fact: Began) -> list[Told]:
        known = self._ahead.get(fact.path)
        if known is not None and known.index == fact.step_index:
            return []
        self._ahead[fact.path] = _Ahead(fact.node, fact.step_index)
        if fact.path in self.teller.open:
            return []  # another attempt of a step that has begun
        fields = {"step_name": fact.node, "step_index": fact.step_index, "step_type": "task", "timestamp_ms": fact.began_at // 1000}
        return [*self.teller.release(), self.teller.ahead(fact.path, "step_start", fields)]

    def _say(self, fact: Said) -> list[Told]:
        ahead = self._ahead.get(fact.path)
        if ahead is None or ahead.index != fact.step_index or fact.ordinal < ahead.heard:
            return []
        ahead.heard = fact.ordinal + 1
        if fact.entry.kind == "step_token":
            ahead.text.append(fact.entry.fields["content"])
        return [self.teller.ahead(fact.path, fact.entry.kind, fact.entry.fields)]

    def _stop(self, path: str, at: int) -> list[Told]:
        ahead = self._ahead.pop(path, None)
        if ahead is None:
            return []
        told = self._tell_dropped(path, ahead, at)
        if path not in self.teller.open:
            fields = {
                "step_name": ahead.node, "step_index": ahead.index, "success": False, "full_output": "".join(ahead.text),
                "tokens_input": 0, "tokens_output": len(ahead.text), "timestamp_ms": at // 1000,
            }  # fmt: skip
            told.append(self.teller.ahead(path, "step_complete", fields))
        return told

    def _tell_dropped(self, path: str, ahead: _Ahead, at: int) -> list[Told]:
        lost = self.dropped.pop((path, ahead.index), None)
        if lost is None:
            return []
        count, last = lost
        ahead.heard = max(ahead.heard, last + 1)
        fields = {"step_name": ahead.node, "step_index": ahead.index, "tokens": count, "policy": self.policy, "timestamp_ms": at // 1000}
        return [self.teller.ahead(path, "dropped", fields)]


def _unheard(told: list[Told], path: str, heard: int) -> list[Told]:
    """The events of a row without the beginning of its step and the first ``heard`` of its sayings."""
    kept = []
    for each in told:
        if each.path == path:
            if each.kind == "step_start":
                continue
            if each.kind in _SAYINGS and heard > 0:
                heard -= 1
                continue
        kept.append(each)
    return kept
