"""The command line as processes: what two of them do to one run, what signals do, what a terminal sees."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import trailmark
from trailmark.cli.exits import ExitCode

HOME = Path(trailmark.__file__).resolve().parent.parent
CONSOLE_SCRIPT = "import sys; from trailmark.cli import main; sys.exit(main())"
"""What an installer writes for the entry point; -P keeps the working folder off the path, as for a script in bin."""

FLOW = """
import asyncio
from pathlib import Path
from typing import Annotated
from trailmark import END, Flow, approved
from trailmark.reducers import append

flow = Flow("order", {"vendor": str, "notes": Annotated[list[str], append]})

@flow.node
async def read(state):
    return {"notes": ["read"]}

@flow.node
async def work(state):
    if not Path("go").exists():
        print("working", flush=True)
        await asyncio.Event().wait()
    return {"notes": ["worked"]}

@flow.node
async def pay(state):
    return {"notes": ["paid"]}

flow.add_barrier("manager", prompt="Pay {vendor}?", show=["vendor"])
flow.set_entry("read")
flow.add_edge("read", "work")
flow.add_edge("work", "manager")
flow.add_edge("manager", "pay", when=approved)
flow.add_edge("manager", END)
flow.add_edge("pay", END)
"""
RUN = ("run", "shop:flow", "--input", '{"vendor": "ACME"}')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(FLOW)
    return tmp_path


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAILMARK_")}
    return {**kept, "PYTHONPATH": str(HOME), "COLUMNS": "120", "TERM": "xterm", "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def process(folder: Path, *arguments: str, **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """A command line under way; it does not outlive a test that fails."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", CONSOLE_SCRIPT, *arguments], cwd=folder, env=environment(), text=True, **pipes
    ) as made:
        try:
            yield made
        except BaseException:
            made.kill()
            raise


