"""How the updates of a state key are merged into its value, as pure functions.

Importing this package registers the built-in reducers.  It knows nobody: no
graph, no store, no run.
"""

from reducers.annotations import reducer_of
from reducers.builtin import (
    all_,
    any_,
    append,
    counter,
    deep_merge,
    error,
    extend,
    first,
    max_,
    merge,
    min_,
    replace,
    sum_,
    unique,
)
from reducers.changes import ABSENT, Change, ChangeKind, apply, apply_all
from reducers.errors import (
    DuplicateReducerError,
    ReducerAnnotationError,
    ReducerError,
    ReducerFunctionError,
    ReducerTypeError,
    TrailmarkError,
    UnknownReducerError,
)
from reducers.registry import Reducer, names, reducer, reducer_named, register

__all__ = [
    "ABSENT",
    "Change",
    "ChangeKind",
    "DuplicateReducerError",
    "Reducer",
    "ReducerAnnotationError",
    "ReducerError",
    "ReducerFunctionError",
    "ReducerTypeError",
    "TrailmarkError",
    "UnknownReducerError",
    "all_",
    "any_",
    "append",
    "apply",
    "apply_all",
    "counter",
    "deep_merge",
    "error",
    "extend",
    "first",
    "max_",
    "merge",
    "min_",
    "names",
    "reducer",
    "reducer_named",
    "reducer_of",
    "register",
    "replace",
    "sum_",
    "unique",
]
