"""Classes that may stand in a state, by registered name, and the inert data they are stored as.

A stored enum member or model is loaded as `EnumData` or `ModelData`: plain
data that can be compared, printed and stored again without its class.  Only
when a value is handed to a node is it revived, and then no validator, no
``__init__`` and no import runs: the registry either knows the name or leaves
the placeholder as it is.  No import path is ever stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol, TypeVar, overload

from checkpoint_stores.errors import CodecError, DuplicateTypeError

C = TypeVar("C", bound=type)
_put: Final = object.__setattr__
"""Reaches the fields of frozen classes, too."""


@dataclass(frozen=True, slots=True)
class EnumData:
    """A stored enum member: the enum's registered name and the member's value.

    >>> EnumData("Color", "red")
    EnumData(name='Color', value='red')
    """

    name: str
    value: Any

    def __hash__(self) -> int:
        # A member can be a key or stand in a set whatever its value is.
        try:
            return hash((self.name, self.value))
        except TypeError:
            return hash(self.name)


@dataclass(frozen=True, slots=True)
class ModelData:
    """A stored pydantic model or dataclass: its registered name and its fields.

    >>> ModelData("Point", {"x": 1, "y": 2}).fields["y"]
    2
    """

    name: str
    fields: dict[str, Any]
    given: tuple[str, ...] | None = None
    """Of a pydantic model: the sorted names of the fields that were given; None = all of them."""
    extra: dict[str, Any] | None = None
    """Of a pydantic model that allows extra values: those."""
    private: dict[str, Any] | None = None
    """Of a pydantic model with private attributes: those."""

    def __hash__(self) -> int:
        # Placeholders stand in sets and as keys of dicts where a frozen model did.
        try:
            return hash((self.name, tuple(self.fields.values())))
        except TypeError:
            return hash(self.name)


class UnknownFieldError(Exception):
    """An instance carries an attribute that is none of its class's fields.  Internal to the codec."""

    def __init__(self, attribute: str) -> None:
        self.attribute = attribute
        super().__init__(attribute)


class _Form(Protocol):
    """How instances of one class become data and come back."""

    @property
    def name(self) -> str: ...
    @property
    def cls(self) -> type: ...
    def dismantle(self, value: Any) -> EnumData | ModelData: ...
    def build(self, placeholder: Any) -> Any: ...


class _EnumForm(NamedTuple):
    name: str
    cls: type

    def dismantle(self, value: Any) -> EnumData:
        return EnumData(self.name, value.value)

    def build(self, placeholder: EnumData) -> Any:
        try:
            return self.cls(placeholder.value)
        except ValueError:
            raise CodecError(f"enum {self.name} has no member with the stored value {placeholder.value!r}; add it again") from None


class _DataclassForm(NamedTuple):
    name: str
    cls: type

    def dismantle(self, value: Any) -> ModelData:
        names = [each.name for each in dataclasses.fields(self.cls)]
        _check_attributes(value, names)
        return ModelData(self.name, {name: getattr(value, name) for name in names if hasattr(value, name)})

    def build(self, placeholder: ModelData) -> Any:
        made: Any = object.__new__(self.cls)
        for each in dataclasses.fields(self.cls):
            if each.name in placeholder.fields:
                _put(made, each.name, placeholder.fields[each.name])
            elif each.default is not dataclasses.MISSING:
                _put(made, each.name, each.default)
            elif each.default_factory is not dataclasses.MISSING:
                _put(made, each.name, each.default_factory())
            elif each.init:
                raise _missing(self.name, each.name)
        return made


class _PydanticForm(NamedTuple):
    name: str
    cls: Any

    def dismantle(self, value: Any) -> ModelData:
        names = self.cls.__pydantic_fields__
        _check_attributes(value, names)
        fields = {name: value.__dict__[name] for name in names if name in value.__dict__}
        given = value.__pydantic_fields_set__
        return ModelData(
            self.name,
            fields,
            None if given == fields.keys() else tuple(sorted(given)),
            value.__pydantic_extra__,
            value.__pydantic_private__,
        )

    def build(self, placeholder: ModelData) -> Any:
        made = object.__new__(self.cls)
        values: dict[str, Any] = {}
        for name, declared in self.cls.__pydantic_fields__.items():
            if name in placeholder.fields:
                values[name] = placeholder.fields[name]
            elif declared.is_required():
                raise _missing(self.name, name)
            else:
                values[name] = declared.get_default(call_default_factory=True, validated_data=values)
        given = placeholder.fields if placeholder.given is None else placeholder.given
        # What the class no longer declares is not there to be given.
        _put(made, "__dict__", values)
        _put(made, "__pydantic_fields_set__", {name for name in given if name in values or name in (placeholder.extra or ())})
        if not self.cls.__pydantic_root_model__:
            _put(made, "__pydantic_extra__", placeholder.extra)
            _put(made, "__pydantic_private__", self._private(placeholder))
        return made

    def _private(self, placeholder: ModelData) -> dict[str, Any] | None:
        """The stored private attributes, and the defaults of those declared since."""
        declared = self.cls.__private_attributes__
        if not declared:
            return placeholder.private
        from pydantic_core import PydanticUndefined  # a pydantic class is here, so pydantic is loaded already

        defaults = {name: each.get_default() for name, each in declared.items() if name not in (placeholder.private or ())}
        return {name: each for name, each in defaults.items() if each is not PydanticUndefined} | (placeholder.private or {})


