"""The command line over side effects: listed, in doubt, settled."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from trailmark.checkpoint_stores import EffectRecord, SQLCheckpointStore
from trailmark.cli import main
from trailmark.cli.exits import ExitCode

PAYING = """
from trailmark import END, Flow

class GoneError(Exception):
    pass

flow = Flow("paying", {"receipt": int})

async def debit():
    raise GoneError("no answer")

@flow.node
async def pay(state, ctx):
    return {"receipt": await ctx.once("debit", debit, in_doubt_on=(GoneError,))}

flow.set_entry("pay").add_edge("pay", END)
"""


@pytest.fixture
def doubtful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The id of a run that stopped with a side effect in doubt, in the working folder's store."""
    monkeypatch.chdir(tmp_path)
    for variable in ("TRAILMARK_STORE", "TRAILMARK_FLOW", "TRAILMARK_USER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "paying.py").write_text(PAYING)
    assert main(["run", "paying.py:flow", "-o", "ids"]) == ExitCode.STOPPED
    said = capsys.readouterr()
    run_id = said.out.strip()
    assert f"run {run_id} stopped: side effect 'debit' of node 'pay' was started and nobody knows whether it happened" in said.err
    assert f"trailmark runs resolve-effect {run_id}" in said.err
    return run_id


def test_a_side_effect_in_doubt_is_listed_shown_settled_and_the_run_goes_on(doubtful: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "effects", doubtful]) == ExitCode.OK
    listed = capsys.readouterr()
    assert "debit" in listed.out
    assert "in_doubt" in listed.out
    assert "GoneError: no answer" in listed.out
    assert main(["runs", "show", doubtful]) == ExitCode.OK
    shown = capsys.readouterr()
    assert "side effects in doubt" in shown.out
    assert f"trailmark runs resolve-effect {doubtful}" in shown.out + shown.err
    assert main(["runs", "show", doubtful, "-o", "json"]) == ExitCode.OK
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["in_doubt"]] == ["debit"]

    assert main(["runs", "resolve-effect", doubtful, "debit", "--done", "7", "--by", "ana", "--reason", "statement", "-o", "json"]) == 0
    settled = json.loads(capsys.readouterr().out)
    assert (settled["status"], settled["outcome"], settled["by"], settled["reason"]) == ("done", 7, "ana", "statement")
    assert main(["resume", doubtful, "--flow", "paying.py:flow", "-o", "json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["values"] == {"receipt": 7}
    assert main(["runs", "effects", doubtful, "-o", "ids"]) == ExitCode.OK
    assert capsys.readouterr().out.strip() == settled["key"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["debit", "--not-done"], ExitCode.USAGE, "--by NAME"),
        (["debit", "--by", "ana"], ExitCode.USAGE, "--not-done"),
        (["debit", "--by", "ana", "--done", "1", "--not-done"], ExitCode.USAGE, "--not-done"),
        (["debit", "--by", "ana", "--done", "paid"], ExitCode.USAGE, "no JSON"),
        (["credit", "--by", "ana", "--not-done"], ExitCode.NOT_FOUND, "its side effects are: debit"),
    ],
)
def test_what_cannot_be_settled_is_said_and_nothing_changes(
    doubtful: str, capsys: pytest.CaptureFixture[str], words: list[str], code: ExitCode, said: str
) -> None:
    assert main(["runs", "resolve-effect", doubtful, *words]) == code
    assert said in capsys.readouterr().err

    async def known() -> list[Any]:
        async with SQLCheckpointStore("sqlite+aiosqlite:///trailmark.db") as store:
            return await store.effects(doubtful)

    (effect,) = asyncio.run(known())
    assert isinstance(effect, EffectRecord)
    assert (effect.status, effect.by) == ("in_doubt", None)


def test_an_effect_that_is_settled_stays_as_it_was_settled(doubtful: str, capsys: pytest.CaptureFixture[str]) -> None:
    settle = ["runs", "resolve-effect", doubtful, "debit", "--by"]
    assert main([*settle, "ana", "--not-done"]) == ExitCode.OK
    assert main([*settle, "ben", "--done", "1"]) == ExitCode.CONFLICT
    assert "is not_done" in capsys.readouterr().err
