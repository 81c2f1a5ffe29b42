"""The demo as a story: an audit is killed halfway, resumed by another process, decided by a person, and ended by a third.

Nothing in it is staged but the moment of the kill, and the scratch site that is audited beside the real environment; both
are told openly.  What it says about a run it reads from the run's database and from the journal of its workers.

`run_demo` is the door; ``trailmark demo`` and ``examples/environment_audit.py`` come through it.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any, Literal

from checkpoint_stores.errors import InvalidDecisionError
from checkpoint_stores.records import ENDED, BarrierRecord, DecisionRecord
from reducers.errors import TrailmarkError
from trailmark import END, Decision
from trailmark.cli.addresses import sqlite_file, store_url, without_password
from trailmark.cli.exits import ExitCode, exit_code_of
from trailmark.cli.progress import Told
from trailmark.demo import audit_checks
from trailmark.demo.audit_report import size_text
from trailmark.demo.environment_audit import Audit, flow
from trailmark.demo.journal import Account, account, read_journal
from trailmark.demo.looking import Look, decide, look
from trailmark.demo.question import ask, decision_of, show_ticket
from trailmark.demo.scratch import make_scratch_site
from trailmark.demo.screen import Screen, shown_path, visits_of
from trailmark.demo.worker_process import MODULE, WorkerProcess

DecisionOption = Literal["ask", "approve", "reject"]

BATCHES = 12
"""Into how many batches the verification of the files is cut: one step, one checkpoint each."""

REPORTS = "environment-audit"

_ENTERING = frozenset({"step", "fallback", "parallel", "barrier", "failure"})
"""Kinds of checkpoints that enter a node."""

_LEAVING = frozenset({"step", "join", "decision"})
"""Kinds of checkpoints that leave a node for the next, or for the end."""


class DemoError(TrailmarkError):
    """The demo cannot go on; the run is safe in its database."""


def run_demo(
    *,
    sites: Sequence[str | Path] = (),
    reports: str | Path = REPORTS,
    store: str | None = None,
    decision: DecisionOption = "ask",
    by: str | None = None,
    reason: str = "",
    threshold: int = 20,
    batch: int | None = None,
    resume: str | None = None,
    keep: bool = False,
) -> int:
    """Play the demo and return its exit code: 0 the run completed, 3 it waits for a person, 130 interrupted.

    Args:
        sites: site directories to audit; none = those of this interpreter.
        reports: where everything the demo leaves behind goes, in a new folder for each run.
        store: where the runs are kept, a URL or a path; None = ``runs.db`` in ``reports``.
        decision: ``approve`` or ``reject`` without asking, in the name of ``by``; ``ask`` asks on the terminal, and where there
            is none it leaves the run waiting.
        by: who decides.
        reason: why, of a decision that is not asked for.
        threshold: the highest risk that needs nobody's approval.
        batch: how many distributions are verified per checkpoint; None = a twelfth of them.
        resume: a run of an earlier demo that was interrupted, or that waits.
        keep: whether the scratch site stays when the run has ended.

    Raises:
        ValueError: a decision is given without the name of who decides.
        TrailmarkError: what the store or the run raised; no process is left behind.
    """
    if decision != "ask" and not by:
        raise ValueError(f"a decision is made by somebody: say who wants to {decision}, with --by NAME")
    place = Path(reports)
    address = without_password(store) if store else shown_path(place / "runs.db")
    if address.startswith("memory:"):
        raise DemoError("a store in memory ends with its process, and this demo kills one; name a database")
    demo = _Demo(store_url(store) if store else f"sqlite+aiosqlite:///{(place / 'runs.db').absolute()}", address, place, Screen())
    demo.again = [*trailmark_words(), "demo", *(["--reports", str(reports)] if str(reports) != REPORTS else [])]
    demo.again += ["--store", address] if store else []
    try:
        if resume is None:
            demo.begin([str(Path(site).resolve()) for site in sites] or audit_checks.default_sites(), threshold, batch)
        else:
            demo.find(resume)
        return demo.finish(decision, by, reason, keep=keep)
    except KeyboardInterrupt:
        demo.interrupted()
        return ExitCode.INTERRUPTED


class _Demo:
    """One performance."""

    def __init__(self, store: str, address: str, reports: Path, screen: Screen) -> None:
        self.store = store
        self.address = address
        """The store as one would type it, without a password."""
        self.reports = reports
        self.screen = screen
        self.again: list[str] = []
        """The command that plays with the same store and folder."""
        self.run_id = ""
        self.folder = reports
        self.act = 0
        self.seq = 0
        """The newest checkpoint that was shown."""
        self.done = 0
        """How many batches of files are verified."""
        self.batches = 0
        self.redone = 0
        """How many committed steps ran again; anything but 0 is a bug."""

    # --- the acts ---------------------------------------------------------------------------------------------------
    def begin(self, sites: list[str], threshold: int, batch: int | None) -> None:
        """Say what will happen, begin the audit, and kill it halfway."""
        screen = self.screen
        try:
            installed, unreadable = audit_checks.read_sites(sites)
            self.folder = _new_folder(self.reports)
        except OSError as error:
            raise DemoError(f"the demo cannot begin: {error}") from error
        screen.title("trailmark demo", "A run is killed, resumed, decided and ended. All of it is real.")
        screen.say()
        screen.say("1  A worker process audits this Python environment. Halfway it is killed.")
        screen.say("2  Another process resumes the run; what is committed is not done again.")
        screen.say("3  The run finds a risk and waits, held by no process, until you decide.")
        screen.say()
        screen.say("Audited is the environment this runs in:" if sites == audit_checks.default_sites() else "Audited are:")
        for site in sites:
            screen.say(f"  {shown_path(site)}")
        screen.say(f"  {len(installed)} distributions" + (f", {len(unreadable)} that cannot be read" if unreadable else ""))
        screen.say("and a scratch site, made for this demo so that there is something to find:")
        scratch = self.folder / "scratch-site"
        told = make_scratch_site(scratch, installed)
        screen.say(f"  {shown_path(scratch)}")
        for line in told:
            screen.say(f"  - {line}")
        sites = [*sites, str(scratch.resolve())]
        count = len(audit_checks.read_sites(sites)[0])
        batch = batch or max(1, ceil(count / BATCHES))
        self.batches = max(1, ceil(count / batch))  # an empty environment has one batch, too: of nothing
        given = Audit(sites=sites, reports=str(self.folder.resolve()), batch=batch, threshold=threshold)
        self._act("A worker begins the audit")
        self._killed_halfway(given.model_dump(include=given.model_fields_set))

    def _killed_halfway(self, given: dict[str, Any]) -> None:
        hold_at = self.batches // 2 + 1
        with self._worker({"begin": given, "hold_at": hold_at}) as worker:
            for report in worker.reports():
                self._heard(report)
                if report["kind"] == "holding":
                    code = worker.kill()
                    break
            else:
                raise DemoError(f"process {worker.pid} ended before it could be killed (exit code {worker.wait()})")
            for report in worker.reports():  # what it still said of what it had committed
                self._heard(report)
        self.screen.say()
        self.screen.say(f"✗ process {worker.pid} is killed (SIGKILL, exit code {code}) in batch {hold_at} of {self.batches}.", "bold red")
        self.screen.say("  The demo chose the moment: its files are read, nothing is committed.", "dim")
        self.screen.say()
        self._show_wreck()

    def _show_wreck(self) -> None:
        now = self._look()
        books = self._account(now)
        files = (now.value("files") or {}).get("verified", 0)
        self.screen.say("What the database holds at this moment:")
        self.screen.facts([
            ("status", f"{now.state.status}, and its process is dead"),
            ("committed", f"{len(now.rows)} checkpoints, {now.state.step} steps"),
            ("verified", f"{files:,} files, of {now.value('verified') or 0} of the {len(now.value('distributions') or ())} distributions"),
            ("in flight", ", ".join(f"{ran.entry.node} (entry {ran.entry.visit})" for ran in books.in_flight) + ": begun, not committed, lost"),
        ])  # fmt: skip

    def find(self, run_id: str) -> None:
        """Take up a run of an earlier demo."""
        file = sqlite_file(self.store)
        if file and not Path(file).exists():  # opening it would make it
            raise DemoError(f"there is no store {self.address}, and so no run {run_id} in it")
        now = asyncio.run(look(self.store, run_id))
        if now.run.flow != flow.name:
            raise DemoError(f"run {now.run.run_id} is of flow {now.run.flow!r}, and this demo plays {flow.name!r}")
        self.run_id, self.folder = now.run.run_id, Path(now.value("reports"))
        self.screen.title("trailmark demo", f"Run {self.run_id} {_stands(now)} after {now.state.step} steps.")

    def finish(self, decision: DecisionOption, by: str | None, reason: str, *, keep: bool) -> int:
        """Resume the run, have it decided, resume it again, until it has ended or nobody decides."""
        now = self._look()
        while now.run.status not in ENDED:
            if not now.tickets:
                now = self._go_on(now)
                if not now.tickets and now.run.status not in ENDED:
                    self.screen.say(f"The run {_stands(now)}.", "yellow")
                    self._show_next(None)
                    return exit_code_of(now.run.status)
                continue
            answer = self._decision(now.tickets[0], decision, by, reason)
            if answer is None:
                self._leave_waiting(now.tickets[0])
                return ExitCode.WAITING
            try:
                asyncio.run(decide(self.store, now.tickets[0], answer))
            except InvalidDecisionError as refused:
                if decision != "ask":
                    raise
                self.screen.say(f"That cannot be: {refused}", "red")
            else:
                said = f": {answer.reason!r}" if answer.reason else ""
                self.screen.say(f"✓ {answer.action} by {answer.by}{said}", "green")
                self.screen.say("  It is in the database; no process has acted on it yet.", "dim")
            now = self._look()
        self._epilogue(now, keep=keep)
        return exit_code_of(now.run.status) if not self.redone else ExitCode.BUG

    def _go_on(self, before: Look) -> Look:
        """Have a new process resume the run, and say what it did."""
        resumes_wreck = before.run.status == "running"
        self._act("Another process resumes the run" if resumes_wreck else "A further process goes on")
        self.seq = before.state.seq
        self.done, self.batches = before.batches
        # Why takeover: this demo ended the process that held the run.  Where the system shows processes, the store sees that by
        # itself; elsewhere it would have to wait until the lease of the dead one expires.
        with self._worker({"resume": self.run_id, "takeover": resumes_wreck}) as worker:
            for report in worker.reports():
                self._heard(report)
            if (code := worker.wait()) != 0:
                raise DemoError(f"process {worker.pid} failed (exit code {code}); run {self.run_id} is as its last commit left it")
        now = self._look()
        if resumes_wreck:
            self._show_account(self._account(now))
        return now

    def _show_account(self, books: Account) -> None:
        screen = self.screen
        self.redone = len(books.redone)
        screen.say()
        screen.say("What the database has, and what really ran, by a journal that the workers keep:")
        twice = {first.entry.node for first, _second in books.repeated}
        remark = "one was in flight at the kill"
        rows = ((node, str(books.committed[node]), str(ran), remark if node in twice else "") for node, ran in books.ran.items())
        screen.table(("node", "committed", "ran", ""), rows)
        for first, second in books.repeated:
            entry = f"{first.entry.node}, entry {first.entry.visit}"
            same = "the same idempotency key" if first.key == second.key else "DIFFERENT idempotency keys"
            screen.say(f"  {entry}, ran in process {first.process} (killed) and in {second.process},")
            screen.say(f"  with {same}, {second.key[:16]}…")
        if books.redone:
            screen.say(f"✗ {len(books.redone)} committed step(s) ran again. This is a bug of trailmark: please report it.", "bold red")
        else:
            screen.say("✓ No step that was committed ran again.", "bold green")

    def _decision(self, ticket: BarrierRecord, decision: DecisionOption, by: str | None, reason: str) -> Decision | None:
        self._act("The run waits for a person; no process holds it")
        show_ticket(self.screen, ticket)
        self.screen.say()
        if decision != "ask":
            assert by  # noqa: S101 - checked at the door
            return decision_of(decision, ticket, by=by, reason=reason)
        return ask(ticket, by) if sys.stdin.isatty() else None

    def _leave_waiting(self, ticket: BarrierRecord) -> None:
        self.screen.say()
        self.screen.say("Nothing is decided: that is for a person to do. The run waits, for minutes or for months.", "yellow")
        self._show_next(ticket)

    def interrupted(self) -> None:
        """Say how to go on after Ctrl-C."""
        self.screen.say()
        self.screen.say("Interrupted. Nothing is decided by that, and nothing that was committed is lost.", "yellow")
        if not self.run_id:
            return
        tickets: list[BarrierRecord] = []
        with suppress(TrailmarkError):
            tickets = self._look().tickets
        self._show_next(tickets[0] if tickets else None)

    def _show_next(self, ticket: BarrierRecord | None) -> None:
        trailmark = [*trailmark_words(), "--store", self.address]
        going_on = [*self.again, "--resume", self.run_id]
        if ticket is None:
            self.screen.commands([("to go on", going_on)])
            return
        decide_it = [
            (f"to {word}", [*trailmark, "approvals", word, self.run_id, ticket.ticket, "--by", "NAME"]) for word in ("approve", "reject")
        ]
        self.screen.commands([*decide_it, ("then go on", going_on)])

    def _epilogue(self, now: Look, *, keep: bool) -> None:
        screen = self.screen
        graph = flow.compile()
        visits = visits_of((row.path, row.node) for row in now.rows if row.kind in _ENTERING)
        ends = visits_of((row.path, END) for row in now.rows if row.kind in _LEAVING and not row.next)
        visited = [*visits, *ends]
        pictures = {"graph.svg": graph.to_svg(visited=visited), "graph.mmd": graph.to_mermaid(visited=visited)}
        for name, text in pictures.items():
            (self.folder / name).write_text(text, encoding="utf-8")
        self._act(f"The run has {now.run.status}; the way it took")
        screen.path(graph.definition, visits, _remarks(now))
        screen.say()
        screen.facts(self._results(now))
        if not keep:
            shutil.rmtree(self.folder / "scratch-site", ignore_errors=True)
        screen.say()
        screen.say("Look further:")
        trailmark = [*trailmark_words(), "--store", self.address, "runs"]
        screen.commands([
            ("every checkpoint", [*trailmark, "steps", self.run_id]),
            ("the state halfway", [*trailmark, "state", self.run_id, "--at", str(len(now.rows) // 2)]),
            ("remove it all", ["rm", "-r", shown_path(self.reports)]),
        ])  # fmt: skip

    def _results(self, now: Look) -> list[tuple[str, str]]:
        written = now.value("written") or {}
        found = len(now.value("findings") or ())
        size = sum(len(row.payload) for row in now.rows)
        file = sqlite_file(self.store)
        database = f"{self.address}, {size_text(Path(file).stat().st_size)} with all its runs" if file else self.address
        sound = "chain of digests sound" if not now.problems else f"PROBLEMS: {now.problems}"
        return [
            ("found", f"{found} findings in {len(now.value('distributions') or ())} distributions, risk {now.value('risk')}"),
            ("decided", "; ".join(_said(one) for one in now.decisions) or "by nobody: the risk is low"),
            ("report", shown_path(written.get("markdown", ""))),
            ("as data", shown_path(written.get("json", ""))),
            ("graph", f"{shown_path(self.folder / 'graph.svg')} and .mmd (Mermaid), the way in green"),
            ("database", database),
            ("run", f"{len(now.rows)} checkpoints, {size_text(size)}, by {now.state.attempt} processes; {sound}"),
        ]

    # --- what the acts are made of ----------------------------------------------------------------------------------
    def _act(self, text: str) -> None:
        self.act += 1
        self.screen.act(self.act, text)

    def _worker(self, order: dict[str, Any]) -> WorkerProcess:
        worker = WorkerProcess({"store": self.store, "journal": str(self.folder / "journal.jsonl"), **order})
        self.screen.say(f"process {worker.pid}: python -m {MODULE}", "dim")
        return worker

    def _heard(self, report: dict[str, Any]) -> None:
        """Show what a worker said."""
        match report["kind"]:
            case "run":
                name, detail = ("attempt", "takes the run") if self.run_id else ("start", "a new run")
                self.run_id = report["run_id"]
                self.screen.say(f"run {self.run_id}", "dim")
                self._committed(self.seq + 1, Told("▶", "cyan", 0, name, "", detail))
            case "committed":
                told = Told(*report["told"])
                if report["node"] == "verify_batch":
                    self.done += 1
                    told = told._replace(detail=f"batch {self.done} of {self.batches}")
                elif report["row_kind"] == "fallback":
                    # The error is long, for it names every distribution; it is shown as findings later.
                    told = told._replace(detail=f"fallback {told.detail.partition(';')[0]}")
                self._committed(report["seq"], told)
            case "result" if report["status"] == "failed":
                failure = report["error"] or {}
                self.screen.say(f"✗ the run failed: {failure.get('type')}: {failure.get('message')}", "bold red")

    def _committed(self, seq: int, told: Told) -> None:
        self.seq = seq
        self.screen.commit(seq, told)

    def _look(self) -> Look:
        return asyncio.run(look(self.store, self.run_id))

    def _account(self, now: Look) -> Account:
        return account(now.rows, read_journal(self.folder / "journal.jsonl"))


def _new_folder(reports: Path) -> Path:
    """A folder of its own for each run: two demos at once, and a run that is decided next week, keep out of each other's way."""
    number = 1
    while True:
        try:
            (reports / str(number)).mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return reports / str(number)


def _stands(now: Look) -> str:
    if now.run.status == "waiting":
        return "waits for a person" if now.tickets else "waits to be resumed"
    return f"has {now.run.status}" if now.run.status in ENDED else f"is {now.run.status.replace('_', ' ')}"


def _remarks(now: Look) -> dict[str, str]:
    """What is worth saying beside a node."""
    fallbacks = {row.node: "failed, and took its fallback edge" for row in now.rows if row.kind == "fallback"}
    return {**fallbacks, "checks": "four branches, side by side", "review": "; ".join(_said(one) for one in now.decisions)}


def _said(decision: DecisionRecord) -> str:
    return f"{decision.action} by {decision.actor}" + (f": {decision.reason!r}" if decision.reason else "")


def trailmark_words() -> list[str]:
    """How to call trailmark from where we are: the command where it is on the path, else this Python's own."""
    beside = Path(sys.executable).parent / "trailmark"
    on_path = shutil.which("trailmark")
    if on_path is not None and (not beside.exists() or Path(on_path).absolute() == beside.absolute()):
        return ["trailmark"]
    return [shown_path(beside)] if beside.exists() else ["python", "-m", "trailmark"]
