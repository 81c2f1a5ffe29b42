"""Records as tables and text for people.  Pure: records in, rich renderables out; everything a run wrote passes `printable`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trailmark.cli.plain import local, one_line, printable, shortened, span, value_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from checkpoint_stores.deciding import EarlyTicket
    from checkpoint_stores.records import BarrierRecord, DecisionRecord, EffectRecord, Grant, Problem, RunRecord
    from engine.contracts import RunCheck
    from engine.operations import StepLine
    from engine.result import PendingRetry, PendingWait
    from trailmark import RunResult

STATUS_STYLES = {
    "completed": "green", "running": "cyan", "waiting": "yellow", "failed": "red", "cancelled": "red", "suspended": "magenta",
    "limit_reached": "magenta", "quarantined": "red", "open": "yellow", "decided": "green", "resolved": "green", "withdrawn": "dim",
    "approve": "green", "reject": "red", "modify": "yellow", "done": "green", "started": "cyan", "not_done": "dim", "in_doubt": "red",
}  # fmt: skip
_CELL = 600
"""Characters of a value shown in a table; JSON shows all."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, whole: Sequence[str] = ()) -> Table:
    """A borderless table; the columns named in ``whole`` are never folded."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, no_wrap=column in whole, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and values, one pair a line."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            made.add_row(Text(printable(name)), value if isinstance(value, Text) else Text(printable(value)))
    return made


def titled(title: str, body: RenderableType) -> RenderableType:
    """A block under its title."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    return Group(Text(""), Text(printable(title), style="bold underline"), Padding(body, (0, 0, 0, 2)))


def status(word: str) -> Text:
    """A status in its colour."""
    from rich.text import Text

    return Text(word, style=STATUS_STYLES.get(word, ""))


def values(given: Mapping[str, Any], *, limit: int | None = _CELL) -> Table:
    """A state, or what a person is shown; ``limit`` cuts long values."""
    texts = ((key, value_text(value)) for key, value in given.items())
    return facts((key, text if limit is None else shortened(text, limit)) for key, text in texts)


def of_result(result: RunResult) -> RenderableType:
    """Where a run stands, after `run` and `resume`."""
    from rich.console import Group

    told: list[tuple[str, str | Text]] = [
        ("run", result.run_id),
        ("status", status(result.status)),
        ("steps", f"{result.steps}" + (f" (attempt {result.attempt})" if result.attempt > 1 else "")),
        ("waits for", ", ".join(result.waiting_for)),
    ]
    parts: list[RenderableType] = [facts(told)]
    if result.retries:
        parts.append(titled("will be tried again", retries(result.retries)))
    if result.waits:
        parts.append(titled("waits by itself", waits(result.waits)))
    if result.values:
        parts.append(titled("state", values(result.values)))
    return Group(*parts)


def retries(pending: Sequence[PendingRetry]) -> Table:
    """Failed nodes that wait for their next attempt."""
    rows = [
        (
            f"{each.path} {each.node}".strip(),
            local(each.due_at),
            str(each.failed),
            one_line(f"{each.error['type']}: {each.error['message']}"),
        )
        for each in pending
    ]
    return table(("node", "due", "failed", "why"), rows, whole=("node", "due"))


def waits(pending: Sequence[PendingWait]) -> Table:
    """Nodes that wait for a signal or a time."""
    rows = [
        (f"{each.path} {each.node}".strip(), each.signal or "its time", local(each.due_at) if each.due_at is not None else "")
        for each in pending
    ]
    return table(("node", "for", "until"), rows, whole=("node", "until"))


def runs(records: Sequence[RunRecord]) -> RenderableType:
    """`runs ls`."""
    rows = [
        (run.run_id, one_line(run.flow), status(run.status), one_line(run.run_key or ""), local(run.updated_at), labels(run), fate(run))
        for run in records
    ]
    used = [index for index, name in enumerate(_RUN_COLUMNS) if name not in _OPTIONAL or any(str(row[index]) for row in rows)]
    chosen = [_RUN_COLUMNS[index] for index in used]
    return table(chosen, [[row[index] for index in used] for row in rows], whole=("run", "status", "updated"))


def check(found: RunCheck) -> RenderableType:
    """`runs check`."""
    from rich.console import Group

    said = "kept" if found.passed else f"{len(found.problems)} broken"
    told = facts([("run", found.run_id), ("contracts", said), ("checkpoints", str(found.checkpoints)), ("steps", str(found.steps))])
    rows = [
        (
            f"{each.path} {each.source or '(in)'} -> {each.target.replace('__end__', '(out)')}".strip(),
            *(str(count) for count in (each.left, each.entered, each.standing, each.given_up)),
        )
        for each in found.edges
    ]
    parts: list[RenderableType] = [told]
    if found.problems:
        parts.append(titled("problems", table(("seq", "reason"), [(str(each.seq), one_line(each.reason)) for each in found.problems])))
    return Group(*parts, titled("edges", table(("edge", "left", "entered", "standing", "given up"), rows)))


