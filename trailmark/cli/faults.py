"""Which error means which exit code, in which words, and what to type next.

A table over the error classes, most special first, and sentences for those whose own message speaks to a programmer.  Pure.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from checkpoint_stores import errors as store_errors
from engine import errors as engine_errors
from reducers.errors import TrailmarkError
from trailmark.cli.exits import ExitCode
from trailmark.cli.finding import FlowLoadError, FlowReferenceError
from trailmark.cli.given import UsageError
from trailmark.cli.plain import one_line
from trailmark.cli.terminal import FLOW_VARIABLE, Terminal


class Fault(NamedTuple):
    """An error, told to the person who typed the command."""

    code: ExitCode
    line: str
    """One line."""
    then: str = ""
    """The command to type next; "" where none would help."""


_CODES: Final[tuple[tuple[type[BaseException], ExitCode], ...]] = (
    (UsageError, ExitCode.USAGE),
    (FlowReferenceError, ExitCode.USAGE),
    (engine_errors.InputError, ExitCode.USAGE),
    (engine_errors.BadEventIdError, ExitCode.USAGE),
    (engine_errors.EditError, ExitCode.USAGE),
    (store_errors.InvalidDecisionError, ExitCode.USAGE),
    (store_errors.AmbiguousTicketError, ExitCode.USAGE),
    (store_errors.AmbiguousEffectError, ExitCode.USAGE),
    (store_errors.UnserialisableError, ExitCode.USAGE),
    (store_errors.ArgumentError, ExitCode.USAGE),
    (store_errors.AmbiguousRunError, ExitCode.USAGE),
    (store_errors.RunNotFoundError, ExitCode.NOT_FOUND),
    (store_errors.CheckpointNotFoundError, ExitCode.NOT_FOUND),
    (store_errors.UnknownBarrierError, ExitCode.NOT_FOUND),
    (store_errors.UnknownSignalError, ExitCode.NOT_FOUND),
    (store_errors.InvalidSignalError, ExitCode.USAGE),
    (store_errors.SignalConflictError, ExitCode.CONFLICT),
    (store_errors.UnknownEffectError, ExitCode.NOT_FOUND),
    (store_errors.UnknownFlowError, ExitCode.NOT_FOUND),
    (store_errors.UnknownGrantError, ExitCode.NOT_FOUND),
    (store_errors.InvalidGrantError, ExitCode.USAGE),
    (store_errors.BarrierError, ExitCode.CONFLICT),
    (store_errors.EffectError, ExitCode.CONFLICT),
    (store_errors.RunExistsError, ExitCode.CONFLICT),
    (store_errors.RunEndedError, ExitCode.CONFLICT),
    (store_errors.IllegalTransitionError, ExitCode.CONFLICT),
    (store_errors.LeaseHeldError, ExitCode.CONFLICT),
    (store_errors.RunMovedError, ExitCode.CONFLICT),
    (store_errors.RunFileError, ExitCode.CORRUPT),
    (store_errors.RunNotEndedError, ExitCode.CONFLICT),
    (store_errors.LeaseLostError, ExitCode.CONFLICT),
    (engine_errors.ForkError, ExitCode.CONFLICT),
    (FlowLoadError, ExitCode.FLOW),
    (engine_errors.FlowError, ExitCode.FLOW),
    (engine_errors.GraphChangedError, ExitCode.FLOW),
    (engine_errors.MigrationError, ExitCode.FLOW),
    (engine_errors.WrongFlowError, ExitCode.FLOW),
    (store_errors.StoreUnavailableError, ExitCode.STORE),
    (store_errors.SchemaVersionError, ExitCode.STORE),
    (store_errors.CheckpointCorruptError, ExitCode.CORRUPT),
    (store_errors.CodecError, ExitCode.CORRUPT),
    (TrailmarkError, ExitCode.FAILED),
)


def fault_of(error: BaseException, terminal: Terminal) -> Fault:
    """What to say about ``error``, and which code to end with."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.BUG)
    told = _TOLD.get(type(error))
    line, following = told(error, terminal) if told else (str(error), "")
    if not isinstance(error, TrailmarkError):
        line = f"{type(error).__name__}: {line}"
    return Fault(code, one_line(line), following)


def _run_not_found(error: Any, terminal: Terminal) -> tuple[str, str]:
    if len(error.run_id) < store_errors.SHORTEST_ID:
        said = f"{error.run_id!r} is too short for a run id; its first or last {store_errors.SHORTEST_ID} characters do"
    elif len(error.run_id) < 36:
        said = f"no run's id begins or ends with {error.run_id!r}"
    else:
        said = f"there is no run {error.run_id!r} in this store"
    return said, terminal.command("runs", "ls")


def _ambiguous_run(error: Any, terminal: Terminal) -> tuple[str, str]:
    said = f"several runs fit {error.run_id!r}: {', '.join(error.candidates)}; type a whole id, or its last {store_errors.SHORTEST_ID} characters"
    return said, terminal.command("runs", "show", error.candidates[0][-store_errors.SHORTEST_ID :])


