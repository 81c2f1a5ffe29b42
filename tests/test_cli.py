"""The command line in one process: every verb, every form of output, every error's code and words."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from checkpoint_stores.codec import pack
from checkpoint_stores.records import Row
from trailmark.cli import main
from trailmark.cli.app import app
from trailmark.cli.exits import ExitCode
from trailmark.cli.progress import drawn, told
from trailmark.cli.terminal import Terminal
from trailmark.events import parse
from trailmark.testing import StreamChecker

SHOP = """
from typing import Annotated, Any
from pydantic import BaseModel, Field
from trailmark import END, Flow, approved
from trailmark.reducers import append

flow = Flow("order", {"amount": float, "vendor": str, "notes": Annotated[list[str], append], "extra": Any})

@flow.node
async def read(state):
    return {"notes": [f"read {state['amount']:g}"]}

async def stock(state):
    return {"notes": ["in stock"]}

async def credit(state):
    return {"notes": ["has credit"]}

@flow.node
async def pay(state):
    if state["amount"] == 13:
        raise RuntimeError("the bank\\nis down")
    return {"notes": ["paid"]}

@flow.node
async def refuse(state):
    return {"notes": ["refused"]}

def is_small(state):
    return state["amount"] < 1000

class Form(BaseModel):
    amount: float = Field(le=9999)

LIMITS = {"amount": 9999}

