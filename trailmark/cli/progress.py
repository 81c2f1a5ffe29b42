"""What happens in a run, shown while it happens: one line for each committed checkpoint, and what is awaited below.

`told` is pure: a committed row in, a line out.  `Progress` collects rows (the executor calls it after each commit, so it only
remembers) and prints them a few times a second; a run of ten thousand quick steps is not slowed by its own story.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from trailmark.cli.plain import one_line, shortened, span

if TYPE_CHECKING:
    import asyncio

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from checkpoint_stores.records import Row
    from trailmark import Committed

_PAUSE: Final = 0.08
"""Seconds between two looks at what was committed."""
_DETAIL: Final = 200

_SIGNS: Final = {
    "start": ("▶", "cyan"), "fork": ("▶", "cyan"), "attempt": ("▶", "cyan"), "step": ("✓", "green"), "parallel": ("╤", "blue"), "map": ("╤", "blue"), "subflow": ("╤", "blue"), "begin": ("▷", "blue"), "wait": ("◷", "yellow"), "signal": ("✓", "green"), "timer": ("✓", "green"), "heard": ("▷", "green"), "join": ("╧", "blue"),
    "barrier": ("◆", "yellow"), "decision": ("◆", "green"), "decision_refused": ("◆", "red"), "reminded": ("◆", "yellow"), "escalated": ("◆", "yellow"), "retry": ("↻", "yellow"), "fallback": ("⤳", "yellow"), "failure": ("✗", "red"),
    "limit": ("■", "yellow"), "suspended": ("■", "yellow"), "cancelled": ("■", "red"),
}  # fmt: skip
_OTHER: Final = ("·", "white")


class Told(NamedTuple):
    """One line of the story."""

    sign: str
    style: str
    depth: int
    """How many branches deep."""
    name: str
    """The node with its branch path, or what happened to the run."""
    took: str
    """How long the node's body took."""
    detail: str
    """Where it went, what failed, what it waits for."""


def told(row: Row) -> Told:
    """The line that tells of a committed checkpoint."""
    from engine.operations import step_line

    sign, style = _SIGNS.get(row.kind, _OTHER)
    line = step_line(row)
    detail = line.detail
    if row.kind in ("step", "fallback", "decision", "join"):
        went = f"→ {line.went}" if line.went else ""
        detail = "; ".join(part for part in (went, detail) if part)
    elif row.kind == "parallel":
        branches = row.next.count(",") + 1
        detail = f"{branches} branch{'es' if branches > 1 else ''} side by side"
    took = span(row.committed_at - row.started_at) if row.started_at and row.committed_at else ""
    name = one_line(f"{row.path} {row.node}".strip() or row.kind)
    return Told(sign, style, row.path.count("[") if row.path else 0, name, took, shortened(one_line(detail), _DETAIL))


def drawn(line: Told) -> Text:
    """The line as it is printed."""
    from rich.text import Text

    text = Text("  " + "  " * line.depth)
    text.append(line.sign, style=line.style)
    text.append(f" {line.name}".ljust(30 - 2 * line.depth))
    text.append(f" {line.took:>8}", style="dim")
    if line.detail:
        text.append(f"  {line.detail}", style="dim" if line.style in ("green", "blue", "cyan") else line.style)
    return text


class Progress:
    """Shows committed rows on a console until it is left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: list[Row] = []
        self._began = time.monotonic()
        self._steps = 0
        self._next = ""
        self._run_id = ""
        self._live: Live | None = None
        self._task: asyncio.Task[None] | None = None

    def observe(self, committed: Committed) -> None:
        """Called by the executor after each commit: remember, and be gone."""
        self._rows.append(committed.row._replace(committed_at=committed.committed_at))

    async def __aenter__(self) -> Self:
        import asyncio

        from rich.live import Live

        self._live = Live(self, console=self._console, refresh_per_second=8, transient=True)
        self._live.start()
        self._task = asyncio.create_task(self._print())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
        self._flush()
        if self._live is not None:
            self._live.stop()
            self._console.print()

    async def _print(self) -> None:
        import asyncio

        while True:
            self._flush()
            await asyncio.sleep(_PAUSE)

    def _flush(self) -> None:
        from rich.text import Text

        rows, self._rows = self._rows, []
        if not rows:
            return
        story = [told(row) for row in rows]
        lines = [drawn(line) for line in story]
        if not self._run_id:
            self._run_id = rows[0].run_id
            lines.insert(0, Text(f"run {self._run_id}", style="bold"))
        self._steps = rows[-1].step
        self._next = story[-1].detail if rows[-1].kind == "barrier" else rows[-1].next or self._next
        self._console.print(Text("\n").join(lines), soft_wrap=True)

    def __rich__(self) -> Text:
        """What stands below the lines while the run goes on."""
        from rich.text import Text

        turn = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"[int(time.monotonic() * 8) % 10]
        what = f"{self._next} · " if self._next else ""
        return Text(f"  {turn} {what}{self._steps} steps · {span(int((time.monotonic() - self._began) * 1_000_000))}", style="dim")