def done(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line."""
    with process(folder, *arguments) as under_way:
        out, err = under_way.communicate(timeout=60)
    return under_way.returncode, out, err


def on_a_terminal(folder: Path, *arguments: str, typed: str = "") -> tuple[int, str]:
    """Exit code and everything a person sees who has all three streams on a terminal."""
    ours, theirs = pty.openpty()
    with process(folder, *arguments, stdin=theirs, stdout=theirs, stderr=theirs) as under_way:
        os.close(theirs)
        if typed:
            os.write(ours, typed.encode())
        seen = b""
        while chunk := _read(ours):
            seen += chunk
        under_way.wait(timeout=60)
    os.close(ours)
    return under_way.returncode, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()).replace("\r", "")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that the other side is closed
        return b""


def test_the_installed_script_is_this_entry_point() -> None:
    declared = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["scripts"]
    assert declared == {"trailmark": "trailmark.cli:main"}


def test_a_run_parks_is_approved_by_another_process_and_completed_by_a_third(folder: Path) -> None:
    (folder / "go").touch()
    code, out, _ = done(folder, *RUN, "-o", "json")
    parked = json.loads(out)
    assert (code, parked["status"], parked["waiting_for"]) == (ExitCode.WAITING, "waiting", ["manager#1"])
    code, _, err = done(folder, "approvals", "approve", parked["run_id"], "manager", "--by", "ana")
    assert (code, err) == (ExitCode.OK, f"next: trailmark resume {parked['run_id']} --flow MODULE:NAME\n")
    code, out, _ = done(folder, "resume", parked["run_id"][:18], "--flow", "shop.py:flow", "-o", "json")
    completed = json.loads(out)
    assert (code, completed["status"], completed["attempt"]) == (ExitCode.OK, "completed", 2)
    assert completed["values"]["notes"] == ["read", "worked", "paid"]
    assert completed["run_id"] == parked["run_id"]


def test_a_process_that_stays_goes_on_when_another_approves(folder: Path) -> None:
    with process(folder, *RUN, "--through-barriers", "-o", "json") as stays:
        assert stays.stderr is not None
        assert stays.stderr.readline() == "working\n"  # what nodes print stays away from output for programs
        (run_id,) = done(folder, "runs", "ls", "-o", "ids")[1].split()
        # Decided before the barrier is reached: whichever of the two is first, the run goes on.
        assert done(folder, "approvals", "approve", run_id, "manager", "--by", "ana")[0] == ExitCode.OK
        (folder / "go").touch()
        held = done(folder, "resume", run_id, "--flow", "shop:flow")
        assert held[0] == ExitCode.CONFLICT
        assert "is being advanced by" in held[2]
        assert held[2].endswith(f"next: trailmark resume {run_id} --flow shop:flow --takeover\n")
        taken = done(folder, "resume", run_id, "--flow", "shop:flow", "--takeover", "-o", "json")
        assert json.loads(taken[1])["values"]["notes"] == ["read", "worked", "paid"]
        stays.send_signal(signal.SIGINT)
        stays.communicate(timeout=60)


def test_who_resumes_a_run_and_stays_goes_on_when_another_process_approves(folder: Path) -> None:
    (folder / "go").touch()
    run_id = done(folder, *RUN, "-o", "ids")[1].strip()
    with process(folder, "resume", run_id, "--flow", "shop:flow", "--through-barriers", "-o", "json") as stays:
        while json.loads(done(folder, "runs", "show", run_id, "-o", "json")[1])["attempt"] < 2:
            assert stays.poll() is None
        assert done(folder, "approvals", "approve", run_id, "manager", "--by", "ana")[0] == ExitCode.OK
        out, _ = stays.communicate(timeout=60)
    assert (stays.returncode, json.loads(out)["values"]["notes"]) == (ExitCode.OK, ["read", "worked", "paid"])


def test_a_run_whose_process_was_killed_is_listed_as_such_and_goes_on_as_it_is_told(folder: Path) -> None:
    with process(folder, *RUN) as under_way:
        assert under_way.stdout is not None
        assert under_way.stdout.readline() == "working\n"
        (living,) = json.loads(done(folder, "runs", "ls", "-o", "json")[1])
        assert (living["status"], living["orphaned"]) == ("running", False)
        assert "gone" not in done(folder, "runs", "show", living["run_id"])[1]
        under_way.kill()
        under_way.communicate(timeout=60)
    run_id = living["run_id"]
    _, listed, said = done(folder, "runs", "ls")
    assert re.search(rf"{run_id} +order +running .*its process is gone \(its lease: until [\d-]+ [\d:]+\)$", " ".join(listed.split()))
    assert said == f"next: trailmark resume {run_id} --flow MODULE:NAME\n"
    _, shown, then = done(folder, "runs", "show", run_id)
    assert re.search(r"driven by .*; its process is gone", shown)
    assert then == said
    (orphan,) = json.loads(done(folder, "runs", "ls", "-o", "json")[1])
    assert (orphan["status"], orphan["orphaned"]) == ("running", True)
    (folder / "go").touch()
    code, out, _ = done(folder, *then.replace("MODULE:NAME", "shop:flow").split()[2:], "-o", "json")
    resumed = json.loads(out)
    assert (code, resumed["values"]["notes"], resumed["attempt"]) == (ExitCode.WAITING, ["read", "worked"], 2)
    (free,) = json.loads(done(folder, "runs", "ls", "-o", "json")[1])
    assert (free["owner"], free["lease_expires_at"], free["orphaned"]) == (None, None, False)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)])
def test_an_interrupted_run_is_suspended_and_goes_on_later(folder: Path, sent: signal.Signals, code: ExitCode) -> None:
    with process(folder, *RUN) as under_way:
        assert under_way.stdout is not None
        assert under_way.stdout.readline() == "working\n"
        under_way.send_signal(sent)
        _, err = under_way.communicate(timeout=60)
    assert under_way.returncode == code
    said = re.fullmatch(
        r"trailmark: interrupted; run (\S+) is suspended after 1 steps?; next: (trailmark resume \1 --flow shop:flow)\n", err
    )
    assert said
    (folder / "go").touch()
    code_of_resume, out, _ = done(folder, *said[2].split()[1:], "-o", "json")
    resumed = json.loads(out)
    assert (code_of_resume, resumed["values"]["notes"], resumed["steps"]) == (ExitCode.WAITING, ["read", "worked"], 3)


def test_progress_is_shown_on_a_terminal_and_nowhere_else(folder: Path) -> None:
    (folder / "go").touch()
    code, seen = on_a_terminal(folder, *RUN)
    assert code == ExitCode.WAITING
    for line in (r"✓ read +[\d.]+ ms  → work", r"✓ work +[\d.]+ ms  → manager", r"◆ manager +waits for manager#1"):
        assert re.search(line, seen), seen
    assert done(folder, *RUN)[2].startswith("next: ")
    _, quiet = on_a_terminal(folder, *RUN, "-o", "json")
    assert json.loads(quiet)["status"] == "waiting"


@pytest.mark.parametrize(("typed", "code", "status"), [("y\n", ExitCode.OK, "decided"), ("n\n", ExitCode.INTERRUPTED, "open")])
def test_on_a_terminal_a_decision_is_asked_back_over_what_is_shown(folder: Path, typed: str, code: ExitCode, status: str) -> None:
    (folder / "go").touch()
    run_id = done(folder, *RUN, "-o", "ids")[1].strip()
    left, seen = on_a_terminal(folder, "approvals", "approve", run_id, "manager", "--by", "ana", typed=typed)
    assert left == code, seen
    assert "Pay ACME?" in seen
    assert 'vendor  "ACME"' in seen
    assert "Approve? [y/N]" in seen
    assert json.loads(done(folder, "approvals", "show", run_id, "manager#1", "-o", "json")[1])["status"] == status


def test_who_says_yes_is_not_asked_back_on_a_terminal(folder: Path) -> None:
    (folder / "go").touch()
    one, other = (done(folder, *RUN, "-o", "ids")[1].strip() for _ in range(2))
    # Were they asked, they would have said no.
    approved = on_a_terminal(folder, "approvals", "approve", one, "manager", "--by", "ana", "--yes", typed="n\n")
    rejected = on_a_terminal(folder, "approvals", "reject", other, "manager", "--by", "ana", "-y", typed="n\n")
    for (left, seen), run_id, action in ((approved, one, "approve"), (rejected, other, "reject")):
        assert (left, "[y/N]" in seen) == (ExitCode.OK, False), seen
        decisions = json.loads(done(folder, "approvals", "show", run_id, "manager#1", "-o", "json")[1])["decisions"]
        assert [each["action"] for each in decisions] == [action]


def test_a_reader_that_has_had_enough_is_no_error(folder: Path) -> None:
    (folder / "go").touch()
    done(folder, *RUN)
    reading, writing = os.pipe()
    os.close(reading)
    with process(folder, "runs", "ls", stdout=writing) as unheard:
        os.close(writing)
        _, err = unheard.communicate(timeout=60)
    assert (unheard.returncode, err) == (0, "")


def test_the_help_loads_no_graph_and_no_database(folder: Path) -> None:
    heavy = ("networkx", "sqlalchemy", "alembic", "asyncpg", "aiosqlite", "asyncio", "jsonschema", "pydantic")
    script = f"import sys; from trailmark.cli import main; main(['--help']); sys.exit(str([m for m in {heavy} if m in sys.modules]))"
    helped = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert helped.stderr == "[]\n"


def test_looking_into_a_file_loads_nothing_of_postgresql(folder: Path) -> None:
    (folder / "go").touch()
    done(folder, *RUN)
    program = "import sys; from trailmark.cli import main; main(['runs', 'ls', '-o', 'ids']); print([m for m in sys.modules if 'postgres' in m or m == 'asyncpg'])"
    said = subprocess.run([sys.executable, "-P", "-c", program], cwd=folder, env=environment(), capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


def test_python_dash_m_is_the_same_command(folder: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "trailmark", "--version"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert shown.stdout == f"trailmark {trailmark.__version__}\n"


def test_a_users_own_engine_py_neither_hides_ours_nor_fails_without_being_named(folder: Path) -> None:
    (folder / "go").touch()
    (folder / "engine.py").write_text("raise RuntimeError('the wrong engine')\n")
    (folder / "reducers.py").write_text("mine = 1\n")
    assert done(folder, *RUN)[0] == ExitCode.WAITING
    (folder / "needs.py").write_text("from reducers import mine\n")
    code, _, err = done(folder, "run", "needs:flow")
    assert code == ExitCode.FLOW
    assert "reducers.py has the name of trailmark's own package 'reducers', rename it" in err
    assert err.count("\n") == 1


# --- the worker -----------------------------------------------------------------------------------------------------
WORKER = ("worker", "--app", "shop:flow")
SUBMIT = (*RUN, "--submit", "-o", "ids")


def submitted(folder: Path) -> str:
    code, out, _ = done(folder, *SUBMIT)
    assert code == ExitCode.OK
    return out.strip()


def of_run(folder: Path, run_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(done(folder, "runs", "show", run_id, "-o", "json")[1])
    return shown


def test_a_submitted_run_is_driven_by_a_worker_before_and_behind_its_barrier(folder: Path) -> None:
    (folder / "go").touch()
    run_id = submitted(folder)
    assert of_run(folder, run_id)["status"] == "created"
    code, out, err = done(folder, *WORKER, "--until-idle")
    assert (code, err) == (ExitCode.OK, "")
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in out.splitlines()]
    assert lines == [
        "worker began (10 at once)",
        f"took         {run_id} order (new)",
        f"waiting      {run_id} order (3 steps)",
        "worker ended",
    ]
    assert done(folder, "approvals", "approve", run_id, "manager", "--by", "ana")[0] == ExitCode.OK
    code, out, _ = done(folder, *WORKER, "--until-idle", "-o", "json")
    reports = [json.loads(line) for line in out.splitlines()]
    assert [report["what"] for report in reports] == ["began", "taken", "let_go", "ended"]
    assert (reports[2]["run_id"], reports[2]["status"], reports[1]["text"]) == (run_id, "completed", "due")
    assert done(folder, *WORKER, "--until-idle", "-o", "ids")[1] == ""


def test_what_is_said_with_a_submitted_run_counts_as_where_it_is_driven_at_once(folder: Path) -> None:
    old = done(folder, *RUN, "--submit", "--key", "order-1", "-o", "ids")[1].strip()
    other = ("run", "shop:flow", "--input", '{"vendor": "Wile"}', "--submit", "--key", "order-1")
    assert done(folder, *other)[0] == ExitCode.CONFLICT
    code, out, _ = done(folder, *other, "--supersede", "--by", "ana", "-o", "ids")
    assert (code, of_run(folder, old)["status"], of_run(folder, out.strip())["status"]) == (ExitCode.OK, "cancelled", "created")
    assert "cancelled; by ana: superseded" in done(folder, "runs", "steps", old)[1]
    code, _, err = done(folder, *RUN, "--submit", "--through-barriers")
    assert (code, "--through-barriers" in err) == (ExitCode.USAGE, True)


SLOW = """
import asyncio
from pathlib import Path
from typing import Annotated
from trailmark import END, Flow
from trailmark.reducers import append

slow = Flow("slow", {"notes": Annotated[list[str], append]})

@slow.node
async def work(state):
    print("working", flush=True)
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return {"notes": ["worked"]}

@slow.node
async def more(state):
    return {"notes": ["more"]}

slow.set_entry("work").add_edge("work", "more").add_edge("more", END)
flows = {"slow": slow}
"""


@contextmanager
def in_the_middle_of_a_body(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A run, and the worker that drives it."""
    (folder / "slow.py").write_text(SLOW)
    _, out, _ = done(folder, "run", "slow:slow", "--submit", "-o", "ids")
    with process(folder, "worker", "--app", "slow.py:flows", "--drain", "60", "-o", "json") as working:
        assert working.stderr is not None
        assert working.stderr.readline() == "working\n"
        yield out.strip(), working


def heard(working: subprocess.Popen[str], what: str) -> dict[str, Any]:
    """The next report of this kind."""
    assert working.stdout is not None
    while line := working.stdout.readline():
        report: dict[str, Any] = json.loads(line)
        if report["what"] == what:
            return report
    raise AssertionError(f"the worker never said {what!r}")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_end_lets_the_body_finish_and_gives_the_run_back(folder: Path, sent: signal.Signals) -> None:
    with in_the_middle_of_a_body(folder) as (run_id, working):
        working.send_signal(sent)
        assert heard(working, "draining")["text"] == "1 in flight"
        _, out, _ = done(folder, "run", "slow:slow", "--submit", "-o", "ids")
        assert [of_run(folder, each)["status"] for each in (run_id, out.strip())] == ["draining", "created"]
        (folder / "go").touch()
        heard(working, "ended")
        assert working.wait(timeout=60) == ExitCode.OK
    left = of_run(folder, run_id)
    assert (left["status"], left["owner"], left["steps"], left["attempt"]) == ("ready", None, 1, 1)
    assert of_run(folder, out.strip())["status"] == "created"
    code, said, _ = done(folder, "worker", "--app", "slow:flows", "--until-idle", "--concurrency", "1")
    assert (code, "worker began (1 at once)" in said) == (ExitCode.OK, True)
    again = json.loads(done(folder, "runs", "state", run_id, "-o", "json")[1])
    assert again == {"notes": ["worked", "more"]}, "nothing was done twice"


def test_a_worker_that_is_told_twice_ends_at_once(folder: Path) -> None:
    with in_the_middle_of_a_body(folder) as (run_id, working):
        working.send_signal(signal.SIGTERM)
        heard(working, "draining")
        working.send_signal(signal.SIGTERM)
        heard(working, "ended")
        assert working.wait(timeout=60) == ExitCode.OK
    left = of_run(folder, run_id)
    assert (left["status"], left["owner"], left["steps"]) == ("ready", None, 0)


def test_a_workers_collections_do_not_look_at_what_it_was_started_with(folder: Path) -> None:
    (folder / "gathering.py").write_text(
        "import gc\nfrom trailmark import END, Flow\nflow = Flow('gathering', {'kept': int, 'looked_at': int})\n"
        "@flow.node\nasync def count(state):\n    return {'kept': gc.get_freeze_count(), 'looked_at': len(gc.get_objects())}\n"
        "flow.set_entry('count').add_edge('count', END)\n"
    )
    run_id = done(folder, "run", "gathering:flow", "--submit", "-o", "ids")[1].strip()
    assert done(folder, "worker", "--app", "gathering:flow", "--until-idle")[0] == ExitCode.OK
    seen = json.loads(done(folder, "runs", "state", run_id, "-o", "json")[1])
    assert seen["looked_at"] * 5 < seen["kept"]


def test_a_quarantined_run_is_found_and_released(folder: Path) -> None:
    (folder / "deadly.py").write_text(
        "import os, signal\nfrom trailmark import END, Flow\nflow = Flow('deadly', {})\n"
        "@flow.node\nasync def die(state):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "flow.set_entry('die').add_edge('die', END)\n"
    )
    work = ("worker", "--app", "deadly:flow", "--max-recoveries", "2", "--until-idle")
    _, out, _ = done(folder, "run", "deadly:flow", "--submit", "-o", "ids")
    assert [done(folder, *work)[0] for _ in range(4)] == [-signal.SIGKILL] * 3 + [ExitCode.OK]
    assert done(folder, "runs", "ls", "--status", "quarantined", "-o", "ids")[1] == out
    _, shown, said = done(folder, "runs", "show", out.strip())
    assert "quarantined" in shown
    assert said.split("\n")[1].strip() == f"trailmark runs release {out.strip()} --by NAME"
    assert "2 recoveries in a row got nowhere" in done(folder, "runs", "steps", out.strip())[1]
    assert done(folder, "runs", "release", out.strip())[0] == ExitCode.USAGE
    code, released, _ = done(folder, "runs", "release", out.strip(), "--by", "ana", "--reason", "mended", "-o", "json")
    assert (code, json.loads(released)["status"]) == (ExitCode.OK, "ready")
    assert "released by ana: mended" in done(folder, "runs", "steps", out.strip())[1]
    assert done(folder, "runs", "release", out.strip(), "--by", "ana")[0] == ExitCode.CONFLICT


def test_a_worker_needs_flows_it_can_load(folder: Path) -> None:
    assert done(folder, "worker")[::2] == (
        ExitCode.USAGE, "trailmark: say which flows: --app MODULE:NAME or --app file.py:NAME\n"
    )  # fmt: skip
    code, _, err = done(folder, "worker", "--app", "shop:nothing")
    assert (code, "shop has no 'nothing'" in err) == (ExitCode.FLOW, True)
