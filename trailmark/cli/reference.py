"""The reference page of the command line, written from the commands themselves: ``docs/reference/cli.md``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer

from trailmark.cli.app import app
from trailmark.cli.exits import ExitCode

_HEAD = """\
# The command line

<!-- Written by docs/build_reference.py from the commands themselves; changes here are lost. -->

`trailmark` looks into a store of runs and drives runs of your flows. `python -m trailmark` is the same.

- Results go to stdout: as a table, or with `-o json` as one JSON document, or with `-o ids` as bare ids, one a line.
  Everything said about the work (progress, hints, errors) goes to stderr. Progress is shown on a terminal only.
- An error is one line on stderr that ends with the command to type next, where there is one. `--debug` shows its traceback.
- A run is named by its id or by the first or the last characters of it, eight at least.
- Times are in your zone in tables, and ISO 8601 in UTC in JSON. Fields of JSON are only ever added.
- A flow is named as `module:name` (the working folder is searched, too) or as `path/file.py:name`. A store never holds where
  code is, so `resume` must be told.
"""

_VARIABLES = """\
## Environment variables

| variable | stands for |
|---|---|
| `TRAILMARK_STORE` | `--store` |
| `TRAILMARK_FLOW` | `--flow` of `resume`, the flow of `flows graph` and `flows validate` |
| `TRAILMARK_USER` | `--by` |

An option wins over its variable. Nothing else in the environment changes what a command does.
"""


def reference() -> str:
    """The page, in Markdown."""
    root: Any = typer.main.get_command(app)
    parts = [
        _HEAD,
        _exit_codes(),
        _VARIABLES,
        "## Everywhere\n\nThese may stand before the command or behind it.\n\n" + _options(_everywhere(root)) + "\n",
    ]
    parts += [_command(name, command) for name, command in _commands(root, "trailmark")]
    return "\n".join(parts).rstrip() + "\n"


def _exit_codes() -> str:
    lines = ["## Exit codes", "", "| code | meaning |", "|---:|---|", *(f"| {int(code)} | {code.meaning} |" for code in ExitCode)]
    return "\n".join(lines) + "\n"


def _commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def _everywhere(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if getattr(parameter, "rich_help_panel", None) == "Everywhere"]


def _command(name: str, command: Any) -> str:
    shared = _everywhere(command)
    own = [parameter for parameter in command.params if parameter not in shared and parameter.name != "help"]
    arguments = [parameter for parameter in own if parameter.param_type_name == "argument"]
    options = [parameter for parameter in own if parameter.param_type_name == "option"]
    usage = " ".join([name, *(_argument(each) for each in arguments), *(["[OPTIONS]"] if options else [])])
    lines = [f"## `{name}`", "", inspect.cleandoc(command.help or ""), "", f"    {usage}", ""]
    if own:
        lines += [_options([*arguments, *options]), ""]
    return "\n".join(lines)


def _argument(parameter: Any) -> str:
    shown = parameter.metavar or parameter.name.upper()
    return shown if parameter.required else f"[{shown}]"


def _options(parameters: list[Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {_name(each)} | {_text(each)} |" for each in parameters)])


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_argument(parameter)}`"
    words = ", ".join(f"`{each}`" for each in sorted(parameter.opts, key=len, reverse=True))
    value = "" if parameter.is_flag else f" `{_value(parameter)}`"
    return (words + value).replace("|", "\\|")


def _value(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _text(parameter: Any) -> str:
    said = re.sub(r"\s+", " ", parameter.help or "")
    default = getattr(parameter.default, "value", parameter.default)
    if default not in (None, "", False, ()) and "Default:" not in said and not callable(default):
        said += f" Default: {default}."
    variable = f" Environment: `{parameter.envvar}`." if parameter.envvar else ""
    return (said + variable).replace("|", "\\|")