def topology(found: Mapping[str, Any]) -> RenderableType:
    """`flows show`."""
    from rich.console import Group

    told = facts([
        ("flow", f"{found['flow']} (version {found['version']}, graph {found['graph_hash'][:12]})"),
        ("depth", str(found["depth"])),
        ("cycles", "; ".join(" -> ".join([*each["nodes"], each["nodes"][0]]) + (f" in {each['path']}" if each["path"] else "") for each in found["cycles"])),
    ])  # fmt: skip
    rows = [
        (
            f"{node['path']}.{node['name']}".lstrip("."), node["kind"], *(str(node[field]) for field in ("depth", "fan_in", "fan_out")),
            ", ".join(each["name"] for each in node.get("middleware", ())),
        )
        for node in found["nodes"]
    ]  # fmt: skip
    return Group(told, titled("nodes", table(("node", "kind", "depth", "in", "out", "middleware"), rows)))


_RUN_COLUMNS = ("run", "flow", "status", "key", "updated", "labels", "note")
_OPTIONAL = ("key", "labels", "note")
"""Columns that are left out where no run has anything to say there."""


def fate(run: RunRecord) -> str:
    """What became of the process that owns a run, where something did."""
    if not run.orphaned:
        return ""
    return "its process is gone" + (f" (its lease: until {local(run.lease_expires_at)})" if run.lease_expires_at else "")


def labels(run: RunRecord) -> str:
    return one_line(" ".join(f"{key}={value}" for key, value in sorted(run.labels.items())))


def of_run(run: RunRecord, place: Sequence[tuple[str, str]], steps: int) -> RenderableType:
    """`runs show`: the run itself; ``place`` holds where it stands, as (node with branch path, phase)."""
    error = run.error or {}
    origin = f"fork of {run.parent_run_id} at checkpoint {run.forked_at_seq}" if run.parent_run_id else ""
    phases = {"at": "before", "parked": "waits at", "retry": "will retry"}
    return facts(
        [
            ("run", run.run_id),
            ("status", status(run.status)),
            ("flow", f"{run.flow} (version {run.flow_version}, graph {run.graph_hash[:12]})"),
            ("key", run.run_key or ""),
            ("labels", labels(run)),
            ("stands", ", ".join(f"{phases.get(phase, phase)} {node}" for node, phase in place)),
            ("steps", f"{steps} of at most {run.max_steps}"),
            ("attempts", f"{run.attempt}"),
            ("driven by", "; ".join(part for part in (run.owner, fate(run)) if part)),
            ("due", local(run.wake_at)),
            ("origin", origin),
            ("error", one_line(f"{error.get('type')}: {error.get('message')}") if error else ""),
            ("started", local(run.created_at)),
            ("updated", local(run.updated_at)),
        ]
    )


STEP_COLUMNS = ("seq", "at", "kind", "node", "took", "what happened")
STEP_NUMBERS = {"seq", "took"}
"""Columns that stand to the right."""


def step_cells(line: StepLine) -> tuple[str, ...]:
    """One line of `runs steps`."""
    row = line.row
    went = f"→ {line.went.replace(',', ', ')}" if line.went else ""
    wrote = f"wrote {', '.join(line.keys)}" if line.keys else ""
    happened = one_line("; ".join(part for part in (went, wrote, line.detail) if part))
    took = span(row.committed_at - row.started_at) if row.started_at else ""
    return (str(row.seq), local(row.committed_at)[5:], row.kind, f"{row.path} {row.node}".strip(), took, happened)


def steps(lines: Iterable[StepLine]) -> Table:
    """A page of `runs steps`."""
    from rich.text import Text

    made = [
        [Text(cell, justify="right") if name in STEP_NUMBERS else cell for name, cell in zip(STEP_COLUMNS, step_cells(line), strict=True)]
        for line in lines
    ]
    return table(STEP_COLUMNS, made, whole=STEP_COLUMNS[:-1])


def differences(pairs: Mapping[str, tuple[Any, Any]], absent: object) -> Table:
    """`runs diff`."""
    from rich.text import Text

    def side(value: Any, style: str) -> Text:
        return Text("(nothing)", style="dim") if value is absent else Text(shortened(value_text(value), _CELL), style=style)

    return table(("key", "before", "after"), [(key, side(before, "red"), side(after, "green")) for key, (before, after) in pairs.items()])