flow.add_parallel("checks", [stock, credit])
flow.add_barrier("manager", prompt="Pay {vendor} {amount}?", show=["vendor", "amount", "extra"], approvers={"finance"}, form=Form)
flow.set_entry("read")
flow.add_edge("read", "checks")
flow.add_edge("checks", "pay", when=is_small)
flow.add_edge("checks", "manager")
flow.add_edge("manager", "pay", when=approved)
flow.add_edge("manager", "refuse")
flow.add_edge("pay", END)
flow.add_edge("refuse", END)
"""

SMALL = '{"amount": 3, "vendor": "ACME"}'
LARGE = '{"amount": 3000, "vendor": "ACME"}'
FAILING = '{"amount": 13, "vendor": "ACME"}'

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Carries out a command line in a folder of its own that holds ``shop.py``."""
    for variable in ("TRAILMARK_STORE", "TRAILMARK_FLOW", "TRAILMARK_USER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "shop.py").write_text(SHOP)
    loaded = set(sys.modules)

    def carried_out(*arguments: str) -> Outcome:
        code = main(arguments)
        return Outcome(code, *capsys.readouterr())

    yield carried_out
    for name in set(sys.modules) - loaded:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def started(cli: Cli, given: str = LARGE, *options: str) -> str:
    return cli("run", "shop.py:flow", "--input", given, "-o", "ids", *options).out.strip()


def one_line(text: str) -> str:
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    assert text.startswith("trailmark: ")
    return text.strip()


# --- running ------------------------------------------------------------------------------------------------------------
def test_a_run_that_completes_prints_its_state_and_ends_with_0(cli: Cli) -> None:
    done = cli("run", "shop.py:flow", "--input", SMALL)
    assert done.code == ExitCode.OK
    assert "completed" in done.out
    assert 'notes   ["read 3", "in stock", "has credit", "paid"]' in done.out
    assert done.err == ""


def test_json_of_a_run_has_stable_fields_and_nothing_else_is_printed(cli: Cli) -> None:
    done = cli("-o", "json", "run", "shop.py:flow", "--input", SMALL)
    assert done.err == ""
    assert list(done.json) == ["run_id", "status", "steps", "attempt", "seq", "waiting_for", "retries", "waits", "error", "values"]
    assert done.json["values"] == {"amount": 3.0, "vendor": "ACME", "notes": ["read 3", "in stock", "has credit", "paid"]}
    assert (done.json["status"], done.json["steps"], done.json["attempt"]) == ("completed", 5, 1)


def test_ids_are_bare_and_options_may_stand_before_or_behind_the_command(cli: Cli) -> None:
    before = cli("-o", "ids", "run", "shop.py:flow", "-i", SMALL)
    behind = cli("run", "shop.py:flow", "-i", SMALL, "-o", "ids")
    assert UUID.fullmatch(before.out.strip())
    assert UUID.fullmatch(behind.out.strip())


def test_the_input_comes_from_a_file_or_from_stdin(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "order.json").write_text(SMALL)
    assert cli("run", "shop.py:flow", "--input", "order.json").code == ExitCode.OK
    with (tmp_path / "order.json").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli("run", "shop.py:flow", "--input", "-").code == ExitCode.OK


def test_a_module_in_the_working_folder_is_found(cli: Cli) -> None:
    assert cli("run", "shop:flow", "--input", SMALL).code == ExitCode.OK


def test_a_failed_run_ends_with_1_and_one_line_that_says_why(cli: Cli) -> None:
    failed = cli("run", "shop.py:flow", "--input", FAILING)
    assert failed.code == ExitCode.FAILED
    run_id = UUID.search(failed.out)
    assert run_id
    assert one_line(failed.err).endswith(f"RuntimeError: the bank; is down; next: trailmark runs steps {run_id[0]}")
    assert cli("resume", run_id[0], "--flow", "shop.py:flow").code == ExitCode.FAILED


def test_debug_shows_the_traceback_of_a_failed_node(cli: Cli) -> None:
    failed = cli("run", "shop.py:flow", "--input", FAILING, "--debug")
    assert "Traceback" in failed.err
    assert "shop.py" in failed.err


def test_a_run_that_waits_ends_with_3_and_says_what_to_type(cli: Cli) -> None:
    waiting = cli("run", "shop.py:flow", "--input", LARGE)
    assert waiting.code == ExitCode.WAITING
    run_id = UUID.search(waiting.out)
    assert run_id
    assert waiting.err == (
        f"next: trailmark approvals approve {run_id[0]} 'manager#1' --by NAME\n      trailmark resume {run_id[0]} --flow shop.py:flow\n"
    )


def test_a_run_at_its_step_limit_ends_with_4_and_goes_on_with_a_larger_one(cli: Cli) -> None:
    stopped = cli("run", "shop.py:flow", "--input", SMALL, "--max-steps", "2", "-o", "json")
    assert (stopped.code, stopped.json["status"], stopped.json["steps"]) == (ExitCode.STOPPED, "limit_reached", 2)
    again = cli("resume", stopped.json["run_id"], "--flow", "shop.py:flow", "--max-steps", "1")
    assert again.code == ExitCode.USAGE
    assert "must be more than the 2 steps" in one_line(again.err)
    assert cli("resume", stopped.json["run_id"], "--flow", "shop.py:flow", "--max-steps", "9").code == ExitCode.OK


def test_a_cancelled_run_ends_with_5_when_it_is_asked_for(cli: Cli) -> None:
    run_id = started(cli)
    cancelled = cli("runs", "cancel", run_id, "--by", "ana", "--reason", "a typo", "-o", "json")
    assert (cancelled.code, cancelled.json["status"]) == (ExitCode.OK, "cancelled")
    assert "cancelled; by ana: a typo" in cli("runs", "steps", run_id).out
    assert cli("runs", "cancel", run_id, "--by", "ben").code == ExitCode.OK
    assert cli("resume", run_id, "--flow", "shop.py:flow").code == ExitCode.CANCELLED
    assert cli("approvals", "ls", "-o", "ids").out == ""


def test_a_run_key_names_one_run(cli: Cli) -> None:
    run_id = started(cli, LARGE, "--run-key", "order-1", "--label", "team=billing")
    assert cli("runs", "show", run_id, "-o", "json").json["labels"] == {"team": "billing"}
    again = cli("run", "shop.py:flow", "--input", LARGE, "--key", "order-1")
    assert again.code == ExitCode.WAITING
    assert f"run {run_id} is already there under the key 'order-1'" in again.err
    other = cli("run", "shop.py:flow", "--input", SMALL, "--key", "order-1")
    assert other.code == ExitCode.CONFLICT
    assert "amount differs" in one_line(other.err)
    assert one_line(other.err).endswith(f"--supersede; next: trailmark runs show {run_id}")
    placed = cli("run", "shop.py:flow", "--input", SMALL, "--key", "order-1", "--supersede", "--by", "ana", "-o", "ids")
    assert placed.code == ExitCode.OK
    assert cli("runs", "show", run_id, "-o", "json").json["status"] == "cancelled"
    (new_id,) = placed.out.split()
    listed = cli("runs", "ls", "-o", "json").json
    assert {run["run_id"]: run["run_key"] for run in listed} == {new_id: "order-1", run_id: None}


def test_an_operator_edits_a_waiting_run(cli: Cli) -> None:
    run_id = started(cli, LARGE)
    edit = ("runs", "edit", run_id, "--flow", "shop.py:flow")
    assert cli("runs", "edit", run_id, "--set", "amount=5", "--by", "ana").code == ExitCode.USAGE
    assert cli(*edit, "--set", "amount=5").code == ExitCode.USAGE
    assert cli(*edit, "--set", "amount=many", "--by", "ana").code == ExitCode.USAGE
    edited = cli(*edit, "--set", "amount=2000", "--by", "ana", "--reason", "a typo", "-o", "json")
    assert (edited.code, edited.json["keys"]) == (ExitCode.OK, ["amount"])
    assert cli("approvals", "ls", "-o", "json").json[0]["payload"]["amount"] == 2000
    last = cli("runs", "steps", run_id, "-o", "json").json[-1]
    assert (last["kind"], last["seq"]) == ("edit", edited.json["seq"])
    assert "edited by ana: a typo" in cli("runs", "steps", run_id).out


def test_a_store_is_pruned_packed_and_its_runs_are_deleted(cli: Cli) -> None:
    ended, waiting = started(cli, SMALL, "--label", "team=audit"), started(cli, LARGE)
    assert cli("db", "prune").code == ExitCode.USAGE
    assert cli("db", "prune", "--older-than", "soon").code == ExitCode.USAGE
    tried = cli("db", "prune", "--older-than", "0s", "--keep-checkpoints", "1", "--dry-run")
    assert tried.code == ExitCode.OK
    assert "1 run(s) would be deleted (1 completed)" in tried.out
    assert len(cli("runs", "ls", "-o", "json").json) == 2
    for spared in (
        cli("db", "prune", "--older-than", "0s", "--keep-label", "team=audit", "-o", "json"),
        cli("db", "prune", "--older-than", "0s", "--status", "failed", "-o", "json"),
        cli("db", "prune", "--keep-newest", "5", "--older-than", "0s", "-o", "json"),
        cli("db", "prune", "--flow", "offer", "--older-than", "0s", "--keep-checkpoints", "1", "-o", "json"),
        cli("db", "prune", "--checkpoints-for", "1d", "-o", "json"),
    ):
        assert (spared.json["runs"], spared.json["cuts"]) == ([], [])
    cut = cli("db", "prune", "--checkpoints-for", "0s", "--dry-run", "-o", "json").json["cuts"]
    assert {each["run_id"] for each in cut} == {ended, waiting}
    done = cli("db", "prune", "--older-than", "0s", "--keep-checkpoints", "1", "-o", "json").json
    assert done["runs"] == [ended]
    assert [cut["run_id"] for cut in done["cuts"]] == [waiting]
    verified = cli("db", "verify", waiting)
    assert verified.code == ExitCode.OK
    assert f"its checkpoints up to {done['cuts'][0]['last']} were pruned" in verified.out
    assert cli("db", "vacuum").code == ExitCode.OK
    vacuumed = cli("db", "vacuum", "-o", "json").json
    assert vacuumed["before"] >= vacuumed["after"] > 0
    refused = cli("runs", "delete", waiting)
    assert refused.code == ExitCode.CONFLICT
    assert one_line(refused.err).endswith(f"next: trailmark runs cancel {waiting}")
    cli("runs", "cancel", waiting, "--by", "ana")
    assert "would be deleted" in cli("runs", "delete", waiting, "--dry-run").out
    assert cli("runs", "delete", waiting, "-o", "ids").out.split() == [waiting]
    assert cli("runs", "ls", "-o", "json").json == []


def test_a_fork_of_which_only_its_first_checkpoint_was_pruned_is_said_to_be_pruned(cli: Cli) -> None:
    made = cli("runs", "fork", started(cli, LARGE), "-o", "ids").out.strip()
    cli("runs", "edit", made, "--flow", "shop.py:flow", "--set", "amount=2000", "--by", "ana")
    cli("db", "prune", "--keep-checkpoints", "1")
    assert "its checkpoints up to 0 were pruned" in cli("db", "verify", made).out
    assert cli("runs", "check", made).code == ExitCode.OK


def test_a_run_is_carried_to_another_store_in_a_file(cli: Cli, tmp_path: Path) -> None:
    run_id = started(cli, LARGE)
    written = cli("runs", "export", run_id)
    (tmp_path / "run.jsonl").write_text(written.out)
    assert cli("runs", "export", run_id, "--to", "also.jsonl", "-o", "ids").out.split() == [run_id]
    assert cli("runs", "export", run_id, "--to", "third.jsonl", "-o", "json").json["run_id"] == run_id
    assert cli("runs", "export", run_id, "--to", "also.jsonl").code == ExitCode.USAGE  # never over a file that is there
    assert (tmp_path / "also.jsonl").read_text() == written.out
    assert cli("runs", "import", "run.jsonl").code == ExitCode.CONFLICT
    taken = cli("runs", "import", "run.jsonl", "--store", "other.db", "-o", "ids")
    assert taken.out.split() == [run_id]
    assert cli("db", "verify", run_id, "--store", "other.db").code == ExitCode.OK
    (tmp_path / "cut.jsonl").write_text(written.out[:-200])
    assert cli("runs", "import", "cut.jsonl", "--store", "third.db").code == ExitCode.CORRUPT
    assert cli("runs", "import", "nothing.jsonl").code == ExitCode.USAGE


def test_resume_without_a_flow_says_which_flow_and_how(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = started(cli)
    asked = cli("resume", run_id[:13])
    assert asked.code == ExitCode.USAGE
    said = one_line(asked.err)
    assert "is of flow 'order'" in said
    assert said.endswith(f"next: trailmark resume {run_id} --flow MODULE:NAME")
    monkeypatch.setenv("TRAILMARK_FLOW", "shop.py:flow")
    assert cli("resume", run_id).code == ExitCode.WAITING


def test_a_flow_that_changed_ahead_of_the_run_is_gone_on_with_unless_strict(cli: Cli, tmp_path: Path) -> None:
    run_id = started(cli)
    (tmp_path / "shop2.py").write_text(SHOP.replace('"refuse", END)', '"refuse", "pay")'))
    changed = cli("resume", run_id, "--flow", "shop2.py:flow", "--strict")
    assert changed.code == ExitCode.FLOW
    said = one_line(changed.err)
    assert "edge refuse -> pay added" in said
    assert said.endswith(f"next: trailmark resume {run_id} --flow shop2.py:flow")
    assert cli("resume", run_id, "--flow", "shop2.py:flow", "--strict", "--force").code == ExitCode.USAGE
    assert cli("resume", run_id, "--flow", "shop2.py:flow").code == ExitCode.WAITING


def test_a_flow_that_changed_where_the_run_stands_is_refused_with_why_and_what_to_type(cli: Cli, tmp_path: Path) -> None:
    run_id = started(cli)
    (tmp_path / "shop2.py").write_text(SHOP.replace('approvers={"finance"}', 'approvers={"board"}'))
    changed = cli("resume", run_id, "--flow", "shop2.py:flow")
    assert changed.code == ExitCode.FLOW
    said = one_line(changed.err)
    assert "node 'manager': approvers changed: ticket manager#1 is open" in said
    assert said.endswith(f"next: trailmark resume {run_id} --flow shop2.py:flow --force")
    assert cli("resume", run_id, "--flow", "shop2.py:flow", "--force").code == ExitCode.WAITING
    (tmp_path / "shop3.py").write_text(SHOP.replace('"manager"', '"boss"'))
    lost = cli("resume", run_id, "--flow", "shop3.py:flow", "--force")
    assert lost.code == ExitCode.FLOW
    assert "people are asked there (ticket manager#1)" in one_line(lost.err)
    assert one_line(lost.err).endswith(f"next: trailmark flows diff {run_id} shop3.py:flow")


def test_the_difference_from_a_run_to_a_flow_is_shown_with_what_it_means_to_the_run(cli: Cli, tmp_path: Path) -> None:
    run_id = started(cli)
    (tmp_path / "shop2.py").write_text(SHOP.replace('"refuse", END)', '"refuse", "pay")'))
    (tmp_path / "shop3.py").write_text(SHOP.replace('"manager"', '"boss"'))
    ahead = cli("flows", "diff", run_id, "shop2.py:flow")
    assert "edge refuse -> pay added" in ahead.out
    assert ahead.err == f"run {run_id} can go on with it\n"
    stands = cli("flows", "diff", run_id, "shop3.py:flow")
    assert "people are asked there (ticket manager#1)" in stands.err
    lost = cli("flows", "diff", run_id, "shop3.py:flow", "-o", "json").json
    assert "node 'manager' removed" in lost["difference"]
    assert [(each["change"], each["final"]) for each in lost["objections"]] == [("node 'manager' removed", True)]


def test_stored_runs_are_replayed_and_a_script_is_told_where_the_flow_decides_otherwise(cli: Cli, tmp_path: Path) -> None:
    run_id = started(cli)
    same = cli("runs", "replay", run_id, "--flow", "shop.py:flow")
    assert (same.code, same.out.splitlines()[0]) == (ExitCode.OK, f"run {run_id}: match (7 of 7 checkpoints asked anew)"), same.out
    (tmp_path / "shop2.py").write_text(SHOP.replace("< 1000", "< 10000"))
    other = cli("runs", "replay", "--app", "shop2.py:flow")
    assert other.code == ExitCode.FLOW
    assert "today's graph would go join -> 'pay'" in other.out
    (told,) = cli("runs", "replay", "--app", "shop2.py:flow", "-o", "json").json
    assert (told["run_id"], told["matches"], len(told["divergences"])) == (run_id, False, 1)
    assert cli("runs", "replay", "--app", "shop2.py:flow", "-o", "ids").out == f"{run_id}\n"
    assert cli("runs", "replay").code == ExitCode.USAGE
    newest = started(cli, SMALL)
    replayed = cli("runs", "replay", "--app", "shop.py:flow", "--limit", "1", "-o", "json").json
    assert [told["run_id"] for told in replayed] == [newest]


def test_a_migration_that_cannot_be_applied_is_the_flow_s_fault(cli: Cli, tmp_path: Path) -> None:
    run_id = started(cli)
    moves = 'migrations=[Migration("1", state=lambda held: {"amounts": 1})], version="2"'
    text = SHOP.replace('"extra": Any})', f'"extra": Any}}, {moves})').replace("import END,", "import END, Migration,")
    (tmp_path / "shop2.py").write_text(text)
    changed = cli("resume", run_id, "--flow", "shop2.py:flow")
    assert changed.code == ExitCode.FLOW
    assert "cannot be migrated from version '1' to '2'" in one_line(changed.err)
    assert cli("flows", "diff", run_id, "shop2.py:flow").code == ExitCode.FLOW


def test_the_flow_of_another_run_is_refused(cli: Cli, tmp_path: Path) -> None:
    run_id = started(cli)
    (tmp_path / "other.py").write_text(SHOP.replace('Flow("order"', 'Flow("offer"'))
    assert cli("resume", run_id, "--flow", "other.py:flow").code == ExitCode.FLOW


# --- looking ------------------------------------------------------------------------------------------------------------
def test_runs_are_listed_newest_first_and_filtered(cli: Cli) -> None:
    done, waiting = started(cli, SMALL), started(cli, LARGE)
    assert cli("runs", "ls", "-o", "ids").out.split() == [waiting, done]
    assert cli("runs", "ls", "-o", "ids", "--status", "completed").out.split() == [done]
    assert cli("runs", "ls", "-o", "ids", "--flow", "offer").out == ""
    assert cli("runs", "ls", "-o", "ids", "--limit", "1").out.split() == [waiting]
    table = cli("runs", "ls").out.splitlines()
    assert table[0].split() == ["run", "flow", "status", "updated"]
    assert [line.split()[:3] for line in table[1:]] == [[waiting, "order", "waiting"], [done, "order", "completed"]]


def test_a_run_is_shown_with_its_place_its_tickets_and_its_decisions(cli: Cli) -> None:
    run_id = started(cli)
    cli("approvals", "approve", run_id, "manager", "--by", "ana", "--role", "finance", "--reason", "known vendor")
    shown = cli("runs", "show", run_id[:13])
    for words in (run_id, "waits at manager", "5 of at most 1000", "approve", "ana", "known vendor", "cli"):
        assert words in shown.out
    data = cli("runs", "show", run_id, "-o", "json").json
    assert data["stands"] == [{"path": "", "node": "manager", "phase": "parked"}]
    assert [(each["by"], each["source"]) for each in data["decisions"]] == [("ana", "cli")]


def test_steps_tell_node_branch_change_and_time(cli: Cli) -> None:
    run_id = started(cli, SMALL)
    steps = cli("runs", "steps", run_id, "-o", "json").json
    assert [step["kind"] for step in steps] == ["start", "step", "parallel", "step", "step", "join", "step"]
    assert {(step["path"], step["node"]) for step in steps} >= {("checks[0]", "stock"), ("checks[1]", "credit"), ("", "pay")}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", step["committed_at"]) for step in steps)
    table = cli("runs", "steps", run_id).out
    assert "checks[1] credit" in table
    assert "→ checks; wrote notes" in table
    assert cli("runs", "steps", run_id, "--after", "5", "-o", "ids").out.split() == ["6", "7"]


def test_the_state_of_any_checkpoint_and_what_changed_between_two(cli: Cli) -> None:
    run_id = started(cli, SMALL)
    assert cli("runs", "state", run_id, "--at", "2", "-o", "json").json["notes"] == ["read 3"]
    changed = cli("runs", "diff", run_id, "1", "2", "-o", "json").json
    assert changed == {"notes": {"after": ["read 3"]}}
    assert "(nothing)" in cli("runs", "diff", run_id, "1").out
    assert cli("runs", "diff", run_id, "2", "2").err == "nothing changed\n"


def test_a_fork_stands_where_the_original_stood_with_other_values(cli: Cli) -> None:
    run_id = started(cli)
    made = cli("runs", "fork", run_id, "--at", "2", "--set", "amount=5", "-o", "ids").out.strip()
    assert cli("resume", made, "--flow", "shop.py:flow", "-o", "json").json["values"]["notes"][-1] == "paid"
    assert cli("runs", "show", run_id, "-o", "json").json["status"] == "waiting"
    misfit = cli("runs", "fork", run_id, "--at", "2", "--set", "amount=many", "--flow", "shop.py:flow")
    assert misfit.code == ExitCode.USAGE
    assert "amount: " in one_line(misfit.err)
    assert "amuont" in one_line(cli("runs", "fork", run_id, "--set", "amuont=5").err)


def test_what_a_run_wrote_cannot_control_the_terminal(cli: Cli) -> None:
    run_id = started(cli, json.dumps({"amount": 3000, "vendor": "ACME\x1b[2K\rSafe \u202etxt", "extra": {"\x1b]0;x\x07": "\x9b1A"}}))
    for command in (("runs", "state", run_id), ("approvals", "show", run_id, "manager"), ("approvals", "ls"), ("runs", "show", run_id)):
        shown = cli(*command)
        assert not set("\x1b\r\x07\x9b\u202e") & set(shown.out + shown.err)


# --- deciding -----------------------------------------------------------------------------------------------------------
def test_a_ticket_is_listed_shown_approved_and_the_run_resumed(cli: Cli) -> None:
    run_id = started(cli)
    assert cli("approvals", "ls", "-o", "ids").out == f"{run_id} manager#1\n"
    assert "Pay ACME 3000.0?" in cli("approvals", "ls").out
    shown = cli("approvals", "show", run_id, "manager")
    for words in ("Pay ACME 3000.0?", "finance", 'vendor  "ACME"', "may be edited", '"maximum": 9999'):
        assert words in shown.out
    taken = cli("approvals", "approve", run_id, "manager#1", "--by", "ana", "--role", "finance", "-o", "json")
    assert taken.code == ExitCode.OK
    assert {key: taken.json[key] for key in ("action", "approves", "by", "source", "ticket")} == {
        "action": "approve", "approves": True, "by": "ana", "source": "cli", "ticket": "manager#1",
    }  # fmt: skip
    assert cli("resume", run_id, "--flow", "shop.py:flow", "-o", "json").json["values"]["notes"][-1] == "paid"
    assert "resolved" in cli("approvals", "show", run_id, "manager").out


def test_edits_approve_with_other_values_and_must_fit_the_form(cli: Cli) -> None:
    run_id = started(cli)
    approve = ("approvals", "approve", run_id, "manager", "--by", "ana", "--role", "finance")
    refused = cli(*approve, "--edit", "amount=10000")
    assert refused.code == ExitCode.USAGE
    assert "10000 is greater than the maximum" in one_line(refused.err)
    assert cli(*approve, "--edit", "amount=1500", "-o", "json").json["action"] == "modify"
    assert cli("resume", run_id, "--flow", "shop.py:flow", "-o", "json").json["values"]["amount"] == 1500


def test_a_rejection_takes_the_other_way(cli: Cli) -> None:
    run_id = started(cli)
    cli("approvals", "reject", run_id, "manager", "--by", "ana", "--role", "finance", "--reason", "too much")
    (decision,) = cli("approvals", "show", run_id, "manager", "-o", "json").json["decisions"]
    assert (decision["action"], decision["reason"]) == ("reject", "too much")
    assert cli("resume", run_id, "--flow", "shop.py:flow", "-o", "json").json["values"]["notes"][-1] == "refused"


def test_what_is_allowed_in_advance_is_listed_used_and_revoked(cli: Cli) -> None:
    started(cli)
    allow = ("approvals", "allow", "manager", "--flow", "order", "--uses", "2", "--until", "2d", "--by", "ana", "--role", "finance")
    grant = cli(*allow, "--reason", "known vendors", "-o", "json").json
    assert (grant["kind"], grant["action"], grant["uses"], grant["source"]) == ("allowance", "approve", 2, "cli")
    run_id = cli("run", "shop.py:flow", "--input", '{"amount": 3000, "vendor": "ACME"}', "-o", "json").json["run_id"]
    shown = cli("approvals", "show", run_id, "manager", "-o", "json").json["decisions"]
    assert [(each["by"], each["grant"], each["source"]) for each in shown] == [("ana", grant["id"], "allowance")]
    assert "unseen" in cli("approvals", "show", run_id, "manager").out
    assert cli("approvals", "allowed", "-o", "ids").out == f"{grant['id']}\n"
    assert "approve 2" in cli("approvals", "allowed").out
    assert cli("approvals", "revoke", grant["id"], "--by", "ben", "-o", "json").json["revoked_by"] == "ben"
    assert cli("approvals", "allowed", "-o", "json").json == []
    assert "revoked by ben" in " ".join(cli("approvals", "allowed", "--all").out.split())


def test_what_is_allowed_for_one_run_decides_no_other(cli: Cli) -> None:
    one, other = (started(cli, LARGE, "--max-steps", "1") for _ in range(2))
    ana = ("--by", "ana", "--role", "finance")
    grant = cli("approvals", "allow", "manager", "--run", one[-8:], "--uses", "5", "--until", "2d", *ana, "-o", "json").json
    assert grant["run_id"] == one
    ends = [cli("resume", run_id, "--flow", "shop.py:flow", "--max-steps", "50").code for run_id in (one, other)]
    assert ends == [ExitCode.OK, ExitCode.WAITING]


def test_what_is_allowed_is_listed_by_what_it_is_for_and_taken_back_with_a_reason(cli: Cli) -> None:
    run_id = started(cli, LARGE, "--max-steps", "1")
    ana = ("--by", "ana", "--role", "finance", "-o", "ids")
    of_the_run = cli("approvals", "allow", "manager", "--run", run_id, "--uses", "1", "--until", "2d", *ana).out.strip()
    of_the_flow = cli(
        "approvals", "delegate", "manager", "--flow", "order", "--to", "ben", "--until", "2d", "--reason", "on holiday", *ana
    ).out.strip()
    assert cli("approvals", "allowed", "-o", "ids").out.split() == [of_the_run, of_the_flow]
    assert cli("approvals", "allowed", "--run", run_id[-8:], "-o", "ids").out.split() == [of_the_run]
    assert cli("approvals", "allowed", "--flow", "order", "-o", "ids").out.split() == [of_the_flow]
    assert cli("approvals", "allowed", "--limit", "1", "-o", "ids").out.split() == [of_the_run]
    assert cli("approvals", "allowed", "-o", "json").json[1]["reason"] == "on holiday"
    revoked = cli("approvals", "revoke", of_the_flow, "--by", "ana", "--reason", "back again", "-o", "json").json
    assert (revoked["revoked_by"], revoked["revoked_because"]) == ("ana", "back again")


def test_an_allowance_that_makes_no_sense_is_refused_in_one_line(cli: Cli) -> None:
    started(cli)
    allow = ("approvals", "allow", "manager", "--flow", "order", "--uses", "2", "--until", "2d", "--by", "ana")
    changed = {"manager": "boss", "order": "ordre", "2d": "soon"}
    codes = {old: cli(*[new if word == old else word for word in allow], "--role", "finance").code for old, new in changed.items()}
    assert codes == {"manager": ExitCode.NOT_FOUND, "order": ExitCode.NOT_FOUND, "2d": ExitCode.USAGE}
    assert cli(*allow).code == ExitCode.USAGE  # ana is no approver without her role
    assert cli(*allow[:-2]).code == ExitCode.USAGE
    assert cli("approvals", "revoke", "nothing", "--by", "ana").code == ExitCode.NOT_FOUND
    assert cli("approvals", "allowed", "--all", "-o", "json").json == []


def test_what_is_allowed_or_delegated_is_for_whom_and_where_it_says(cli: Cli) -> None:
    started(cli)
    stated = (
        "--flow",
        "order",
        "--until",
        "2d",
        "--by",
        "ana",
        "--role",
        "finance",
        "--path",
        "orders[*]",
        "--tenant",
        "acme",
        "-o",
        "json",
    )
    allowed = cli("approvals", "allow", "manager", "--uses", "1", "--action", "reject", *stated).json
    assert (allowed["action"], allowed["path"], allowed["tenant"]) == ("reject", "orders[*]", "acme")
    delegated = cli("approvals", "delegate", "manager", "--to", "ben", *stated).json
    assert (delegated["to"], delegated["path"], delegated["tenant"]) == ("ben", "orders[*]", "acme")
    assert cli("approvals", "allowed", "-o", "json").json == []
    listed = cli("approvals", "allowed", "--tenant", "acme", "-o", "json").json
    assert [each["id"] for each in listed] == [allowed["id"], delegated["id"]]
    run_id = cli("run", "shop.py:flow", "--input", '{"amount": 3000, "vendor": "ACME"}', "-o", "json").json["run_id"]
    assert cli("approvals", "show", run_id, "manager", "-o", "json").json["decisions"] == [], "neither its tenant nor its place"


def test_a_delegate_decides_on_somebodys_behalf(cli: Cli) -> None:
    run_id = started(cli)
    given = cli("approvals", "delegate", "manager#1", "--run", run_id, "--to", "ben", "--by", "ana", "--role", "finance", "-o", "json").json
    assert (given["to"], given["ticket"], given["run_id"]) == ("ben", "manager#1", run_id)
    taken = cli("approvals", "approve", run_id, "manager", "--by", "ben", "--for", "ana", "-o", "json").json
    assert (taken["by"], taken["on_behalf_of"], taken["grant"]) == ("ben", "ana", given["id"])
    assert "ben for ana" in cli("approvals", "show", run_id, "manager").out


def test_a_delegate_rejects_what_they_saw_on_somebodys_behalf(cli: Cli) -> None:
    run_id = started(cli)
    cli("approvals", "delegate", "manager#1", "--run", run_id, "--to", "ben", "--by", "ana", "--role", "finance")
    reject = ("approvals", "reject", run_id, "manager", "--by", "ben", "--for")
    assert cli("approvals", "reject", run_id, "manager", "--by", "ben", "--for", "carl").code == ExitCode.CONFLICT
    assert cli(*reject, "ana", "--seen", "0123456789").code == ExitCode.CONFLICT
    digest = cli("approvals", "show", run_id, "manager", "-o", "json").json["digest"]
    taken = cli(*reject, "ana", "--seen", digest[:8], "-o", "json").json
    assert (taken["action"], taken["by"], taken["on_behalf_of"], taken["seen"]) == ("reject", "ben", "ana", digest)


def test_as_many_tickets_are_listed_as_are_asked_for_oldest_first(cli: Cli) -> None:
    oldest, _newest = started(cli), started(cli)
    assert cli("approvals", "ls", "--limit", "1", "-o", "ids").out == f"{oldest} manager#1\n"


def test_nobodys_name_is_guessed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = started(cli)
    for command in (("approvals", "approve", run_id, "manager"), ("approvals", "reject", run_id, "manager"), ("runs", "cancel", run_id)):
        refused = cli(*command)
        assert refused.code == ExitCode.USAGE
        assert "--by NAME" in one_line(refused.err)
    monkeypatch.setenv("TRAILMARK_USER", "ben")
    taken = cli("approvals", "approve", run_id, "manager", "--role", "finance", "-o", "json")
    assert taken.json["by"] == "ben"


def test_refused_decisions_end_with_7_and_change_nothing(cli: Cli) -> None:
    run_id = started(cli)
    stranger = cli("approvals", "approve", run_id, "manager", "--by", "ana")
    assert (stranger.code, "approvers are: finance" in one_line(stranger.err)) == (ExitCode.CONFLICT, True)
    stale = cli("approvals", "approve", run_id, "manager", "--by", "ana", "--role", "finance", "--seen", "0123456789")
    assert stale.code == ExitCode.CONFLICT
    assert one_line(stale.err).endswith(f"next: trailmark approvals show {run_id} 'manager#1'")
    digest = cli("approvals", "show", run_id, "manager", "-o", "json").json["digest"]
    approve = ("approvals", "approve", run_id, "manager", "--by", "ana", "--role", "finance")
    assert cli(*approve, "--seen", digest[:8]).code == ExitCode.OK
    assert cli(*approve).code == ExitCode.OK
    other = cli("approvals", "reject", run_id, "manager", "--by", "ben", "--role", "finance")
    assert (other.code, "already decided by ana" in one_line(other.err)) == (ExitCode.CONFLICT, True)


def test_a_barrier_may_be_decided_before_it_is_reached(cli: Cli) -> None:
    run_id = cli("run", "shop.py:flow", "-i", LARGE, "--max-steps", "1", "-o", "ids").out.strip()
    assert "not open yet" in cli("approvals", "show", run_id, "manager").out
    early = cli("approvals", "approve", run_id, "manager", "--by", "ana", "--role", "finance")
    assert "before it was asked" in early.out
    done = cli("resume", run_id, "--flow", "shop.py:flow", "--max-steps", "50", "-o", "json")
    assert (done.code, done.json["values"]["notes"][-1]) == (ExitCode.OK, "paid")


def test_a_time_behind_the_calendars_last_year_hides_nothing_from_anybody(cli: Cli, tmp_path: Path) -> None:
    far = "flow.add_barrier('ok', timeout=timedelta(days=4_000_000)).set_entry('ok').add_edge('ok', END)"
    (tmp_path / "far.py").write_text(f"from datetime import timedelta\nfrom trailmark import END, Flow\nflow = Flow('far', {{}})\n{far}\n")
    run_id = cli("run", "far.py:flow", "--input", "{}", "-o", "ids").out.strip()
    allow = ("approvals", "allow", "ok", "--flow", "far", "--uses", "1", "--by", "ana", "--until")
    assert cli(*allow, "4000000d").code == ExitCode.OK
    for command in (("approvals", "ls"), ("approvals", "show", run_id, "ok"), ("runs", "show", run_id), ("approvals", "allowed")):
        assert "9999-12-31" in cli(*command, "-o", "json").out
        assert cli(*command).code == ExitCode.OK
    for wrong in ("\u00b2d", "9" * 30 + "d", "9999-12-31"):
        assert cli(*allow, wrong).code == ExitCode.USAGE
    assert cli("db", "prune", "--older-than", "9" * 30 + "d").code == ExitCode.USAGE


def test_a_decision_for_a_later_visit_is_listed_until_it_counts(cli: Cli) -> None:
    run_id = started(cli)
    early = cli("approvals", "approve", run_id, "manager#7", "--by", "ana", "--role", "finance", "--reason", "on holiday")
    assert "it counts when the run opens manager#7, and not before" in " ".join(early.out.split())
    listed = " ".join(cli("approvals", "ls").out.split())
    assert re.search(rf"decided early: counts when the run comes there .*{run_id} manager#7 approve ana on holiday", listed)
    shown = cli("approvals", "show", run_id, "manager").out
    assert "decided early, for later visits" in shown
    assert "manager#7" in shown
    assert "decided early" not in cli("approvals", "show", run_id, "manager#7").out
    assert cli("approvals", "show", run_id, "manager#7", "-o", "json").json["decisions"][0]["early"] is True


# --- flows --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("form", "words"), [("text", "barrier manager"), ("mermaid", "flowchart TD"), ("dot", "digraph"), ("svg", "<svg ")]
)
def test_a_flow_is_drawn_in_every_form(cli: Cli, form: str, words: str) -> None:
    assert words in cli("flows", "graph", "shop.py:flow", "--format", form).out


def test_a_run_is_drawn_from_the_store_alone_with_the_path_it_took(cli: Cli, tmp_path: Path) -> None:
    run_id = started(cli)
    (tmp_path / "shop.py").unlink()
    drawn = cli("flows", "graph", "--run", run_id)
    assert "path taken: read -> checks -> " in drawn.out
    assert "stands at: manager" in drawn.out
    assert "class n" in cli("flows", "graph", "--run", run_id, "--format", "mermaid").out
    assert cli("flows", "graph", "--run", run_id, "-o", "json").json["current"] == ["manager"]


def test_the_shape_of_a_flow_is_shown_from_its_code_and_from_a_run(cli: Cli, tmp_path: Path) -> None:
    shown = cli("flows", "show", "shop.py:flow")
    assert "depth 5" in " ".join(shown.out.split())
    run_id = started(cli)
    from_code = cli("flows", "show", "shop.py:flow", "-o", "json").json
    assert [node["name"] for node in from_code["nodes"] if not node["path"]] == ["read", "pay", "refuse", "checks", "manager"]
    (tmp_path / "shop.py").unlink()
    assert cli("flows", "show", "--run", run_id, "-o", "json").json == from_code
    assert cli("flows", "show", "--run", run_id, "-o", "ids").out.splitlines()[-1] == "checks[1].credit"


def test_two_flows_are_compared_also_with_the_flow_a_run_has(cli: Cli, tmp_path: Path) -> None:
    run_id = started(cli)
    (tmp_path / "later.py").write_text(SHOP.replace('approvers={"finance"}', 'approvers={"boss"}'))
    words = 'node \'manager\': approvers ["finance"] -> ["boss"]'
    assert cli("flows", "diff", "shop.py:flow", "later.py:flow").out.strip() == words
    told = cli("flows", "diff", run_id, "later.py:flow", "-o", "json").json
    assert (told["same"], told["difference"]) == (False, [words])
    same = cli("flows", "diff", run_id, "shop.py:flow")
    assert (same.out, same.err.strip()) == ("", "no difference")


def test_validation_lists_all_problems_and_ends_with_8(cli: Cli, tmp_path: Path) -> None:
    assert "is valid: 5 nodes" in cli("flows", "validate", "shop.py:flow").out
    (tmp_path / "bad.py").write_text(
        'from trailmark import Flow\nflow = Flow("bad", {"n": int})\n'
        "@flow.node\ndef a(state): ...\n@flow.node\ndef b(state): ...\nflow.set_entry('a')\nflow.add_edge('a', 'nowhere')\n"
    )
    bad = cli("flows", "validate", "bad.py:flow", "-o", "json")
    assert (bad.code, bad.json["valid"]) == (ExitCode.FLOW, False)
    assert len(bad.json["problems"]) >= 2
    assert cli("flows", "validate", "bad.py:flow").out.count("problem: ") == len(bad.json["problems"])
    ran = cli("run", "bad.py:flow")
    assert ran.code == ExitCode.FLOW
    assert "nowhere" in one_line(ran.err)


@pytest.mark.parametrize(
    ("reference", "code", "words"),
    [
        ("shop.py", ExitCode.USAGE, "write module:name or file.py:name"),
        ("a b:flow", ExitCode.USAGE, "neither a module nor a .py file"),
        ("nowhere:flow", ExitCode.FLOW, "there is no module 'nowhere'"),
        ("nowhere.py:flow", ExitCode.FLOW, "there is no file nowhere.py"),
        ("shop.py:flaw", ExitCode.FLOW, "it has the flow(s): shop.py:flow"),
        ("shop.py:SHOP_LIMITS", ExitCode.FLOW, "has no 'SHOP_LIMITS'"),
        ("shop.py:LIMITS", ExitCode.FLOW, "has a dict called 'LIMITS', which is no Flow"),
        ("broken.py:flow", ExitCode.FLOW, "importing"),
        ("needs.py:flow", ExitCode.FLOW, "No module named 'not_installed_here'"),
    ],
)
def test_a_flow_that_cannot_be_loaded_is_told_in_one_line(cli: Cli, tmp_path: Path, reference: str, code: ExitCode, words: str) -> None:
    (tmp_path / "broken.py").write_text("flow = \n")
    (tmp_path / "needs.py").write_text("import not_installed_here\n")
    refused = cli("run", reference)
    assert refused.code == code
    assert words in one_line(refused.err)
    assert not (tmp_path / "trailmark.db").exists()


# --- the store ----------------------------------------------------------------------------------------------------------
def test_the_store_is_named_by_option_then_environment_then_default(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("run", "shop.py:flow", "-i", SMALL)
    monkeypatch.setenv("TRAILMARK_STORE", "env.db")
    cli("run", "shop.py:flow", "-i", SMALL)
    named = cli("--store", f"sqlite+aiosqlite:///{tmp_path / 'option.db'}", "run", "shop.py:flow", "-i", LARGE)
    assert f"next: trailmark --store sqlite+aiosqlite:///{tmp_path / 'option.db'} approvals approve" in named.err
    assert {file.name for file in tmp_path.glob("*.db")} == {"trailmark.db", "env.db", "option.db"}
    assert len(cli("runs", "ls", "-o", "ids", "--store", "option.db").out.split()) == 1


def test_looking_makes_no_file_and_a_store_that_is_not_there_ends_with_9(cli: Cli, tmp_path: Path) -> None:
    for command in (("runs", "ls"), ("approvals", "ls"), ("db", "stats"), ("runs", "show", "0123456789"), ("db", "verify", "--all")):
        looked = cli(*command)
        assert looked.code == ExitCode.STORE
        assert "there is no such file" in one_line(looked.err)
    assert not list(tmp_path.glob("*.db*"))


@pytest.mark.parametrize("url", ["mysql://localhost/x", "postgresql+asyncpg://127.0.0.1:1/x", "nowhere/runs.db"])
def test_a_store_that_cannot_be_opened_ends_with_9(cli: Cli, url: str) -> None:
    refused = cli("run", "shop.py:flow", "-i", SMALL, "--store", url)
    assert refused.code == ExitCode.STORE
    assert "cannot be used" in one_line(refused.err)


OVER_A_STORE = [
    ("run", "shop.py:flow"), ("resume", "0123456789", "--flow", "shop.py:flow"), ("worker", "--app", "shop.py:flow", "--until-idle"),
    ("runs", "ls"), ("runs", "replay", "--flow", "shop.py:flow"), ("runs", "import", "shop.py"), ("runs", "diff", "0123456789", "1"),
    ("runs", "signal", "0123456789", "paid"), ("runs", "cancel", "0123456789", "--by", "ana"), ("runs", "release", "0123456789", "--by", "ana"),
    ("runs", "edit", "0123456789", "--flow", "shop.py:flow", "--set", "amount=5", "--by", "ana"), ("runs", "fork", "0123456789"),
    ("runs", "resolve-effect", "0123456789", "debit", "--not-done", "--by", "ana"),
    *(("runs", word, "0123456789") for word in ("show", "steps", "state", "events", "effects", "check", "export", "delete")),
    ("approvals", "ls"), ("approvals", "allowed"), ("approvals", "show", "0123456789", "manager"),
    *(("approvals", word, "0123456789", "manager", "--by", "ana") for word in ("approve", "reject")),
    ("approvals", "allow", "manager", "--flow", "order", "--uses", "1", "--until", "2d", "--by", "ana"),
    ("approvals", "delegate", "manager", "--flow", "order", "--until", "2d", "--to", "ben", "--by", "ana"),
    ("approvals", "revoke", "0123456789", "--by", "ana"),
    ("flows", "graph", "--run", "0123456789"), ("flows", "show", "--run", "0123456789"), ("flows", "diff", "0123456789", "shop.py:flow"),
    ("db", "upgrade"), ("db", "verify", "--all"), ("db", "prune", "--older-than", "1d"), ("db", "vacuum"), ("db", "stats"),
]  # fmt: skip


@pytest.mark.parametrize("command", OVER_A_STORE, ids=lambda command: " ".join(command[:2]))
def test_every_command_uses_the_store_it_is_told_and_shows_the_traceback_where_it_is_asked_to(cli: Cli, command: tuple[str, ...]) -> None:
    told = cli(*command, "--store", "nowhere/runs.db", "--debug")
    assert (told.code, "nowhere/runs.db" in told.err, "Traceback" in told.err) == (ExitCode.STORE, True, True)
    assert "Traceback" not in cli(*command, "--store", "nowhere/runs.db").err


def test_only_what_needs_no_store_is_not_among_those_commands() -> None:
    groups = {name: getattr(command, "commands", None) for name, command in typer.main.get_command(app).commands.items()}  # type: ignore[attr-defined]
    known = {f"{name} {each}" if each else name for name, inside in groups.items() for each in inside or [""]}
    assert known - {" ".join(command[: 2 if groups[command[0]] else 1]) for command in OVER_A_STORE} == {"demo", "flows validate"}


def test_asked_for_ids_what_is_about_the_whole_store_says_no_sentence(cli: Cli) -> None:
    schema = cli("db", "upgrade", "-o", "json").json["schema"]
    assert [cli("db", word, "-o", "ids").out for word in ("upgrade", "vacuum")] == [f"{schema}\n", ""]


def test_a_store_of_a_newer_trailmark_ends_with_9(cli: Cli, tmp_path: Path) -> None:
    made = cli("db", "upgrade", "-o", "json").json
    assert (made["url"], cli("db", "stats", "-o", "json").json["schema"]) == ("sqlite+aiosqlite:///trailmark.db", made["schema"])
    with sqlite3.connect(tmp_path / "trailmark.db") as database:
        database.execute("UPDATE trailmark_schema SET version_num = '9999'")
    database.close()
    refused = cli("runs", "ls")
    assert refused.code == ExitCode.STORE
    assert "install a newer trailmark" in one_line(refused.err)


def test_damage_is_found_named_and_ends_with_10(cli: Cli, tmp_path: Path) -> None:
    run_id, sound = started(cli, SMALL), started(cli, SMALL)
    assert cli("db", "verify", "--all").out == "2 runs verified: sound\n"
    with sqlite3.connect(tmp_path / "trailmark.db") as database:
        database.execute(
            "UPDATE checkpoints SET payload = X'315B5D' WHERE seq = 4 AND run_id = ?", [bytes.fromhex(run_id.replace("-", ""))]
        )
    database.close()
    verified = cli("db", "verify", "--all", "-o", "json")
    assert verified.code == ExitCode.CORRUPT
    assert {problem["run_id"] for problem in verified.json["problems"]} == {run_id}
    assert cli("db", "verify", "--all", "-o", "ids").out == f"{run_id}\n"
    assert cli("db", "verify", sound).code == ExitCode.OK
    state = cli("runs", "state", run_id)
    assert state.code == ExitCode.CORRUPT
    assert one_line(state.err).endswith(f"next: trailmark db verify {run_id}")
    assert cli("runs", "state", run_id, "--at", "3").code == ExitCode.OK


def test_a_checked_run_is_told_in_every_form(cli: Cli, tmp_path: Path) -> None:
    run_id = started(cli)
    cli("approvals", "approve", run_id, "manager", "--by", "ana", "--role", "finance")
    cli("resume", run_id, "--flow", "shop.py:flow")
    assert cli("runs", "check", run_id, "-o", "json").json["problems"] == []
    assert cli("runs", "check", run_id, "-o", "ids").out == ""
    with sqlite3.connect(tmp_path / "trailmark.db") as database:
        database.execute("UPDATE decisions SET actor = 'eve'")
    database.close()
    broken = cli("runs", "check", run_id, "-o", "json")
    assert broken.code == ExitCode.CORRUPT
    assert broken.json["problems"]
    assert cli("runs", "check", run_id, "-o", "ids").out.split() == [str(each["seq"]) for each in broken.json["problems"]]


def test_stats_count_runs_by_status(cli: Cli) -> None:
    started(cli, SMALL)
    started(cli, LARGE)
    assert cli("db", "stats", "-o", "json").json["runs"] == {"completed": 1, "waiting": 1}
    assert "1 completed, 1 waiting" in cli("db", "stats").out


# --- mistakes -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("runs", "lss"), "next: trailmark runs --help"),
        (("runs", "ls", "--limit", "x"), "next: trailmark runs ls --help"),
        (("runs", "ls", "--status", "asleep"), "'asleep' is not one of 'created'"),
        (("run",), "next: trailmark run --help"),
        (("run", "shop.py:flow", "--input", "{"), "--input holds no JSON"),
        (("run", "shop.py:flow", "--input", "[1]"), "holds a JSON list"),
        (("run", "shop.py:flow", "--input", "gone.json"), "--input gone.json: No such file"),
        (("run", "shop.py:flow", "--input", '{"amount": "x"}'), "the input does not fit flow 'order'"),
        (("run", "shop.py:flow", "--label", "team"), "--label key=value"),
        (("db", "verify"), "say which run, or --all"),
        (("flows", "validate"), "say which flow"),
    ],
)
def test_a_mistake_on_the_command_line_ends_with_2_in_one_line(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    cli("run", "shop.py:flow", "-i", SMALL)
    refused = cli(*arguments)
    assert refused.code == ExitCode.USAGE
    assert words in one_line(refused.err)
    assert refused.out == ""


def test_a_run_is_found_by_the_end_of_its_id_and_those_that_fit_are_named(cli: Cli) -> None:
    runs = [started(cli) for _ in range(3)]  # of three in a row, two begin alike at least
    first, second = next(pair for pair in pairwise(runs) if pair[0][:8] == pair[1][:8])
    ambiguous = cli("runs", "show", first[:8])
    assert (ambiguous.code, ambiguous.out) == (ExitCode.USAGE, "")
    assert first in one_line(ambiguous.err)
    assert second in one_line(ambiguous.err)
    assert re.search(rf"next: trailmark runs show ({first[-8:]}|{second[-8:]})$", one_line(ambiguous.err))
    assert first in cli("runs", "show", first[-8:]).out


def test_what_is_not_there_ends_with_6(cli: Cli) -> None:
    run_id = started(cli)
    gone = cli("runs", "show", "00000000-0000-7000-8000-000000000000")
    assert (gone.code, one_line(gone.err).endswith("next: trailmark runs ls")) == (ExitCode.NOT_FOUND, True)
    assert "its first or last 8 characters do" in one_line(cli("runs", "show", "0123").err)
    assert "no run's id begins or ends with '0123456789'" in one_line(cli("runs", "show", "0123456789").err)
    beyond = cli("runs", "state", run_id, "--at", "99")
    assert (beyond.code, "has no checkpoint 99" in one_line(beyond.err)) == (ExitCode.NOT_FOUND, True)
    unknown = cli("approvals", "show", run_id, "boss")
    assert (unknown.code, "its barriers are: manager" in one_line(unknown.err)) == (ExitCode.NOT_FOUND, True)


def test_what_has_ended_ends_with_7(cli: Cli) -> None:
    run_id = started(cli, SMALL)
    for command in (
        ("runs", "cancel", run_id, "--by", "ana"), ("runs", "fork", run_id), ("approvals", "approve", run_id, "manager", "--by", "ana"),
    ):  # fmt: skip
        refused = cli(*command)
        assert refused.code == ExitCode.CONFLICT
        assert "completed" in one_line(refused.err)


def test_an_error_nobody_expected_ends_with_70_and_asks_for_debug(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from trailmark import Flow\nclass Odd(Flow):\n    def compile(self):\n        raise KeyError('odd')\nflow = Odd('odd', {'n': int})\n"
    )
    odd = cli("run", "odd.py:flow")
    assert odd.code == ExitCode.BUG
    assert one_line(odd.err) == "trailmark: KeyError: 'odd' (--debug shows where)"
    assert "Traceback" in cli("run", "odd.py:flow", "--debug").err


def test_the_version_and_the_help_are_there(cli: Cli) -> None:
    assert cli("--version").out.startswith("trailmark 0.")
    shown = cli("--help")
    assert shown.code == ExitCode.OK
    for word in ("run", "resume", "runs", "approvals", "flows", "db", "demo"):
        assert word in shown.out
    bare = cli("runs")
    assert (bare.code, bare.err) == (ExitCode.USAGE, "")
    assert "cancel" in bare.out


def test_the_password_of_a_store_is_never_shown(cli: Cli) -> None:
    refused = cli("runs", "show", "0123", "--store", "postgresql+asyncpg://ana:secret@127.0.0.1:1/runs")
    assert refused.code == ExitCode.STORE
    assert "secret" not in refused.err
    assert "'postgresql+asyncpg://ana:***@127.0.0.1:1/runs'" in Terminal("postgresql+asyncpg://ana:secret@127.0.0.1:1/runs").command(
        "runs", "ls"
    )


def test_a_fallback_and_a_retry_are_told_as_such() -> None:
    failed = Row(
        "r",
        3,
        1,
        2,
        "fallback",
        "checks[1]",
        "pay",
        "queue",
        pack([["error", {"type": "OSError", "message": "no\nline"}]])[0],
        10,
        b"",
        30_010,
    )
    line = told(failed)
    assert (line.sign, line.name, line.took, line.depth) == ("⤳", "checks[1] pay", "30 ms", 1)
    assert line.detail == "→ queue; OSError: no; line"
    assert drawn(line).plain == "    ⤳ checks[1] pay" + " " * 18 + "30 ms  → queue; OSError: no; line"


def test_the_same_commands_work_on_postgresql(cli: Cli, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAILMARK_STORE", postgres_url)
    assert cli("db", "upgrade").code == ExitCode.OK
    run_id = started(cli)
    assert cli("runs", "ls", "-o", "ids").out == f"{run_id}\n"
    assert cli("approvals", "approve", run_id[:18], "manager", "--by", "ana", "--role", "finance").code == ExitCode.OK
    assert cli("resume", run_id, "--flow", "shop.py:flow").code == ExitCode.OK
    assert cli("db", "verify", "--all").out == "1 run verified: sound\n"
    assert len(cli("runs", "steps", run_id, "-o", "json").json) == 10


def test_what_nodes_print_does_not_mix_with_output_for_programs(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        """
from trailmark import END, Flow

flow = Flow("loud", {"n": int})


@flow.node
def shout(state):
    print("I am here")
    return {"n": 1}


flow.set_entry("shout").add_edge("shout", END)
"""
    )
    assert cli("run", "loud.py:flow", "-o", "json").json["values"] == {"n": 1}
    assert "I am here" in cli("run", "loud.py:flow").out


def test_a_waiting_run_says_that_its_ticket_is_decided_and_what_to_type(cli: Cli) -> None:
    run_id = started(cli)
    (ticket,) = (each["ticket"] for each in cli("runs", "show", run_id, "-o", "json").json["waiting_for"])
    assert cli("approvals", "approve", run_id, ticket, "--by", "ana", "--role", "finance", "--yes").code == ExitCode.OK
    assert cli("runs", "show", run_id, "-o", "json").json["decided"] == [ticket]
    shown = cli("runs", "show", run_id)
    assert f"{ticket}: decided" in shown.out + shown.err
    assert "resume" in shown.out + shown.err


RETRIED = """
from datetime import timedelta
from pathlib import Path
from trailmark import END, Flow, Retry

flow = Flow("late", {"n": int, "odd": list})

@flow.node(retry=Retry(attempts=3, first=timedelta(hours=1), jitter=0))
async def call(state):
    if not Path("up").exists():
        raise ConnectionError("nobody\\nanswers")
    return {"n": 1}

flow.set_entry("call").add_edge("call", END)
"""


def test_a_run_that_waits_for_a_retry_says_which_node_why_and_until_when(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(RETRIED)
    parked = cli("run", "late.py:flow", "-o", "json")
    run_id, (retry,) = parked.json["run_id"], parked.json["retries"]
    assert (parked.code, retry["node"], retry["failed"]) == (ExitCode.WAITING, "call", 1)
    assert (retry["error"]["type"], retry["error"]["message"]) == ("ConnectionError", "nobody\nanswers")
    shown = cli("runs", "show", run_id)
    due = retry["due"][:19].replace("T", " ")
    assert re.search(rf"call +{due} +1 +ConnectionError: nobody; answers\n", shown.out)
    assert shown.err == f"next: trailmark resume {run_id} --flow MODULE:NAME --through-barriers\n"
    assert cli("runs", "show", run_id, "-o", "json").json["retries"] == [retry]
    again = cli("resume", run_id, "--flow", "late.py:flow")
    assert (again.code, again.err) == (ExitCode.WAITING, f"next: trailmark resume {run_id} --flow late.py:flow --through-barriers\n")
    assert re.search(rf"call +{due} +1 +ConnectionError: nobody; answers\n", again.out)


def test_a_retry_whose_time_has_come_is_resumed_at_once(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(RETRIED)
    run_id = cli("run", "late.py:flow", "-o", "ids").out.strip()
    with sqlite3.connect("trailmark.db") as connection:
        connection.execute("UPDATE runs SET wake_at = 1")
    connection.close()
    assert cli("runs", "show", run_id).err == f"next: trailmark resume {run_id} --flow MODULE:NAME\n"


def test_every_stop_says_what_to_type_next(cli: Cli) -> None:
    limited = cli("run", "shop.py:flow", "--input", SMALL, "--max-steps", "2", "-o", "ids").out.strip()
    assert cli("runs", "show", limited).err == f"next: trailmark resume {limited} --flow MODULE:NAME --max-steps 4\n"
    forked = cli("runs", "fork", limited, "--at", "2", "-o", "ids").out.strip()
    assert cli("runs", "show", forked).err == f"next: trailmark resume {forked} --flow MODULE:NAME\n"
    failed = cli("run", "shop.py:flow", "--input", FAILING, "-o", "ids").out.strip()
    assert cli("runs", "show", failed).err == f"next: trailmark runs steps {failed}\n"
    waiting = started(cli)
    assert cli("runs", "show", waiting).err == f"next: trailmark approvals show {waiting} 'manager#1'\n"
    assert cli("runs", "show", started(cli, SMALL)).err == ""


def test_steps_come_in_pages(cli: Cli) -> None:
    run_id = started(cli, SMALL)
    first = cli("runs", "steps", run_id, "--limit", "2")
    assert [line.split()[0] for line in first.out.splitlines()] == ["seq", "1", "2"]
    assert first.err == f"there are more; next: trailmark runs steps {run_id} --after 2 --limit 2\n"
    rest = cli("runs", "steps", run_id, "--after", "2", "--limit", "5")
    assert [line.split()[0] for line in rest.out.splitlines()] == ["seq", "3", "4", "5", "6", "7"]
    assert rest.err == ""
    assert cli("runs", "steps", run_id, "-n", "2", "-o", "ids").out == "1\n2\n"
    assert [step["seq"] for step in cli("runs", "steps", run_id, "-n", "2", "-o", "json").json] == [1, 2]
    assert cli("runs", "steps", run_id, "--after", "99", "-o", "json").json == []
    assert cli("runs", "steps", run_id, "--after", "99").out.split() == ["seq", "at", "kind", "node", "took", "what", "happened"]


def test_a_page_for_a_person_and_the_whole_for_a_file_read_alike(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = started(cli, SMALL)
    piped = cli("runs", "steps", run_id).out
    monkeypatch.setattr(Terminal, "is_screen", lambda _self: True)
    assert cli("runs", "steps", run_id).out == piped


def test_numbers_that_json_does_not_have_are_shown_as_numbers(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(RETRIED.replace('return {"n": 1}', 'return {"odd": [float("nan"), -float("inf"), "nan"]}'))
    (tmp_path / "up").touch()
    run_id = cli("run", "late.py:flow", "-o", "ids").out.strip()
    assert cli("runs", "state", run_id).out == 'odd  [NaN, -Infinity, "nan"]\n'
    assert cli("runs", "state", run_id, "-o", "json").json == {"odd": ["nan", "-inf", "nan"]}


# --- events -------------------------------------------------------------------------------------------------------------
def test_events_of_a_run_are_listed_one_a_line(cli: Cli) -> None:
    run_id = started(cli, SMALL)
    listed = cli("runs", "events", run_id)
    assert listed.code == ExitCode.OK
    lines = listed.out.splitlines()
    assert lines[0].startswith("1.1.0 ")
    assert "flow_start" in lines[0]
    assert lines[-1].split()[3:4] == ["flow_complete"]
    assert any("checks[1].credit" in line for line in lines)


def test_events_as_json_are_one_document_a_line_and_a_valid_stream(cli: Cli) -> None:
    run_id = started(cli, SMALL)
    told = [parse(line) for line in cli("runs", "events", run_id, "-o", "json").out.splitlines()]
    StreamChecker.check(told)
    ids = cli("runs", "events", run_id, "--after", told[3].id, "-o", "ids").out.split()
    assert ids == [envelope.id for envelope in told[4:]]


def test_events_of_a_run_that_waits_end_with_why(cli: Cli) -> None:
    run_id = started(cli)
    last = parse(cli("runs", "events", run_id, "-o", "json").out.splitlines()[-1])
    assert last.event.kind == "suspended"
    assert last.event.waiting_for == ["manager#1"]


@pytest.mark.parametrize("number", [1, 3, 7, 500])
def test_the_last_events_and_checkpoints_of_a_run_are_listed_by_their_number(cli: Cli, number: int) -> None:
    run_id = started(cli, SMALL)
    events = cli("runs", "events", run_id, "-o", "ids").out.split()
    assert cli("runs", "events", run_id, "--last", str(number), "-o", "ids").out.split() == events[-number:]
    assert cli("runs", "events", run_id, "--last", str(number), "--follow", "-o", "ids").out.split() == events[-number:]
    steps = cli("runs", "steps", run_id, "-o", "ids").out.split()
    assert cli("runs", "steps", run_id, "--last", str(number), "-o", "ids").out.split() == steps[-number:]


def test_the_last_and_those_behind_another_are_two_questions(cli: Cli) -> None:
    run_id = started(cli, SMALL)
    for asked in (("events", "--after", "1.1.0"), ("steps", "--after", "1"), ("steps", "--limit", "3")):
        assert cli("runs", *asked[:1], run_id, *asked[1:], "--last", "2").code == ExitCode.USAGE


def test_following_a_run_that_has_ended_ends(cli: Cli) -> None:
    run_id = started(cli, SMALL)
    assert cli("runs", "events", run_id, "--follow", "-o", "ids").out == cli("runs", "events", run_id, "-o", "ids").out


def test_what_is_no_event_id_is_a_mistake_of_whoever_typed_it(cli: Cli) -> None:
    run_id = started(cli, SMALL)
    refused = cli("runs", "events", run_id, "--after", "seven")
    assert refused.code == ExitCode.USAGE
    assert "an id looks like 1.7.2" in one_line(refused.err)


# --- signals ------------------------------------------------------------------------------------------------------------
WAITING = """
from trailmark import END, Flow

flow = Flow("waiting", {"paid": int}).add_wait("payment", "paid", to="paid", type=int)
flow.set_entry("payment").add_edge("payment", END)
"""


def test_a_run_that_waits_for_a_signal_says_how_to_send_it_and_goes_on_with_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    parked = cli("run", "waiting.py:flow", "-o", "json")
    run_id = parked.json["run_id"]
    assert parked.json["waits"] == [{"node": "payment", "path": "", "signal": "paid", "due": None}]
    assert f"next: trailmark runs signal {run_id} paid" in cli("runs", "show", run_id).err
    refused = cli("runs", "signal", run_id, "paid", "seven")
    assert refused.code == ExitCode.USAGE
    assert cli("runs", "signal", run_id, "payed", "7").code == ExitCode.NOT_FOUND
    assert "'seven' is not of type 'integer'" in refused.err
    sent = cli("runs", "signal", run_id, "paid", "7", "--by", "bank", "--id", "one", "-o", "json").json
    assert (sent["signal"], sent["payload"], sent["by"], sent["consumed_seq"]) == ("paid", 7, "bank", None)
    assert cli("runs", "signal", run_id, "paid", "7", "--id", "one", "-o", "ids").out.strip() == sent["id"]
    assert cli("resume", run_id, "--flow", "waiting.py:flow", "-o", "json").json["values"] == {"paid": 7}
