"""How the demo looks: headings, lines, tables, the path a run took.  Knows no store and no process.

Colours where a person looks on, plain lines otherwise.  What comes from the audited distributions is shown, never
trusted: no control character of theirs reaches the terminal.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from trailmark.cli import tables
from trailmark.cli.plain import printable
from trailmark.cli.progress import Told, drawn

_ASCII = str.maketrans({
    "─": "-", "│": "|", "├": "|", "└": "`", "✓": "+", "✗": "x", "·": ".", "→": ">", "▶": ">", "◆": "?", "■": "#", "⤳": "~", "╤": "+", "╧": "+",
    "↻": "~", "…": ".",
})  # fmt: skip
"""What to print where the terminal knows no more than ASCII."""

_VISIT = re.compile(r"#\d+")
_PIPED_WIDTH = 100


class Screen:
    """Where the demo speaks to whoever looks on."""

    def __init__(self) -> None:
        width = None if sys.stdout.isatty() else _PIPED_WIDTH
        self._console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width)

    def _print(self, text: Text) -> None:
        if self._console.options.ascii_only:
            text = Text(text.plain.translate(_ASCII))
        # Soft: the terminal folds what is too long, and a path that is copied from it stays in one piece.
        self._console.print(text, soft_wrap=True)
        sys.stdout.flush()

    def title(self, text: str, about: str) -> None:
        """What this is."""
        self._print(Text.assemble((text, "bold cyan"), "  ", (printable(about), "")))

    def act(self, number: int, text: str) -> None:
        """A new part of the story begins."""
        rule = "─" * max(3, 70 - len(text))
        self._print(Text.assemble("\n", (f"── {number} ── ", "cyan"), (f"{printable(text)} ", "bold"), (rule, "cyan")))

    def say(self, text: str = "", style: str = "") -> None:
        """One line of the story."""
        self._print(Text("  " + printable(text) if text else "", style=style))

    def commit(self, seq: int, told: Told) -> None:
        """A checkpoint, now that it is committed."""
        self._print(Text.assemble((f"{seq:>6}", "dim"), drawn(told)))

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and values, one pair a line."""
        known = [(name, value) for name, value in pairs if value]
        width = max((len(name) for name, _value in known), default=0)
        for name, value in known:
            self._print(Text.assemble("    ", (printable(name).ljust(width), "dim"), "  ", printable(value)))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Lines in columns."""
        # Folded within the columns: here a line must not run on under the next column.
        self._console.print(Padding(tables.table(columns, rows), (0, 0, 0, 4), expand=False))
        sys.stdout.flush()

    def commands(self, lines: Iterable[tuple[str, Sequence[str]]]) -> None:
        """What to type next, and what for."""
        known = list(lines)
        width = max(len(what) for what, _words in known)
        for what, words in known:
            self._print(Text.assemble("    ", (what.ljust(width), "dim"), "  ", (shlex.join(words), "cyan")))

    def finding(self, severity: str, name: str, message: str) -> None:
        """One thing that is wrong."""
        style = {"high": "red", "medium": "yellow"}.get(severity, "")
        self._print(Text.assemble("    ", (severity.ljust(8), style), printable(name), (f"\n            {printable(message)}", "dim")))

    def path(self, definition: Mapping[str, Any], visits: Mapping[str, int], remarks: Mapping[str, str]) -> None:
        """The nodes of a graph with marks on those that a run entered; see `path_lines`."""
        for mark, place, name, remark in path_lines(definition, visits, remarks):
            been = mark == "✓"
            line = Text.assemble("    ", (place, "dim"), (mark, "green" if been else "dim"), " ", (printable(name), "" if been else "dim"))
            if remark:
                line.pad_right(max(0, 36 - len(line)))
            self._print(Text.assemble(line, (printable(remark), "dim")))


def visits_of(entered: Iterable[tuple[str, str]]) -> Counter[str]:
    """How often each node was entered, by the name it has in pictures, from (branch path, node) of each entry.

    >>> visits_of([("checks[1]", "audit"), ("checks#2[1]", "audit"), ("", "pay")])
    Counter({'checks[1].audit': 2, 'pay': 1})
    """
    return Counter(f"{_VISIT.sub('', path)}.{node}" if path else node for path, node in entered)


def path_lines(
    definition: Mapping[str, Any], visits: Mapping[str, int], remarks: Mapping[str, str], place: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """A graph as lines: (mark, lines of the tree, node, remark); ✓ marks a node that was entered.

    >>> flow = {"nodes": {"pay": {"kind": "task"}, "refuse": {"kind": "task"}}}
    >>> list(path_lines(flow, {"pay": 2}, {"pay": "by hand"}))
    [('✓', '', 'pay, 2 times', 'by hand'), ('·', '', 'refuse', '')]
    """
    for name, node in definition["nodes"].items():
        known = f"{place}.{name}" if place else name
        count = visits.get(known, 0)
        yield "✓" if count else "·", "", f"{name}, {count} times" if count > 1 else name, remarks.get(known, "")
        branches = node.get("branches", ())
        for index, branch in enumerate(branches):
            first, below = ("└─ ", "   ") if index == len(branches) - 1 else ("├─ ", "│  ")
            guide, title = first, f"branch {branch['name']}"
            for mark, tree, inner, remark in path_lines(branch, visits, remarks, f"{known}[{index}]"):
                yield mark, guide + tree, inner, remark or (title if inner != branch["name"] else "")
                guide, title = below, ""


def shown_path(path: str | Path) -> str:
    """A path as one would type it here: relative where it stands below the working folder."""
    full = Path(path).absolute()
    here = Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(full)
