"""The demo, played by real processes over a small site directory, and the parts it is made of."""

import asyncio
import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from checkpoint_stores.records import Row
from trailmark import Decision
from trailmark.checkpoint_stores import BarrierRecord, RunRecord, open_store
from trailmark.demo.audit_checks import check_dependencies, check_files, read_sites
from trailmark.demo.drama import run_demo
from trailmark.demo.environment_audit import audit_flow, flow
from trailmark.demo.journal import Entry, Ran, account, journalled, read_journal
from trailmark.demo.scratch import UNREADABLE, is_scratch, make_scratch_site
from trailmark.demo.screen import path_lines, visits_of
from trailmark.demo.worker_process import WorkerProcess, WorkerSilentError

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/environment_audit.py"


def install(site: Path, name: str) -> None:
    """A distribution of one module, with a RECORD that fits."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}/__init__.py": f"name = {name!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense-Expression: MIT\n",
    }
    record = []
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text, encoding="utf-8")
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text)}")
    (site / info / "RECORD").write_text("\n".join([*record, f"{info}/RECORD,,", ""]), encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site") / "site-packages"
    for name in "abcdef":
        install(made, name)
    return made


def command(*arguments: object) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
    environment.pop("FORCE_COLOR", None)
    return {"args": [sys.executable, str(EXAMPLE), *map(str, arguments)], "env": environment, "encoding": "utf-8"}


def play(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Play it where nobody sits at a terminal."""
    return subprocess.run(
        **command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False
    )


def trailmark(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same by the command that is installed, where nobody sits at a terminal."""
    return subprocess.run(
        **command() | {"args": [sys.executable, "-m", "trailmark", *map(str, arguments)]}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False,
    )  # fmt: skip


def only(pattern: str, output: str) -> tuple[str, ...]:
    """What the groups of ``pattern`` hold; it must stand in the output exactly once."""
    found = re.findall(pattern, output)
    assert len(found) == 1, f"{pattern!r} is there {len(found)} times in:\n{output}"
    return found[0] if isinstance(found[0], tuple) else (found[0],)


def in_store(reports: Path) -> list[tuple[RunRecord, list[Row], list[BarrierRecord]]]:
    """Each run of the demo's store, oldest first, with its checkpoints and open tickets."""

    async def read() -> list[tuple[RunRecord, list[Row], list[BarrierRecord]]]:
        async with open_store(f"sqlite+aiosqlite:///{reports / 'runs.db'}") as store:
            runs = reversed(await store.runs())
            return [(run, [row async for row in store.history(run.run_id)], await store.barriers(run_id=run.run_id)) for run in runs]

    return asyncio.run(read())


def facts_in(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "environment-audit.json").read_text(encoding="utf-8"))
    return facts


# --- the whole story --------------------------------------------------------------------------------------------------


