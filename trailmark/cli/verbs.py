"""How a function becomes a command: its options, its event loop, its exit code.

A command is a function ``(terminal, ...) -> ExitCode | None``, plain or async, whose annotated parameters are its options.  Each
also takes --store, --output and --debug (where they mean something), so that these may stand before or behind it.  Errors become one line and an exit code
here and nowhere else.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Collection, Coroutine
from typing import Annotated, Any, TypeVar

import typer

from trailmark.cli.exits import ExitCode
from trailmark.cli.terminal import Output, Terminal

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Where the runs are: a database URL, or the path of a SQLite file. Default: the environment variable TRAILMARK_STORE, else trailmark.db in the working folder.",
        rich_help_panel="Everywhere",
    ),
]
OutputOption = Annotated[
    Output | None,
    typer.Option(
        "--output",
        "-o",
        metavar="table|json|ids",
        help="What is printed: a table for people, JSON, or bare ids for other commands.",
        rich_help_panel="Everywhere",
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Everywhere")]

_EVERYWHERE = {"store": (StoreOption, None), "output": (OutputOption, None), "debug": (DebugOption, False)}


def group(name: str, text: str) -> typer.Typer:
    """An empty group of commands."""
    return typer.Typer(name=name, help=text, no_args_is_help=True, add_completion=False, rich_markup_mode="rich")


def verb(app: typer.Typer, name: str, *, without: Collection[str] = (), **settings: Any) -> Callable[[F], F]:
    """Make the decorated function the command ``name`` of ``app``; its docstring is the help.

    ``without`` names what is given everywhere and means nothing here.
    """

    def register(function: F) -> F:
        signature = inspect.signature(function, eval_str=True)
        _terminal, *own = signature.parameters.values()

        def called(**given: Any) -> None:
            context: typer.Context = given.pop("context")
            options = {each: given.pop(each, default) for each, (_annotation, default) in _EVERYWHERE.items()}
            terminal = (context.find_object(Terminal) or Terminal()).with_options(**options)
            raise typer.Exit(carried_out(terminal, lambda: function(terminal, **given)))

        # typer reads a command's options from its signature, and hands everything over by name.
        by_name = [("context", typer.Context, inspect.Parameter.empty), *((each.name, each.annotation, each.default) for each in own)]
        by_name += [(each, annotation, default) for each, (annotation, default) in _EVERYWHERE.items() if each not in without]
        called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
                for each, annotation, default in by_name
            ]
        )
        called.__annotations__ = {each: annotation for each, annotation, _default in by_name}
        called.__doc__ = function.__doc__
        app.command(name, **settings)(called)
        return function

    return register


def carried_out(terminal: Terminal, work: Callable[[], Any]) -> int:
    """Do ``work`` and return its exit code; an error is told in one line (--debug: after its traceback)."""
    try:
        outcome = work()
        if inspect.iscoroutine(outcome):
            outcome = in_loop(outcome)
    except (typer.Exit, typer.Abort, typer.TyperException):
        raise
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except TerminatedError:
        return ExitCode.TERMINATED
    except BrokenPipeError:
        return _unheard()
    except Exception as error:  # noqa: BLE001 - the one place where errors become exit codes
        return _told(terminal, error)
    return ExitCode.OK if outcome is None else int(outcome)


class TerminatedError(BaseException):
    """The process was asked to end (SIGTERM)."""


def in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; SIGTERM cancels it (and becomes TerminatedError), as Ctrl-C does."""
    import asyncio

    asked: list[bool] = []

    async def ending_on_sigterm() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - inside asyncio.run

        def end() -> None:
            asked.append(True)
            task.cancel()

        try:
            loop.add_signal_handler(signal.SIGTERM, end)
        except (NotImplementedError, RuntimeError, ValueError):
            pass  # no such signals here, or not the main thread
        return await work

    try:
        return asyncio.run(ending_on_sigterm())
    except asyncio.CancelledError:
        if asked:
            raise TerminatedError from None
        raise


def _unheard() -> ExitCode:
    """Whoever reads our output has had enough (``trailmark runs ls | head -1``): that is no error, and nothing more can be said."""
    import os
    import sys

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.OK


def _told(terminal: Terminal, error: Exception) -> ExitCode:
    from trailmark.cli.faults import fault_of

    if terminal.debug:
        import traceback

        traceback.print_exception(error)
    fault = fault_of(error, terminal)
    hint = f"; next: {fault.then}" if fault.then else ""
    bug = " (--debug shows where)" if fault.code is ExitCode.BUG and not terminal.debug else ""
    terminal.say(f"trailmark: {fault.line}{bug}{hint}")
    return fault.code
