"""The input of a run put together from the parts of a request: its path, its query and its body.

What the path says goes before the query, the query before the body.  Path and query hold texts, which become what the key is
declared as; the body is data already.  Knows no web framework: the parts are mappings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from engine.errors import InputError
from engine.schema import KeySpec, StateSchema, readable

_MANY: Final = (list, set, frozenset, tuple, Sequence)


def bound(schema: StateSchema, flow: str, *, path: Mapping[str, Any], query: Mapping[str, Any], body: object) -> dict[str, Any]:
    """The values that the parts of a request give, by key; see `FlowGraph.bind`.  Raises InputError."""
    problems: list[str] = []
    given: dict[str, Any] = {}
    for where, part in (("body", {} if body is None else body), ("query", query), ("path", path)):
        if not isinstance(part, Mapping):
            problems.append(f"{where}: a {type(part).__name__} is no mapping of keys")
            continue
        for name, value in part.items():
            found = schema.given_by(str(name), value)
            if found is None:
                problems.append(f"{where}: unknown key {name!r}; declared are: {', '.join(schema.keys) or 'none'}")
            for key, each in (found or {}).items():
                try:
                    given[key] = each if where == "body" else _read(schema.keys[key], each)
                except ValidationError as error:
                    problems += readable(error, f"{where}: {key}")
                    given[key] = None  # told already: it is not missing as well
    if problems:
        missing = [f"{spec.name}: Field required" for spec in schema.keys.values() if spec.required and spec.name not in given]
        raise InputError(flow, [*problems, *missing])
    schema.validate_input(flow, given)
    return given


def _read(spec: KeySpec, texts: Any) -> Any:
    """What a text, or the several of a repeated parameter, means for this key."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(spec.annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        adapter = TypeAdapter(spec.annotation)  # a model or dataclass brings its own configuration
    many = _takes_many(spec.annotation)
    if many and isinstance(texts, str):
        texts = [texts]
    elif not many and isinstance(texts, list) and len(texts) == 1:
        (texts,) = texts
    return adapter.validate_python(texts, strict=False)


def _takes_many(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _takes_many(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return any(_takes_many(each) for each in get_args(annotation) if each is not NoneType)
    return (origin or annotation) in _MANY
