"""Tells a user whose own module hides one of ours, before anything else can go wrong.

``engine``, ``checkpoint_stores`` and ``reducers`` are short names; a script folder or a project may well hold an
``engine.py``.  Python would import that one instead of ours and fail later, somewhere, over a missing name.
This file knows only where our packages lie: beside its own.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Final

PACKAGES: Final = ("engine", "checkpoint_stores", "reducers")
"""The import packages that come with trailmark and lie in the same folder."""


def guard() -> None:
    """Raise one ImportError that names the file if Python would not import our own packages."""
    home = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        found = _origin_of(package)
        if found is None:
            message = f"trailmark's own package {package!r} is missing from {home}; install trailmark again"
            raise ImportError(message, name=package)
        ours = home / package / "__init__.py"
        if Path(found).resolve() != ours.resolve():
            message = (
                f"{found} hides trailmark's own package {package!r} ({ours}); "
                f"rename it, or take its folder off sys.path, and import trailmark again"
            )
            raise ImportError(message, name=package, path=found)


def _origin_of(package: str) -> str | None:
    """Where Python takes, or already took, ``package`` from; None where it finds nothing."""
    loaded = sys.modules.get(package)
    if loaded is not None:
        return getattr(loaded, "__file__", None)
    found = importlib.util.find_spec(package)
    return found.origin if found is not None else None
