"""Runs what a page of the documentation shows, and compares what comes out with what the page says.

    python docs/run_page.py docs/tutorial/first-flow.md            # complains where the page is not true
    python docs/run_page.py --write docs/tutorial/first-flow.md    # writes what came out into the page

A page is run from top to bottom in an empty folder:

- a block with ``title="file.py"`` is written to that file;
- any other ``python`` block is executed, all in one namespace; it may ``await`` at its top level, as in ``python -m asyncio``;
- a ``text`` block right behind it is what it printed;
- the lines of a ``console`` block that begin with ``$`` are typed into one shell; the others are what came out, stdout and stderr;
- any other block is only shown.

Where output is compared, run ids, times, durations and digests may differ, blanks count once, and ``...`` stands for anything.
"""

# ruff: noqa: INP001, S607, T201 - a script that types into the bash it finds, and prints

from __future__ import annotations

import argparse
import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

REPOSITORY = Path(__file__).resolve().parent.parent

_FENCE = re.compile(r"^```(?P<info>[^`\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_DIFFERS = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<run>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?:\+00:00|Z)?"), "<time>"),
    (re.compile(r"\b(?:\d\d-\d\d )?\d\d:\d\d:\d\d\b"), "<time>"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:ms|s)\b"), "<duration>"),
    (re.compile(r"\b[0-9a-f]{12,}\b"), "<digest>"),
)


@dataclass
class Block:
    """One fenced block of a page."""

    language: str
    title: str
    body: str
    line: int
    start: int
    """Where the body begins in the text of the page."""


@dataclass
class Finding:
    """A block whose output is not what the page says."""

    block: Block
    said: str
    came: str


@dataclass
class Page:
    """A page while it is run."""

    name: str
    folder: Path
    shell: Shell
    runner: asyncio.Runner
    module: types.ModuleType
    findings: list[Finding] = field(default_factory=list)


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(text):
        info = match["info"].strip()
        title = _TITLE.search(info)
        line = text.count("\n", 0, match.start("body")) + 1
        found.append(Block(info.partition(" ")[0], title[1] if title else "", match["body"], line, match.start("body")))
    return found


def is_same(said: str, came: str) -> bool:
    """Whether what came out is what the page says.

    >>> is_same("run 01a1fd42-c851-7dc3-9dc6-68b24c054827 took 3 ms", "run  01a1fd43-2313-78f0-9165-01881163a0ba  took 14 ms")
    True
    >>> is_same("all ... well", "all is well"), is_same("all is well", "all is lost")
    (True, False)
    """
    parts = [re.escape(_plain(part)) for part in said.split("...")]
    return re.fullmatch(r"[\s\S]*".join(parts).replace(r"\ ", " "), _plain(came)) is not None


def _plain(text: str) -> str:
    for pattern, name in _DIFFERS:
        text = pattern.sub(name, text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


class Shell:
    """One bash for the whole page, so that its variables last."""

    def __init__(self, folder: Path, programs: Path) -> None:
        for name, module in (("python", ()), ("trailmark", ("-P", "-m", "trailmark"))):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *module])} "$@"\n')
            program.chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAILMARK_") and name != "COLUMNS"}
        environment |= {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TZ": "UTC",
        }
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

        self._stdin, self._stdout = cast("IO[str]", self._bash.stdin), cast("IO[str]", self._bash.stdout)

    def typed(self, command: str) -> str:
        """What a command prints.  Its exit code is left in ``$?``, as for a person who types."""
        end = "--- end of the command ---"
        self._stdin.write(f"{command}\n{{ code=$?; echo; echo '{end}'; (exit $code); }}\n")
        self._stdin.flush()
        lines: list[str] = []
        for line in self._stdout:
            if line.rstrip("\n") == end:
                break
            lines.append(line)
        # bash says of a killed program what an interactive one says, but with more words before it
        said = [re.sub(r"^bash: line \d+: +\d+ (Killed|Terminated)\b.*$", r"\1", line) for line in lines]
        return "".join(said).removesuffix("\n")

    def close(self) -> None:
        """End the shell."""
        self._stdin.close()
        self._bash.wait()
        self._stdout.close()


def run(path: Path) -> list[Finding]:
    """Run a page; returns where it is not true.  What a block raises goes through."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as programs, asyncio.Runner() as runner:
        before = Path.cwd()
        module = sys.modules["page"] = types.ModuleType("page")
        shell = Shell(Path(folder), Path(programs))
        page = Page(str(path), Path(folder), shell, runner, module)
        os.chdir(folder)
        sys.path.insert(0, folder)
        try:
            _run_blocks(page, blocks_of(path.read_text(encoding="utf-8")))
        finally:
            os.chdir(before)
            shell.close()
    return page.findings


def _run_blocks(page: Page, blocks: list[Block]) -> None:
    printed: str | None = None
    for block in blocks:
        match block.language:
            case _ if block.title:
                (page.folder / block.title).write_text(block.body, encoding="utf-8")
                printed = None
            case "python":
                printed = _executed(page, block)
            case "console":
                _type(page, block)
                printed = None
            case "text" if printed is not None:
                _compare(page, block, block.body, printed)
                printed = None
            case _:
                printed = None


def _executed(page: Page, block: Block) -> str:
    # Line numbers of a traceback are those of the page.
    tree = ast.parse("\n" * (block.line - 1) + block.body, page.name)
    code = compile(tree, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        result = types.FunctionType(code, page.module.__dict__)()
        if inspect.iscoroutine(result):
            page.runner.run(result)
    return printed.getvalue()


def _type(page: Page, block: Block) -> None:
    came = "".join(f"$ {command}\n{_ended(page.shell.typed(command))}" for command in _commands(block.body))
    _compare(page, block, block.body, came)


def _commands(body: str) -> Iterator[str]:
    command = ""
    for line in body.splitlines():
        if command.endswith("\\"):
            command = f"{command}\n{line}"
        elif line.startswith("$ "):
            command = line.removeprefix("$ ")
        else:
            continue
        if not command.endswith("\\"):
            yield command


def _ended(text: str) -> str:
    text = "\n".join(line.rstrip() for line in text.splitlines())
    return f"{text.rstrip()}\n" if text.strip() else ""


def _compare(page: Page, block: Block, said: str, came: str) -> None:
    if not is_same(said, came):
        page.findings.append(Finding(block, said, came))


def rewritten(text: str, findings: list[Finding]) -> str:
    """The page with what came out in the place of what it said."""
    for finding in reversed(findings):
        block = finding.block
        text = text[: block.start] + _ended(finding.came) + text[block.start + len(block.body) :]
    return text


def main() -> int:
    """Run the pages named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write what came out into the page")
    parser.add_argument("pages", nargs="+", type=Path)
    asked = parser.parse_args()
    is_true = True
    for path in (given.resolve() for given in asked.pages):
        findings = run(path)
        if findings and asked.write:
            path.write_text(rewritten(path.read_text(encoding="utf-8"), findings), encoding="utf-8")
            continue
        for finding in findings:
            is_true = False
            print(f"{path}:{finding.block.line}: the page says\n{finding.said}\nbut what came out is\n{finding.came}")
    return 0 if is_true else 1


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    sys.exit(main())
