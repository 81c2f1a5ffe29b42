"""What every command is given: which store, which form of output, and where to write.

Machine-readable output (json, ids) goes to stdout untouched by rich; tables go there through rich; everything that is said
about the work (progress, hints, errors) goes to stderr.  Knows no command and no run.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trailmark.cli.addresses import DEFAULT_STORE, sqlite_file, store_url, without_password
from trailmark.cli.plain import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from checkpoint_stores.protocol import CheckpointStore

STORE_VARIABLE = "TRAILMARK_STORE"
FLOW_VARIABLE = "TRAILMARK_FLOW"
_PIPED_WIDTH = 4000
"""Columns of a table that goes to a file or a pipe: one record is one line."""


class Output(StrEnum):
    """The form of what a command prints on stdout."""

    TABLE = "table"
    JSON = "json"
    IDS = "ids"


@dataclass(slots=True)
class Terminal:
    """The options that every command takes, and the streams."""

    store: str | None = None
    """--store as it was typed; None where the environment or the default decides."""
    output: Output = Output.TABLE
    debug: bool = False
    flow: str = ""
    """The flow that --flow (or the command's argument) named; for commands to type next."""

    def with_options(self, *, store: str | None, output: Output | None, debug: bool) -> Terminal:
        """The same with the options given behind the command, which win over those before it."""
        return Terminal(store or self.store, output or self.output, debug or self.debug)

    # --- the store --------------------------------------------------------------------------------------------------
    @property
    def url(self) -> str:
        """The store's URL: --store, else TRAILMARK_STORE, else a SQLite file in the working folder."""
        return store_url(self.named_store or DEFAULT_STORE)

    @property
    def named_store(self) -> str | None:
        """The store that --store or TRAILMARK_STORE names; None where neither does."""
        return self.store or os.environ.get(STORE_VARIABLE) or None

    @asynccontextmanager
    async def opened_store(self, *, create: bool = False) -> AsyncIterator[CheckpointStore]:
        """The open store.  Only ``create`` makes a SQLite file that is not there: looking must not leave files behind.

        Raises StoreUnavailableError, SchemaVersionError.
        """
        if not create:
            _check_file(self.url)
        from trailmark.checkpoint_stores import open_store

        async with open_store(self.url) as store:
            yield store

    def command(self, *words: str) -> str:
        """A command to type next, with this store where it was named on the command line (but never with its password).

        >>> Terminal("my runs.db").command("runs", "ls")
        "trailmark --store 'my runs.db' runs ls"
        """
        return shlex.join(["trailmark", *(["--store", without_password(self.store)] if self.store else []), *words])

    def resume_command(self, run_id: str, *words: str) -> str:
        """How to go on with a run.

        >>> Terminal(flow="shop:flow").resume_command("0192f7c4-...", "--takeover")
        'trailmark resume 0192f7c4-... --flow shop:flow --takeover'
        """
        named = [] if os.environ.get(FLOW_VARIABLE) and not self.flow else ["--flow", self.flow or "MODULE:NAME"]
        return self.command("resume", run_id, *named, *words)

    # --- stdout -----------------------------------------------------------------------------------------------------
    def write(self, text: str) -> None:
        """Text as it is, on stdout."""
        sys.stdout.write(text if text.endswith("\n") else text + "\n")

    def write_json(self, value: Any) -> None:
        """One JSON document."""
        self.write(json.dumps(value, ensure_ascii=False, indent=2))

    async def write_json_list(self, items: AsyncIterable[Any]) -> None:
        """One JSON document that is a list, written while it comes."""
        opening = "[\n  "
        async for item in items:
            sys.stdout.write(opening + json.dumps(item, ensure_ascii=False, indent=2).replace("\n", "\n  "))
            opening = ",\n  "
        self.write("\n]" if opening.startswith(",") else "[]")

    def write_ids(self, ids: Iterable[str]) -> None:
        """One id a line; nothing at all where there is none."""
        sys.stdout.write("".join(f"{each}\n" for each in ids))

    def show(self, *renderables: RenderableType) -> None:
        """Tables and text for people."""
        console = self.console(error=False)
        if console.is_terminal:
            console.print(*renderables, sep="\n")
            return
        # Rich fills every cell up; a file or a pipe shall not get the blanks.
        with console.capture() as captured:
            console.print(*renderables, sep="\n")
        self.write("\n".join(line.rstrip() for line in captured.get().splitlines()))

    # --- stderr -----------------------------------------------------------------------------------------------------
    def say(self, text: str) -> None:
        """One line about the work."""
        sys.stdout.flush()
        sys.stderr.write(printable(text) + "\n")

    def next_steps(self, commands: Sequence[str]) -> None:
        """What one would type now; only where a person reads."""
        if self.output is Output.TABLE:
            for index, command in enumerate(commands):
                self.say(f"{'next:' if index == 0 else '     '} {command}")

    def is_interactive(self) -> bool:
        """Whether a person sits there who can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def is_screen(self) -> bool:
        """Whether a person sees what is printed."""
        return sys.stdout.isatty()

    def shows_progress(self) -> bool:
        """Whether what happens is shown while it happens."""
        return self.output is Output.TABLE and sys.stderr.isatty()

    def console(self, *, error: bool) -> Console:
        """A rich console on stdout or stderr; a pipe gets neither colours nor folded lines."""
        from rich.console import Console

        stream = sys.stderr if error else sys.stdout
        width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPED_WIDTH
        return Console(file=stream, width=width, highlight=False, emoji=False, markup=False)


def _check_file(url: str) -> None:
    file = sqlite_file(url)
    if file and not file.startswith("file:") and not Path(file).exists():
        from checkpoint_stores.errors import StoreUnavailableError

        raise StoreUnavailableError(url, "there is no such file; say --store URL, or start a run, which makes it")