def _check_attributes(value: Any, names: Any) -> None:
    """Refuse attributes that would be lost; a cached_property is computed anew, so it may be."""
    for name in getattr(value, "__dict__", ()):
        if name not in names and not isinstance(getattr(type(value), name, None), cached_property):
            raise UnknownFieldError(name)


def _missing(name: str, missing: str) -> CodecError:
    return CodecError(f"a stored {name} lacks the field {missing!r}, which has no default; give it one to read old values")


class TypeRegistry:
    """Which classes are stored under which names."""

    __slots__ = ("_by_class", "_by_name")

    def __init__(self) -> None:
        self._by_name: dict[str, _Form] = {}
        self._by_class: dict[type, _Form] = {}

    def register(self, cls: type, name: str | None = None) -> None:
        """Store instances of ``cls`` (an enum, a pydantic model or a dataclass) under ``name``, by default the class's own.

        Registering the same class again is harmless; so is a module-level class that was defined anew (a reloaded module).

        Raises:
            DuplicateTypeError: the name belongs to another class, or the class has another name.
            CodecError: the class is none of the three kinds.
        """
        form = _form_of(cls, name or str(getattr(cls, "__name__", cls)))
        there = self._by_name.get(form.name)
        if there is not None and not _is_same(there.cls, cls):
            raise DuplicateTypeError(form.name, cls, f"{there.cls.__module__}.{there.cls.__qualname__} is stored under this name")
        known = self._by_class.get(cls)
        if known is not None and known.name != form.name:
            raise DuplicateTypeError(form.name, cls, f"it is already stored as {known.name!r}")
        self._by_name[form.name] = form
        self._by_class[cls] = form

    def __contains__(self, cls: object) -> bool:
        return cls in self._by_class

    def has_below(self, cls: type) -> bool:
        """Whether ``cls`` or a class below it is registered."""
        return any(issubclass(known, cls) for known in self._by_class)

    def names(self) -> tuple[str, ...]:
        """The registered names, sorted."""
        return tuple(sorted(self._by_name))

    def dismantle(self, value: Any) -> EnumData | ModelData | None:
        """Return the data of a registered class's instance; None where its class is not registered."""
        form = self._by_class.get(type(value))
        return None if form is None else form.dismantle(value)

    def build(self, placeholder: EnumData | ModelData) -> Any:
        """Return the instance a placeholder stands for; the placeholder itself where its name is not registered.

        Raises:
            CodecError: the class has changed so that it no longer fits the stored value.
        """
        form = self._by_name.get(placeholder.name)
        if form is None or isinstance(form, _EnumForm) is not isinstance(placeholder, EnumData):
            return placeholder
        return form.build(placeholder)

    @contextmanager
    def isolated(self) -> Iterator[TypeRegistry]:
        """Forget, at the end of the block, what was registered in it."""
        by_name, by_class = dict(self._by_name), dict(self._by_class)
        try:
            yield self
        finally:
            self._by_name, self._by_class = by_name, by_class


def _form_of(cls: type, name: str) -> _Form:
    if isinstance(cls, type):
        if issubclass(cls, Enum):
            return _EnumForm(name, cls)
        if hasattr(cls, "__pydantic_root_model__"):
            return _PydanticForm(name, cls)
        if dataclasses.is_dataclass(cls) and not issubclass(cls, (list, dict, set, tuple, str, BaseException)):
            return _DataclassForm(name, cls)
    raise CodecError(f"{cls!r} cannot be registered: only enums, pydantic models and dataclasses can")


def _is_same(there: type, cls: type) -> bool:
    again = (there.__module__, there.__qualname__) == (cls.__module__, cls.__qualname__)
    return there is cls or (again and "<locals>" not in cls.__qualname__)


TYPES: Final = TypeRegistry()
"""The registry of this process."""


@overload
def register_type(cls: C, *, name: str | None = None) -> C: ...
@overload
def register_type(*, name: str | None = None) -> Callable[[C], C]: ...
def register_type(cls: C | None = None, *, name: str | None = None) -> C | Callable[[C], C]:
    """Let instances of a class (enum, pydantic model, dataclass) stand in states.  Also a decorator, with or without a name.

    Only the name is stored.  Keep the old name with ``name=`` when you rename the class, or stored values stay `ModelData`.

    Raises:
        DuplicateTypeError: the name belongs to another class, or the class has another name.
        CodecError: the class is none of the three kinds.

    >>> from enum import Enum
    >>> @register_type(name="colour")
    ... class Colour(Enum):
    ...     RED = "r"
    >>> Colour.RED.value
    'r'
    """

    def registered(each: C) -> C:
        TYPES.register(each, name)
        return each

    return registered if cls is None else registered(cls)
