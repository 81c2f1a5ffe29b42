"""What a step says while its body runs: tokens, tool calls, whatever it wants to tell, and how many tokens it counted.

It is kept in the row that the body's answer makes, as one op (``said``, see
checkpoint_stores.ops), and read back from there.  Pure; whoever lets several
threads speak at once must take turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from checkpoint_stores.fold import TOKEN_IN_TURN
from checkpoint_stores.ops import Op


class Entry(NamedTuple):
    """One thing a step said, as the fields of its event."""

    kind: str
    """step_token, tool_call or custom."""
    fields: dict[str, Any]


class Speech:
    """What one attempt of one step has said so far."""

    __slots__ = ("_entries", "_first", "_next", "_tokens", "began_at", "counted_input", "counted_output")

    def __init__(self, began_at: int) -> None:
        self.began_at = began_at
        """When the body began (microseconds): what is said is dated from there."""
        self.counted_input = 0
        self.counted_output: int | None = None
        self._entries: list[list[Any]] = []
        self._first = 0
        self._next = 0
        self._tokens = 0

    def __len__(self) -> int:
        return len(self._entries)

    def token(self, text: str, index: int, now: int) -> None:
        if not self._first:
            self._first = self._next = index
        entry: list[Any] = [self._since(now), text]
        if index != self._next:
            entry.append(index)
        self._entries.append(entry)
        self._next = index + 1
        self._tokens += 1

    def tool_call(self, name: str, content: str, now: int) -> None:
        self._entries.append(["tool", self._since(now), name, content])

    def custom(self, name: str, data: Any, now: int) -> None:
        self._entries.append(["custom", self._since(now), name, data])

    def count(self, tokens_input: int, tokens_output: int) -> None:
        self.counted_input += tokens_input
        self.counted_output = (self.counted_output or 0) + tokens_output

    def op(self) -> Op | None:
        """The op that keeps it all; None where nothing was said."""
        if not self._entries and not self.counted_input and not self.counted_output:
            return None
        output = self._tokens if self.counted_output is None else self.counted_output
        return ["said", self._first, list(self._entries), self.counted_input, output]

    def dated(self, now: int) -> int:
        """The Unix milliseconds of what is said at ``now``: the same as `entries_of` will say."""
        return self.began_at // 1000 + self._since(now)

    def _since(self, now: int) -> int:
        return max(0, now - self.began_at) // 1000


def entries_of(said: Op, node: str, began_at: int) -> Iterator[Entry]:
    """What a ``said`` op keeps, as the fields of events.

    >>> [entry.fields["token_index"] for entry in entries_of(["said", 4, [[0, "a"], [9, "b"], [9, "c", 8], [9, "d"]], 0, 4], "write", 0)]
    [4, 5, 8, 9]
    """
    index = said[1]
    began = began_at // 1000
    for entry in said[2]:
        head = entry[0]
        if head == "tool":
            _word, since, name, content = entry
            fields = {"step_name": node, "tool_name": name, "content": content, "timestamp_ms": began + since}
            yield Entry("tool_call", fields)
        elif head == "custom":
            _word, since, name, data = entry
            yield Entry("custom", {"step_name": node, "name": name, "data": data, "timestamp_ms": began + since})
        else:
            if len(entry) > TOKEN_IN_TURN:
                index = entry[2]
            yield Entry("step_token", {"step_name": node, "content": entry[1], "token_index": index, "timestamp_ms": began + head})
            index += 1
