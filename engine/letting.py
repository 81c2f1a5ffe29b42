"""Nodes that give names to values: constants, and what functions of the state make.

Such a node is a task like any other; here its function and the version that the graph's hash knows it by are made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from checkpoint_stores.codec import decode as decoded
from checkpoint_stores.codec import encode, materialise
from engine.callables import identity_of, is_coroutine


def let_of(name: str, values: Mapping[str, Any]) -> tuple[Callable[[Any], Any], str]:
    """The function of a node that writes ``values`` (each a constant, or a plain function of the state), and its version.

    Raises ValueError (nothing to write, a function that is async), UnserialisableError (a constant that cannot be stored).
    """
    if not isinstance(name, str):
        raise ValueError("a name is a text that is not empty")  # noqa: TRY004 - told as a problem of the flow, with all others
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"values={values!r} must be a mapping of state keys to values")
    if not values:
        raise ValueError("it names nothing; give it values by key")
    waiting = [key for key, value in values.items() if callable(value) and is_coroutine(value)]
    if waiting:
        raise ValueError(f"what makes {', '.join(map(repr, waiting))} is async; what has to be waited for belongs in a node of its own")
    made = {key: value for key, value in values.items() if callable(value)}
    constants = {key: encode(value, key) for key, value in values.items() if key not in made}

    async def let(state: Any) -> dict[str, Any]:
        return {key: made[key](state) if key in made else materialise(decoded(constants[key])) for key in values}

    let.__name__ = name
    digest = hashlib.sha256()
    for key in values:
        digest.update(f"{key}\0{identity_of(made[key])}\0".encode() if key in made else key.encode() + b"\0=" + constants[key] + b"\0")
    return let, digest.hexdigest()[:16]
