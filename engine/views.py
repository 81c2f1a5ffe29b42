"""What a node sees of the state: an instance of the user's own class that reads a key when it is asked for it.

A view costs what the node reads: a key is fetched and materialised (deep-copied, its models and enums revived) on its
first access and then stays.  Nothing a node does to a view reaches the state, and assigning to it is an error.
Knows nothing of flows or runs: it is given a function that reads a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, TypeAlias

from pydantic import BaseModel

from checkpoint_stores.codec import materialise
from engine.errors import ReadOnlyStateError, UnsetKeyError
from reducers.changes import ABSENT

Read: TypeAlias = Callable[[str], Any]
"""Returns a key's decoded value, or ABSENT.  The value belongs to the state: whoever hands it on copies it first."""

Default: TypeAlias = Callable[[], Any]

_SHARED = frozenset({str, int, float, bool, bytes, type(None)})
"""Types that cannot be mutated, and are handed out as they are."""

_stored = BaseModel.__dict__["__dict__"].__get__
"""Reads the real attribute dictionary of a model instance, past the property that fills it."""


def model_view(model: type[BaseModel], defaults: Mapping[str, Default]) -> Callable[[Read], BaseModel]:
    """Return the function that makes views of ``model``; ``defaults`` holds what to answer for keys that hold nothing.

    The class of a view is a subclass that pydantic never sees built: no validator is compiled again and no
    ``__init_subclass__`` hook of the user runs.
    """

    def filled(self: BaseModel) -> dict[str, Any]:
        present: dict[str, Any] = _stored(self)
        missing = [key for key in model.__pydantic_fields__ if key not in present]
        if missing:
            read = self._trailmark_read  # type: ignore[attr-defined]
            fetched = {key: value for key in missing if (value := _owned(read(key), key, defaults)) is not ABSENT}
            # In the order of the fields, which is the order in which a model shows, dumps and iterates them.
            for key in model.__pydantic_fields__:
                if key in fetched:
                    present[key] = fetched[key]
                elif key in present:
                    present[key] = present.pop(key)
        return present

    namespace = {
        "__slots__": ("_trailmark_read",),
        "__module__": model.__module__,
        "__qualname__": model.__qualname__,
        "__doc__": model.__doc__,
        "__hash__": model.__hash__,
        # Whoever takes the whole (repr, ==, model_dump, pydantic's compiled serializer) reads __dict__, and __class__ to compare.
        "__dict__": property(filled),
        "__class__": property(lambda self: model),
        **{key: _Field(key, defaults) for key in model.__pydantic_fields__},
    }
    view_class: Any = type.__new__(type(model), model.__name__, (_ModelView, model), namespace)
    new, remember = view_class.__new__, vars(view_class)["_trailmark_read"].__set__

    def view(read: Read) -> BaseModel:
        made: BaseModel = new(view_class)
        remember(made, read)
        return made

    return view


class _Field:
    """A field of a view that was not read yet.  Once read, the value in the instance hides this descriptor, which has no ``__set__``."""

    __slots__ = ("_defaults", "_key")

    def __init__(self, key: str, defaults: Mapping[str, Default]) -> None:
        self._key = key
        self._defaults = defaults

    def __get__(self, view: Any, owner: Any = None) -> Any:
        key = self._key
        if view is not None:
            value = view._trailmark_read(key)  # noqa: SLF001 - the slot of the class that this descriptor was made for
            if type(value) not in _SHARED:
                value = _owned(value, key, self._defaults)
            if value is not ABSENT:
                _stored(view)[key] = value
                return value
        raise AttributeError(key)  # of an instance, _ModelView.__getattr__ says it better


class _ModelView:
    """Stands before the user's model in the view's class: reads on demand, refuses assignment, copies to the plain model."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        """Keep the user's subclass hooks from running."""

    def __getattr__(self, name: str) -> Any:
        # Python asks here only for what it found nowhere else.
        cls: Any = type(self)
        if name in cls.__pydantic_fields__:
            raise UnsetKeyError(name, tuple(cls.__pydantic_fields__))
        if name == "__pydantic_fields_set__":
            object.__setattr__(self, name, set(self.__dict__))
        elif name == "__pydantic_extra__":
            object.__setattr__(self, name, None)
        elif name == "__pydantic_private__":
            object.__setattr__(self, name, None)
            if cls.__pydantic_post_init__:
                cls.model_post_init(self, None)
        else:
            return super().__getattr__(name)  # type: ignore[misc]
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        cls: Any = type(self)
        if name not in cls.__private_attributes__:
            raise ReadOnlyStateError(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise ReadOnlyStateError(name)

    def __copy__(self) -> Any:
        """A plain, mutable instance of the user's model."""
        return self._copied(dict)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        return self._copied(lambda held: deepcopy(held, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__copy__().__reduce_ex__(protocol)

    def _copied(self, copy: Callable[[Any], Any]) -> Any:
        source: Any = self
        model: Any = type(source).__mro__[2]  # the view's class, _ModelView, the user's model
        made = model.__new__(model)
        private = source.__pydantic_private__
        object.__setattr__(made, "__dict__", copy(source.__dict__))
        object.__setattr__(made, "__pydantic_fields_set__", set(source.__pydantic_fields_set__))
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None if private is None else copy(private))
        return made


class MappingView(Mapping[str, Any]):
    """The view of a state declared as a TypedDict or a dict: a read-only mapping of the keys that hold something.

    It is no dict, because C code reads a dict's storage past any laziness; ``dict(state)`` and ``state | {...}`` make one.
    """

    __slots__ = ("_defaults", "_held", "_keys", "_read")

    def __init__(self, read: Read, keys: Mapping[str, Any], defaults: Mapping[str, Default]) -> None:
        self._read = read
        self._keys = keys
        self._defaults = defaults
        self._held: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        held = self._held
        if key in held:
            value = held[key]
        else:
            value = held[key] = _owned(self._read(key), key, self._defaults) if key in self._keys else ABSENT
        if value is ABSENT:
            raise UnsetKeyError(key, tuple(self._keys))
        return value

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._keys if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __setitem__(self, key: str, value: Any) -> None:
        raise ReadOnlyStateError(key)

    def __delitem__(self, key: str) -> None:
        raise ReadOnlyStateError(key)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def copy(self) -> dict[str, Any]:
        """A plain, mutable dict."""
        return dict(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return deepcopy(dict(self), memo)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    def __repr__(self) -> str:
        return repr(dict(self))


def is_state_view(value: object) -> bool:
    """Whether ``value`` is a state as a node is given it (a copy of one is not)."""
    return isinstance(value, MappingView) or issubclass(type(value), _ModelView)


def _owned(value: Any, key: str, defaults: Mapping[str, Default]) -> Any:
    """What a node may hold and change: a copy of what the state holds, or the default where it holds nothing."""
    if value is ABSENT:
        return defaults[key]() if key in defaults else ABSENT
    return value if type(value) in _SHARED else materialise(value)
