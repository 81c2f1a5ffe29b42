"""Writes the reference pages that are made from the code (``make docs``); a test says when they are out of date."""

# ruff: noqa: INP001 - a script, not a module of a package

from __future__ import annotations

from pathlib import Path

from trailmark.cli.reference import reference

PAGES = {"cli.md": reference}
"""Pages of ``docs/reference``, each with the function that writes it."""


def main() -> None:
    folder = Path(__file__).parent / "reference"
    folder.mkdir(exist_ok=True)
    for name, written in PAGES.items():
        (folder / name).write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    main()
