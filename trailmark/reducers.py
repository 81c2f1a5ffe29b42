"""The reducers a flow's author names in the types of the state.

>>> from typing import Annotated
>>> from trailmark.reducers import append, reducer_of
>>> reducer_of(Annotated[list[str], append]).name
'append'
"""

from reducers import (
    ABSENT,
    Change,
    DuplicateReducerError,
    Reducer,
    ReducerAnnotationError,
    ReducerError,
    ReducerFunctionError,
    ReducerTypeError,
    UnknownReducerError,
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
    names,
    reducer,
    reducer_named,
    reducer_of,
    replace,
    sum_,
    unique,
)

__all__ = [
    "ABSENT",
    "Change",
    "DuplicateReducerError",
    "Reducer",
    "ReducerAnnotationError",
    "ReducerError",
    "ReducerFunctionError",
    "ReducerTypeError",
    "UnknownReducerError",
    "all_",
    "any_",
    "append",
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
    "replace",
    "sum_",
    "unique",
]
