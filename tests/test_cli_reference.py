"""The page about the command line says what the commands say."""

from __future__ import annotations

from pathlib import Path

import trailmark
from trailmark.cli.exits import ExitCode
from trailmark.cli.reference import reference

PAGE = Path(trailmark.__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"


def test_the_page_is_what_the_commands_say_now() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "type: make docs"


def test_every_exit_code_and_every_command_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"| {int(code)} | {code.meaning} |" in page
    for command in ("run", "resume", "runs ls", "runs fork", "approvals approve", "flows graph", "flows validate", "db verify", "demo"):
        assert f"## `trailmark {command}`" in page
