"""The command line: `trailmark`.  A surface: it talks to the store and the executor, and decides nothing.

``exits`` is the table of exit codes, ``app`` puts the commands together, one file for each group of them.  Importing this package
imports none of that: `main` does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line (default: this process's) and return its exit code."""
    from trailmark.cli.app import invoke

    return invoke(sys.argv[1:] if arguments is None else list(arguments))