def test_a_worker_is_killed_another_resumes_without_doing_anything_again_and_a_decision_ends_it(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = tmp_path / "reports"
    played = play(site, "--reports", reports, "--decision", "approve", "--by", "ana", "--reason", "it is a copy")
    output = played.stdout
    assert played.returncode == 0, output

    (killed, exit_code) = only(r"process (\d+) is killed \(SIGKILL, exit code (-?\d+)\) in batch 4 of 7", output)
    workers = re.findall(r"process (\d+): python -m trailmark\.demo\.worker", output)
    assert len(set(workers)) == 3
    assert (killed, int(exit_code)) == (workers[0], -signal.SIGKILL)
    # Six of the site and one of the scratch site; three batches were committed when the fourth was in flight.
    assert only(r"verified +(\d+) files, of (\d) of the (\d) distributions", output) == ("6", "3", "7")
    assert only(r"verify_batch +(\d+) +(\d+) +one was in flight", output) == ("7", "8")
    assert "No step that was committed ran again." in output
    (first, second) = only(r"verify_batch, entry 4, ran in process (\d+) \(killed\) and in (\d+)", output)
    assert [first, second] == workers[:2]
    assert "with the same idempotency key" in output
    assert "approve by ana: 'it is a copy'" in output
    assert re.search(r"^    ✓ accepted$", output, re.MULTILINE)
    assert re.search(r"^    · refused$", output, re.MULTILINE)

    # What it says is so: the books, read by ourselves.
    ((run, rows, tickets),) = in_store(reports)
    assert (run.status, run.attempt, tickets) == ("completed", 3, [])
    ran = Counter((ran.entry, ran.key) for ran in read_journal(reports / "1/journal.jsonl"))
    assert {entry: count for (entry, _key), count in ran.items() if count > 1}.get(Entry("checks[0]", "verify_batch", 4)) == 2
    assert [count for (entry, _key), count in ran.items() if entry.node == "verify_batch"].count(1) == 6
    assert sum(row.node == "verify_batch" for row in rows) == 7

    facts = facts_in(reports / "1")
    (decision,) = facts["decisions"]
    assert (facts["verdict"], decision["by"], decision["reason"], decision["outcome"]) == ("accepted", "ana", "it is a copy", "accepted")
    assert {found["id"] for found in facts["findings"]} == {
        "tampered:demo-copy-of-a",
        "dependency:demo-copy-of-a",
        f"unreadable-metadata:{UNREADABLE}",
    }
    assert sorted(path.name for path in (reports / "1").iterdir()) == [
        "environment-audit.json", "environment-audit.md", "graph.mmd", "graph.svg", "journal.jsonl",
    ]  # fmt: skip
    assert "ana" in (reports / "1/environment-audit.md").read_text(encoding="utf-8")

    # Played again in the same place, and refused: the first run and its reports stay as they are.
    assert run_demo(sites=[site], reports=reports, decision="reject", by="ben", keep=True) == 0
    assert "reject by ben" in capsys.readouterr().out
    assert (facts_in(reports / "2")["verdict"], facts_in(reports / "2")["decisions"][0]["by"]) == ("refused", "ben")
    assert facts_in(reports / "1") == facts
    assert [each.status for each, _rows, _tickets in in_store(reports)] == ["completed", "completed"]
    assert (reports / "2/scratch-site").is_dir()


def test_without_a_terminal_and_without_a_decision_nothing_is_decided_until_somebody_does(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = tmp_path / "reports"
    left = play(site, "--reports", reports)
    assert left.returncode == 3, left.stdout
    ((run, _rows, (ticket,)),) = in_store(reports)
    assert (run.status, run.owner, ticket.ticket) == ("waiting", None, "review#1")
    assert not (reports / "1/environment-audit.json").exists()
    assert f"approvals approve {run.run_id} 'review#1' --by NAME" in left.stdout
    assert f"demo --reports {reports} --resume {run.run_id}" in left.stdout

    async def decide() -> None:
        async with open_store(f"sqlite+aiosqlite:///{reports / 'runs.db'}") as store:
            await store.decide(run.run_id, "review", Decision.approve(by="ben", reason="from elsewhere"))

    asyncio.run(decide())
    assert run_demo(reports=reports, resume=run.run_id) == 0
    assert "A further process goes on" in capsys.readouterr().out
    assert facts_in(reports / "1")["decisions"][0]["by"] == "ben"
    # Once more: it is over, and only shown.
    assert run_demo(reports=reports, resume=run.run_id) == 0
    assert "trailmark.demo.worker" not in capsys.readouterr().out


def test_the_command_plays_it_over_a_site_and_asks_nobody_where_the_risk_is_low_enough(site: Path, tmp_path: Path) -> None:
    played = trailmark("demo", "--site", site, "--reports", tmp_path / "reports", "--threshold", "1000", "--batch", "4", "--keep")
    assert played.returncode == 0, played.stdout
    ((_run, rows, _tickets),) = in_store(tmp_path / "reports")
    # Six distributions of the site and one of the scratch site, four at a time.
    assert sum(row.node == "verify_batch" for row in rows) == 2
    assert facts_in(tmp_path / "reports/1")["decisions"] == []
    assert (tmp_path / "reports/1/scratch-site").is_dir()


def test_the_command_goes_on_with_a_run_that_waits_and_records_who_decided_and_why(site: Path, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    left = trailmark("demo", "--site", site, "--reports", reports)
    assert left.returncode == 3, left.stdout
    ((run, _rows, _tickets),) = in_store(reports)
    decided = trailmark("demo", "--reports", reports, "--resume", run.run_id, "--decision", "reject", "--by", "ana", "--reason", "too odd")
    assert decided.returncode == 0, decided.stdout
    facts = facts_in(reports / "1")
    assert (facts["verdict"], [(each["by"], each["reason"]) for each in facts["decisions"]]) == ("refused", [("ana", "too odd")])


def test_the_command_has_no_other_form_than_the_story_and_says_so(tmp_path: Path) -> None:
    for words, said in ((("-o", "json", "demo"), "no other output"), (("demo", "-o", "json"), "no such option: -o")):
        refused = trailmark(*words, "--reports", tmp_path / "reports")
        assert (refused.returncode, said in refused.stdout) == (2, True)
    assert not (tmp_path / "reports").exists()


@contextmanager
def at_a_terminal(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The demo with a terminal as its stdin, and where to type."""
    keyboard, terminal = os.openpty()
    process = subprocess.Popen(**command(*arguments), stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.close(terminal)
    try:
        yield process, keyboard
    finally:
        process.kill()
        process.communicate()
        os.close(keyboard)


def read_until(words: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    seen = ""
    while words not in seen and (sign := process.stdout.read(1)):
        seen += sign
    assert words in seen, seen
    return seen


def press_ctrl_c(process: subprocess.Popen[str]) -> str:
    """Press it as a person does: again, where nothing happened; what the process still said.

    Python handles signals between its instructions, so one that comes behind the prompt and before the reading of the answer waits
    for the answer; the next one interrupts the reading.
    """
    for _ in range(6):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=10)[0]
    raise AssertionError("nothing ends it")


def test_ctrl_c_at_the_question_decides_nothing_and_the_person_can_answer_later(site: Path, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    with at_a_terminal(site, "--reports", reports) as (process, _keyboard):
        read_until("decide later: ", process)
        output = press_ctrl_c(process)
        assert process.returncode == 130, output
        assert "Nothing is decided by that" in output
    ((run, _rows, (ticket,)),) = in_store(reports)
    assert (run.status, ticket.ticket) == ("waiting", "review#1")

    with at_a_terminal("--reports", reports, "--resume", run.run_id) as (process, keyboard):
        read_until("decide later: ", process)
        # Ignoring a finding of 25 leaves 30, which is still above 20: it is asked again.
        os.write(keyboard, b"e\nana\ntampered:demo-copy-of-a\nours\nn\nknown\n")
        assert "modify by ana: 'known'" in read_until("decide later: ", process)
        os.write(keyboard, b"a\nana\ngood enough\n")
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    facts = facts_in(reports / "1")
    assert [one["outcome"] for one in facts["decisions"]] == ["amended", "accepted"]
    assert (facts["risk"], facts["risk_in_all"], facts["note"]) == (30, 55, "ours")


def test_ctrl_c_while_a_worker_runs_leaves_no_process_behind_and_a_run_that_can_be_resumed(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = tmp_path / "reports"
    with at_a_terminal(site, "--reports", reports, "--decision", "approve", "--by", "ana") as (process, _keyboard):
        seen = read_until("verify_batch", process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 130, seen + output
    (worker,) = only(r"process (\d+): python", seen)
    with pytest.raises(ProcessLookupError):
        os.kill(int(worker), 0)
    ((run, _rows, _tickets),) = in_store(reports)
    assert f"--resume {run.run_id}" in output
    assert run_demo(reports=reports, resume=run.run_id, decision="approve", by="ana") == 0
    assert "No step that was committed ran again." in capsys.readouterr().out


def test_a_decision_without_a_name_is_refused_before_anything_happens(site: Path, tmp_path: Path) -> None:
    refused = play(site, "--reports", tmp_path / "reports", "--decision", "approve")
    assert refused.returncode == 2
    assert "--by NAME" in refused.stdout
    with pytest.raises(ValueError, match="somebody"):
        run_demo(sites=[site], reports=tmp_path / "reports", decision="reject")
    assert not (tmp_path / "reports").exists()


# --- the journal ------------------------------------------------------------------------------------------------------


def row(seq: int, kind: str, node: str = "", path: str = "") -> Row:
    return Row("r", seq, 1, 0, kind, path, node, "", b"", 0, b"")


def ran(node: str, visit: int, attempt: int, path: str = "") -> Ran:
    return Ran(Entry(path, node, visit), attempt, 100 + attempt, f"{path}.{node}#{visit}")


def test_a_committed_step_that_runs_again_is_found_out() -> None:
    rows = [row(1, "start"), row(2, "step", "a"), row(3, "step", "a"), row(4, "attempt"), row(5, "step", "b")]
    books = account(rows, [ran("a", 1, 1), ran("a", 2, 1), ran("a", 2, 2), ran("b", 1, 2)])
    assert books.redone == [ran("a", 2, 2)]
    assert (books.committed["a"], books.ran["a"]) == (2, 3)


def test_a_step_that_was_in_flight_may_run_again() -> None:
    begun = [ran("a", 1, 1), ran("a", 2, 1)]
    assert account([row(1, "start"), row(2, "step", "a")], begun).in_flight == [ran("a", 2, 1)]
    rows = [row(1, "start"), row(2, "step", "a"), row(3, "attempt"), row(4, "step", "a")]
    books = account(rows, [*begun, ran("a", 2, 2)])
    assert (books.in_flight, books.redone, books.repeated) == ([], [], [(ran("a", 2, 1), ran("a", 2, 2))])


def test_the_same_node_in_two_branches_is_two_entries() -> None:
    rows = [row(1, "start"), row(2, "step", "a", "checks[0]"), row(3, "attempt"), row(4, "step", "a", "checks[1]")]
    books = account(rows, [ran("a", 1, 1, "checks[0]"), ran("a", 1, 2, "checks[1]")])
    assert (books.redone, books.repeated, books.in_flight) == ([], [], [])


def test_a_journalled_flow_is_the_same_graph(tmp_path: Path) -> None:
    noted = audit_flow(around=journalled(tmp_path / "journal", finished=lambda ctx: None)).compile()
    assert noted.graph_hash == flow.compile().graph_hash


# --- the scratch site -------------------------------------------------------------------------------------------------


def test_what_is_wrong_in_the_scratch_site_is_what_the_audit_finds_there_and_the_original_stays_sound(site: Path, tmp_path: Path) -> None:
    told = make_scratch_site(tmp_path / "scratch", read_sites([str(site)])[0])
    assert len(told) == 3
    installed, unreadable = read_sites([str(site), str(tmp_path / "scratch")])
    assert list(unreadable) == [UNREADABLE]
    (copy,) = [one for one in installed if is_scratch(one["name"])]
    checked = check_files(copy)
    assert (checked.counts["tampered"], [found["id"] for found in checked.findings]) == (1, ["tampered:demo-copy-of-a"])
    (broken,) = check_dependencies(installed)
    assert (broken["distribution"], broken["message"]) == ("demo-copy-of-a", "needs a>=9999, but 1.0 is installed")
    assert all(not check_files(one).findings for one in installed if one is not copy)


def test_where_nothing_can_be_copied_one_unreadable_distribution_is_made_all_the_same(tmp_path: Path) -> None:
    assert len(make_scratch_site(tmp_path / "scratch", [])) == 1
    assert read_sites([str(tmp_path / "scratch")])[0] == []


# --- the screen -------------------------------------------------------------------------------------------------------


def test_the_path_shows_what_was_entered_in_the_tree_of_the_branches() -> None:
    visits = visits_of(
        [("", "checks"), ("checks[0]", "verify_batch"), ("checks[0]", "verify_batch"), ("checks[3]", "measure"), ("", "score")]
    )
    lines = [f"{tree}{mark} {name}" for mark, tree, name, _remark in path_lines(flow.compile().definition, visits, {})]
    assert lines == [
        "· collect_strict", "· collect_tolerant", "✓ checks", "├─ ✓ verify_batch, 2 times", "├─ · licences", "├─ · dependencies",
        "└─ ✓ measure", "   · rank", "✓ score", "· review", "· accepted", "· refused", "· amended", "· report",
    ]  # fmt: skip


# --- worker processes -------------------------------------------------------------------------------------------------


def test_a_worker_that_says_nothing_for_too_long_is_ended() -> None:
    with WorkerProcess({}, patience=timedelta(0)) as worker:
        with pytest.raises(WorkerSilentError, match=str(worker.pid)):
            list(worker.reports())
        assert worker.wait() == -signal.SIGKILL