def _lease_held(error: Any, terminal: Terminal) -> tuple[str, str]:
    until = f" (its lease runs until {error.expires_at.astimezone():%H:%M:%S})" if error.expires_at else ""
    said = f"run {error.run_id} is being advanced by {error.owner}{until}; wait for it, or take the run over"
    return said, terminal.resume_command(error.run_id, "--takeover")


def _graph_changed(error: Any, terminal: Terminal) -> tuple[str, str]:
    if not error.objections:
        return f"run {error.run_id} was driven by another version of this flow ({'; '.join(error.difference)})", terminal.resume_command(
            error.run_id
        )
    said = f"run {error.run_id} cannot go on with this version of its flow as it stands: {'; '.join(map(str, error.objections))}"
    if error.has_place:
        return said.replace("mode='force'", "--force"), terminal.resume_command(error.run_id, "--force")
    return said, terminal.command("flows", "diff", error.run_id, terminal.flow or os.environ.get(FLOW_VARIABLE, "MODULE:NAME"))


def _run_exists(error: Any, terminal: Terminal) -> tuple[str, str]:
    return f"run_key {error.run_key!r} already names run {error.run_id}", terminal.resume_command(error.run_id)


def _not_ended(error: Any, terminal: Terminal) -> tuple[str, str]:
    return f"run {error.run_id} is {error.status}, and only runs that have ended are deleted", terminal.command(
        "runs", "cancel", error.run_id
    )


def _run_key_conflict(error: Any, terminal: Terminal) -> tuple[str, str]:
    differs = f" ({', '.join(error.keys)} differ{'s' if len(error.keys) == 1 else ''})" if error.keys else ""
    said = f"run_key {error.run_key!r} already names run {error.run_id} ({error.status}), which was started with another input{differs}"
    return f"{said}; use another key, or let this one take its place with --supersede", terminal.command("runs", "show", error.run_id)


def _corrupt(error: Any, terminal: Terminal) -> tuple[str, str]:
    return f"checkpoint {error.seq} of run {error.run_id} is corrupt: {error.reason}", terminal.command("db", "verify", error.run_id)


def _checkpoint_not_found(error: Any, terminal: Terminal) -> tuple[str, str]:
    return f"run {error.run_id} has no checkpoint {error.seq}", terminal.command("runs", "steps", error.run_id)


def _unknown_barrier(error: Any, terminal: Terminal) -> tuple[str, str]:
    return str(error), terminal.command("approvals", "ls")


def _unknown_flow(error: Any, terminal: Terminal) -> tuple[str, str]:
    return f"this store knows no flow {error.flow!r}; its graph is kept with its first run", terminal.command("runs", "ls")


def _unknown_grant(error: Any, terminal: Terminal) -> tuple[str, str]:
    return f"there is no grant {error.grant_id!r}", terminal.command("approvals", "allowed", "--all")


def _stale_payload(error: Any, terminal: Terminal) -> tuple[str, str]:
    return str(error), terminal.command("approvals", "show", error.run_id, error.ticket)


def _ended(error: Any, terminal: Terminal) -> tuple[str, str]:
    return str(error), terminal.command("runs", "show", error.run_id)


def _fork(error: Any, terminal: Terminal) -> tuple[str, str]:
    return f"run {error.run_id} has already {error.status} at checkpoint {error.seq}; fork it at an earlier one", terminal.command(
        "runs", "steps", error.run_id
    )


def _schema(error: Any, terminal: Terminal) -> tuple[str, str]:
    if error.remedy:
        return str(error), ""
    said = f"the schema of {error.url} is {error.found}, this trailmark needs {error.expected}"
    return (f"{said}; install a newer trailmark", "") if error.newer else (said, terminal.command("db", "upgrade"))


def _with_then(error: Any, _terminal: Terminal) -> tuple[str, str]:
    return str(error), error.then


_TOLD: Final[dict[type[BaseException], Callable[[Any, Terminal], tuple[str, str]]]] = {
    UsageError: _with_then,
    FlowLoadError: _with_then,
    store_errors.RunNotFoundError: _run_not_found,
    store_errors.AmbiguousRunError: _ambiguous_run,
    store_errors.LeaseHeldError: _lease_held,
    store_errors.RunExistsError: _run_exists,
    engine_errors.RunKeyConflictError: _run_key_conflict,
    store_errors.RunEndedError: _ended,
    store_errors.RunNotEndedError: _not_ended,
    store_errors.CheckpointCorruptError: _corrupt,
    store_errors.CheckpointNotFoundError: _checkpoint_not_found,
    store_errors.UnknownBarrierError: _unknown_barrier,
    store_errors.UnknownFlowError: _unknown_flow,
    store_errors.UnknownGrantError: _unknown_grant,
    store_errors.StalePayloadError: _stale_payload,
    store_errors.SchemaVersionError: _schema,
    engine_errors.GraphChangedError: _graph_changed,
    engine_errors.ForkError: _fork,
}
