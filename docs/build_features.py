"""Writes docs/reference/features.md from the table in tests/features.py (``make docs``); a test says when it is out of date.

It knows how to find tests and how to show the table; what the tests show stands in the table.
"""

# ruff: noqa: INP001 - a script, not a module of a package

from __future__ import annotations

import ast
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "features.md"

INTRO = """\
# What is shown by which test

<!-- Written by docs/build_features.py (`make docs`) from tests/features.py; changes here are lost. -->

What trailmark can do, row by row, and faults of systems we learnt from that must not exist here, each with the tests that show it.
**Shown** means that these tests pass; where they show a part only, the row says what is missing; **not yet** means that there is no
such test.  Tests of `StoreContract` and other contracts in `trailmark/testing` run against every store, from `tests/contract`."""


def table() -> dict[str, Any]:
    """What ``tests/features.py`` declares, by name."""
    return runpy.run_path(str(ROOT / "tests" / "features.py"))


def known_tests() -> Iterator[str]:
    """Every test there is, as the table names it; one with parameters is one test."""
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "trailmark" / "testing").rglob("*.py")]:
        file = path.relative_to(ROOT).as_posix()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            inside = node.body if isinstance(node, ast.ClassDef) else [node]
            prefix = f"{file}::{node.name}::" if isinstance(node, ast.ClassDef) else f"{file}::"
            for each in inside:
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
                    yield prefix + each.name


def word(row: Any) -> str:
    """How far a row is shown."""
    if row.outside:
        return "does not apply"
    return "not yet" if not row.tests else "partly shown" if row.missing else "shown"


def page() -> str:
    """The text of the page as it should stand in its file."""
    found = table()["GROUPS"]
    words = [word(row) for rows in found.values() for row in rows]
    counts = ", ".join(f"{words.count(each)} {each}" for each in ("shown", "partly shown", "not yet", "does not apply"))
    parts = [INTRO, "", f"Of {len(words)} rows: {counts}."]
    for heading, rows in found.items():
        parts += ["", f"## {heading}"]
        for row in rows:
            rest = row.outside or row.missing
            parts += ["", f"**{row.id}** {row.title}: **{word(row)}**" + (f". {rest[0].upper()}{rest[1:]}" if rest else "."), ""]
            for test in row.tests:
                file, _, name = test.partition("::")
                parts.append(f"- [{file}](../../{file}): `{name}`")
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
