"""The commands, put together.  What a command does stands in its own file; this one only names them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trailmark.cli import approvals, checks, db, demo, effects, flows, grants, replays, running, runs, steering, watching, worker
from trailmark.cli.exits import ExitCode
from trailmark.cli.plain import one_line
from trailmark.cli.terminal import Output, Terminal
from trailmark.cli.verbs import DebugOption, OutputOption, StoreOption, verb

app = typer.Typer(
    name="trailmark",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from trailmark import __version__

        typer.echo(f"trailmark {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    *,
    store: StoreOption = None,
    output: OutputOption = None,
    debug: DebugOption = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Durable graph workflows: start and resume runs, decide what waits for people, look into what happened."""
    context.obj = Terminal(store, output or Output.TABLE, debug)


verb(app, "demo", without=["output"])(demo.demo)
verb(app, "run")(running.run)
verb(app, "resume")(running.resume)
verb(app, "worker")(worker.worker)
verb(runs.app, "check")(checks.check)
verb(runs.app, "events")(watching.events)
verb(runs.app, "fork")(steering.fork)
verb(runs.app, "signal")(steering.signal)
verb(runs.app, "export")(steering.export)
verb(runs.app, "import")(steering.import_run)
verb(runs.app, "delete")(steering.delete)
verb(runs.app, "edit")(steering.edit)
verb(runs.app, "cancel")(steering.cancel)
verb(runs.app, "replay")(replays.replay)
verb(runs.app, "effects")(effects.effects)
verb(runs.app, "resolve-effect")(effects.resolve_effect)
verb(runs.app, "release")(steering.release)
verb(approvals.app, "allow")(grants.allow)
verb(approvals.app, "delegate")(grants.delegate)
verb(approvals.app, "allowed")(grants.allowed)
verb(approvals.app, "revoke")(grants.revoke)
app.add_typer(runs.app)
app.add_typer(approvals.app)
app.add_typer(flows.app)
app.add_typer(db.app)


def invoke(arguments: list[str]) -> int:
    """Carry out a command line; returns its exit code and never raises for what a person did."""
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="trailmark", standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        Terminal().say("trailmark: nothing was changed")
        return ExitCode.INTERRUPTED
    except typer.TyperException as error:
        return _misused(error)
    return int(code or 0)


def _misused(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    said = one_line(error.format_message()).rstrip(".").replace("Value error, ", "")
    if not said:
        return ExitCode.USAGE  # a bare `trailmark` or `trailmark runs`: its help was printed
    asked = getattr(context, "command_path", "trailmark")
    Terminal().say(f"trailmark: {said[:1].lower()}{said[1:]}; next: {asked} --help")
    return ExitCode.USAGE