def barriers(records: Sequence[BarrierRecord]) -> Table:
    """`approvals ls`."""
    rows = [
        (each.run_id, each.ticket, one_line(each.prompt), ", ".join(each.approvers) or "anybody", local(each.deadline)) for each in records
    ]
    return table(("run", "ticket", "asks", "of", "until"), rows, whole=("run", "ticket", "until"))


def of_ticket(run_id: str, barrier: BarrierRecord | EarlyTicket) -> RenderableType:
    """`approvals show`: all that a person decides over; nothing is cut."""
    from rich.console import Group

    from checkpoint_stores.deciding import EarlyTicket

    if isinstance(barrier, EarlyTicket):
        approvers = ", ".join(barrier.approvers) or "anybody"
        return facts([("run", run_id), ("ticket", barrier.name), ("status", "not open yet: the run has not come there"), ("of", approvers)])
    votes = f"{barrier.quorum} approvals needed" if barrier.quorum > 1 else ""
    told = facts(
        [
            ("run", barrier.run_id),
            ("ticket", barrier.ticket),
            ("status", status(barrier.status)),
            ("asks", printable(barrier.prompt)),
            ("of", ", ".join(barrier.approvers) or "anybody"),
            ("votes", votes),
            ("until", f"{local(barrier.deadline)}, then {barrier.on_timeout}" if barrier.deadline else ""),
            ("since", local(barrier.opened_at)),
            ("reminded", f"{barrier.nudged} times" if barrier.nudged > 1 else "once" if barrier.nudged else ""),
            ("digest", barrier.digest),
        ]
    )
    parts: list[RenderableType] = [told]
    if barrier.payload:
        parts.append(titled("shown", values(barrier.payload, limit=None)))
    properties = (barrier.form or {}).get("properties", {})
    if properties:
        parts.append(titled("may be edited", facts((key, value_text(schema)) for key, schema in properties.items())))
    return Group(*parts)


def decisions(records: Sequence[DecisionRecord]) -> Table:
    """Who decided what, when and why."""
    rows = [
        (
            each.ticket,
            status(each.action),
            f"{each.actor} for {each.on_behalf_of}" if each.on_behalf_of else each.actor,
            one_line(each.reason),
            each.source,
            local(each.decided_at),
            "" if each.payload_digest else "unseen",
        )
        for each in records
    ]
    return table(("ticket", "decision", "by", "reason", "from", "at", ""), rows, whole=("at",))


def grants(records: Sequence[Grant], now: int) -> Table:
    """`approvals allowed`."""
    columns = ("grant", "what", "barrier", "of", "by", "until", "left")
    rows = [
        (
            each.id,
            f"{each.action} {each.uses}" if each.kind == "allowance" else f"{each.to} may decide",
            each.ticket or (f"{each.barrier} in {each.path}" if each.path else each.barrier),
            each.run_id or f"flow {each.flow}",
            each.actor,
            local(each.expires_at),
            _left(each, now),
        )
        for each in records
    ]
    return table(columns, rows, whole=("grant", "until"))


def _left(grant: Grant, now: int) -> str:
    from checkpoint_stores.grants import is_live

    if grant.revoked_at is not None:
        return f"revoked by {grant.revoked_by}"
    if not is_live(grant, now):
        return "used up" if grant.uses is not None and grant.used >= grant.uses else "over"
    return "" if grant.uses is None else str(grant.uses - grant.used)


def early_decisions(records: Sequence[DecisionRecord]) -> Table:
    """What was decided on tickets that have not opened."""
    rows = [(each.run_id, each.ticket, status(each.action), each.actor, one_line(each.reason), local(each.decided_at)) for each in records]
    return table(("run", "ticket", "decision", "by", "reason", "at"), rows, whole=("run", "ticket", "at"))


def effects(records: Sequence[EffectRecord]) -> Table:
    """`runs effects`."""
    rows = [
        (
            each.key[:12],
            one_line(each.name),
            each.place,
            status(each.status),
            local(each.started_at),
            shortened(value_text(each.outcome), _CELL) if each.status == "done" else one_line(each.reason),
            f"by {one_line(each.by)}" if each.by else "",
        )
        for each in records
    ]
    return table(("key", "effect", "step", "status", "started", "outcome", ""), rows, whole=("key", "status", "started"))


def problems(found: Sequence[Problem]) -> Table:
    """`db verify`."""
    return table(("run", "seq", "problem"), [(each.run_id, str(each.seq), one_line(each.reason)) for each in found], whole=("run", "seq"))
