"""From ``module:name`` or ``path/file.py:name`` to a compiled flow.

This is the one place where the command line imports a user's code.  The names of trailmark's own packages are short
(``engine``, ``reducers``): they are imported before the user's folder is put first on the path, so that a file of the
same name there cannot take their place.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reducers.errors import TrailmarkError
from trailmark._origin import PACKAGES
from trailmark.cli.terminal import FLOW_VARIABLE

if TYPE_CHECKING:
    from trailmark import FlowGraph


class FlowReferenceError(TrailmarkError):
    """What was given does not name a flow at all."""


class FlowLoadError(TrailmarkError):
    """The flow that was named cannot be had."""

    def __init__(self, message: str, *, then: str = "") -> None:
        self.then = then
        """The command to type next; "" where none would help."""
        super().__init__(message)


def load_graph(reference: str) -> FlowGraph:
    """The compiled flow that ``reference`` names.

    Raises FlowReferenceError (it names none), FlowLoadError (it cannot be imported, or is no flow), FlowValidationError.
    """
    from trailmark import Flow, FlowGraph

    place, name = split(reference)
    module = _place(place)
    found = getattr(module, name, None)
    if isinstance(found, FlowGraph):
        return found
    if isinstance(found, Flow):
        return found.compile()
    flows = sorted(each for each, value in vars(module).items() if isinstance(value, Flow | FlowGraph))
    there = f"it has the flow(s): {', '.join(f'{place}:{each}' for each in flows)}" if flows else "it has no flow at module level"
    what = f"has no {name!r}" if found is None else f"has a {type(found).__name__} called {name!r}, which is no Flow"
    raise FlowLoadError(f"{place} {what}; {there}")


def load_graphs(reference: str) -> list[FlowGraph]:
    """The compiled flows that ``reference`` names: a flow, an iterable of flows, or a mapping with flows as values.

    Raises what `load_graph` raises.
    """
    from trailmark import Flow, FlowGraph

    place, name = split(reference)
    found = getattr(_place(place), name, None)
    several = (
        list(found.values()) if isinstance(found, Mapping) else list(found) if isinstance(found, list | tuple | set | frozenset) else []
    )
    if not several or not all(isinstance(each, Flow | FlowGraph) for each in several):
        return [load_graph(reference)]
    return [each.compile() if isinstance(each, Flow) else each for each in several]


def _place(place: str) -> ModuleType:
    return _file_module(Path(place)) if place.endswith(".py") else _module(place)


def split(reference: str) -> tuple[str, str]:
    """Module or file, and name.

    >>> split("shop.invoices:flow"), split("flows/invoice.py:flow")
    (('shop.invoices', 'flow'), ('flows/invoice.py', 'flow'))

    Raises FlowReferenceError.
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name.isidentifier():
        example = f"{reference.rstrip(':')}:flow"
        raise FlowReferenceError(f"{reference!r} does not name a flow; write module:name or file.py:name, for example {example}")
    if not place.endswith(".py") and not all(part.isidentifier() for part in place.split(".")):
        raise FlowReferenceError(f"{place!r} is neither a module nor a .py file; write module:name or file.py:name")
    return place, name


def _module(name: str) -> ModuleType:
    _first_on_path(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise FlowLoadError(f"there is no module {error.name!r} in {Path.cwd()} or among the installed packages") from error
        raise _failed(name, error) from error
    except TrailmarkError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def _file_module(file: Path) -> ModuleType:
    if not file.is_file():
        raise FlowLoadError(f"there is no file {file}")
    file = file.resolve()
    _first_on_path(file.parent)
    known = sys.modules.get(file.stem)
    if known is not None and getattr(known, "__file__", None) == str(file):
        return known
    # The same name that an import would give it, unless something else has that name already.
    name = file.stem if known is None and file.stem.isidentifier() else f"flow_of_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - the file exists and ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, TrailmarkError) or not isinstance(error, Exception | SystemExit):
            raise
        raise _failed(str(file), error) from error
    return module


def _first_on_path(folder: Path) -> None:
    for package in PACKAGES:
        importlib.import_module(package)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _failed(name: str, error: BaseException) -> FlowLoadError:
    said = f"importing {name} failed: {type(error).__name__}: {error}"
    if isinstance(error, ImportError):
        said += "".join(f"; {file} has the name of trailmark's own package {package!r}, rename it" for package, file in _namesakes())
    return FlowLoadError(said)


def _namesakes() -> list[tuple[str, Path]]:
    folders = [Path(folder or ".") for folder in sys.path[:2]]
    return [(package, folder / f"{package}.py") for folder in folders for package in PACKAGES if (folder / f"{package}.py").is_file()]


def flow_reference(given: str | None, environment: dict[str, str] | Any) -> str | None:
    """The flow named by --flow, else by TRAILMARK_FLOW; None where neither names one."""
    return given or environment.get(FLOW_VARIABLE) or None
