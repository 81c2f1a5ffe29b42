"""What keys a flow's state has, and what may stand in them.

A pydantic model, a TypedDict or a plain ``{key: annotation}`` declares the keys; a reducer stands in the annotation.
Knows nothing of graphs, steps or stores.

Coercion is pydantic's and the author's to choose: a model's ``model_config`` (or a TypedDict's ``__pydantic_config__``)
says whether ``"12"`` becomes the 12 of an ``int`` key; without ``strict=True`` it does, and what is stored is the 12.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple, NotRequired, get_origin, get_type_hints

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, SchemaValidator
from typing_extensions import TypedDict, is_typeddict

from checkpoint_stores.codec import materialise
from engine.errors import InputError
from engine.stored_types import bare, is_marked_required, register_types_in
from engine.views import MappingView, Read, model_view
from reducers.annotations import reducer_of
from reducers.changes import ABSENT
from reducers.errors import with_article
from reducers.registry import Reducer

_MERGING = frozenset({"merge", "deep_merge", "counter"})
_EXACT: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


class KeySpec(NamedTuple):
    """One declared key of the state."""

    name: str
    annotation: Any
    """As declared, with everything that stands in ``Annotated``."""
    reducer: Reducer
    required: bool
    """Whether the input must give it."""
    default: Callable[[], Any] | None = None
    """Makes the value the key starts with; None = it starts without one."""

    @property
    def has_default(self) -> bool:
        return self.default is not None


class StateSchema:
    """The keys of one flow's state: checks what is written, shows what is read.

    Raises:
        TypeError: ``declaration`` declares no keys, or one that pydantic cannot understand.
    """

    def __init__(self, declaration: Any) -> None:
        self.declaration = declaration
        self.model: type[BaseModel] | None = None
        self._validate: dict[str, Callable[[Any], Any]] = {}
        self._validate_update: dict[str, Callable[[Any], Any]] = {}
        self._exact: dict[str, type] = {}
        self._assign: SchemaValidator | None = None
        self._looks_around: frozenset[str] = frozenset()
        self._lenient: frozenset[str] = frozenset()
        if isinstance(declaration, type) and issubclass(declaration, BaseModel):
            self.keys = self._keys_of_model(declaration)
        elif is_typeddict(declaration):
            self.keys = self._keys_of_mapping(
                get_type_hints(declaration, include_extras=True), getattr(declaration, "__pydantic_config__", None)
            )
        elif isinstance(declaration, Mapping) and all(isinstance(key, str) for key in declaration):
            self.keys = self._keys_of_mapping(declaration, None)
        else:
            raise TypeError(
                f"{declaration!r} declares no keys; give a pydantic model class, a TypedDict class or a dict of annotations by key"
            )
        for name, spec in self.keys.items():
            register_types_in(spec.annotation)
            partial_update = _partial_validator(spec)
            if partial_update is not None:
                self._validate_update[name] = partial_update
        self._lenient = frozenset(name for name, spec in self.keys.items() if not spec.reducer.builtin)
        self.plain = {name: exact for name, exact in self._exact.items() if self.keys[name].reducer.replaces}
        """Of keys whose update is simply set: the builtin type of which a value needs no check at all."""
        self._defaults = {name: spec.default for name, spec in self.keys.items() if spec.default is not None}
        self.view: Callable[[Read], Any] = (
            model_view(self.model, self._defaults)
            if self.model is not None
            else partial(MappingView, keys=self.keys, defaults=self._defaults)
        )
        """Make the read-only state a node or condition gets; ``read(key)`` returns a decoded value or ABSENT."""

    # --- declaring --------------------------------------------------------------------------------------------------
    def _keys_of_model(self, model: type[BaseModel]) -> dict[str, KeySpec]:
        self.model = model
        fields, config, definitions = _model_fields_of(TypeAdapter(model).core_schema)
        inner: Any = {"type": "model-fields", "fields": fields}
        self._assign = SchemaValidator(
            {"type": "definitions", "schema": inner, "definitions": definitions} if definitions else inner, config
        )
        self._looks_around = frozenset(name for name, field in fields.items() if _has_with_info(field))
        loosening = {"strict", "coerce_numbers_to_str"}  # neither changes what an exact type gives
        if not any(str(option).startswith("str_") or option == "allow_inf_nan" for option in set(config or {}) - loosening):
            self._exact = {name: exact for name, field in fields.items() if (exact := _exact_type(field["schema"])) is not None}
        return {name: _key_spec(name, field) for name, field in model.__pydantic_fields__.items()}

    def _keys_of_mapping(self, hints: Mapping[str, Any], config: ConfigDict | None) -> dict[str, KeySpec]:
        keys = {}
        for name, hint in hints.items():
            field = FieldInfo.from_annotation(bare(hint))
            adapter = _adapter(_annotation_of(field), config)
            self._validate[name] = adapter.validator.validate_python
            exact = _exact_type(adapter.core_schema)
            if exact is not None and not config:
                self._exact[name] = exact
            keys[name] = _key_spec(name, field, required=is_marked_required(hint))
        return keys

    # --- checking ---------------------------------------------------------------------------------------------------
    def validate_input(self, flow: str, input: object) -> dict[str, Any]:  # noqa: A002 - the word users know
        """Return the values a run starts with, defaults included.

        ``input`` is a mapping or an instance of the state's model.

        Raises:
            InputError: with every problem at once.
        """
        if self.model is not None and isinstance(input, self.model):
            given: Any = input
            unknown: list[str] = []
        elif input is None or isinstance(input, Mapping):
            known, offered = self._input_names(), input or {}
            given = {name: value for name, value in offered.items() if name in known}
            unknown = [f"unknown key {name!r}; declared are: {', '.join(self.keys) or 'none'}" for name in offered if name not in known]
        else:
            raise InputError(
                flow,
                [f"{with_article(type(input).__name__)} is no input; give a mapping of state keys or an instance of the state's model"],
            )
        try:
            values, problems = self._model_values(given) if self.model is not None else self._mapping_values(given)
        except Exception as error:  # pydantic passes on what the author's validators raise, but for ValueError and AssertionError
            raise InputError(flow, [*unknown, f"a validator raised {type(error).__name__}: {error}"]) from error
        if unknown or problems:
            raise InputError(flow, [*unknown, *problems])
        return values

    def given(self, input: object) -> tuple[str, ...]:  # noqa: A002 - the word users know
        """The keys that an input which `validate_input` takes gives itself; the others have their defaults."""
        if self.model is not None and isinstance(input, self.model):
            return tuple(name for name in self.keys if name in input.model_fields_set)
        offered: Any = input or ()
        return tuple(name for name in self.keys if not self._names_of(name).isdisjoint(offered))

    def given_by(self, name: str, value: Any) -> dict[str, Any] | None:
        """What an input gives by ``name`` (a key's own, an alias, where a path into ``value`` begins), by key; None where nothing is called so."""
        given = {}
        for key in self.keys:
            for alias in self._aliases_of(key):
                if alias == name:
                    given[key] = value
                elif isinstance(alias, AliasPath) and (found := alias.search_dict_for_path({name: value})) is not PydanticUndefined:
                    given[key] = found
        return given if given or name in self._input_names() else None

    def _input_names(self) -> set[str]:
        return {named for name in self.keys for named in self._names_of(name)}

    def _names_of(self, key: str) -> set[str]:
        """By which names an input may give the key."""
        return {str(alias.path[0]) if isinstance(alias, AliasPath) else alias for alias in self._aliases_of(key)}

    def _aliases_of(self, key: str) -> list[str | AliasPath]:
        """The key's own name, and what else its model calls it."""
        alias = self.model.__pydantic_fields__[key].validation_alias if self.model is not None else None
        if isinstance(alias, AliasChoices):
            return [key, *alias.choices]
        return [key] if alias is None else [key, alias]

    def _model_values(self, given: Any) -> tuple[dict[str, Any], list[str]]:
        model: Any = self.model
        named: dict[str, Any] = {"by_name": True, "by_alias": True} if isinstance(given, dict) else {}
        try:
            made = model.model_validate(given, **named)
        except ValidationError as error:
            return {}, readable(error)
        held = made.__dict__
        return {name: held[name] for name in self.keys if name in held}, []

    def _mapping_values(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        values, problems = {}, []
        for name, spec in self.keys.items():
            if name in given:
                try:
                    values[name] = self._validate[name](given[name])
                except ValidationError as error:
                    problems += readable(error, name)
            elif spec.default is not None:
                values[name] = spec.default()
            elif spec.required:
                problems.append(f"{name}: Field required")
        return values, problems

    def validate_update(self, key: str, value: Any, read: Read | None = None) -> Any:
        """Return ``value`` as it shall be merged into ``key``: checked against its annotation and its field validators.

        What is merged key by key (merge, deep_merge, counter) may give some keys of a TypedDict only.  A reducer of your own may take
        updates of another type than the key's: what does not fit the annotation reaches it as it is.

        ``read`` gives validators that look at other fields (``info.data``) the current state.

        Raises:
            ValueError: the value does not fit (pydantic's ValidationError is one).
            KeyError: the key is not declared.
        """
        if self._exact.get(key) is type(value):
            return value
        try:
            validate = self._validate_update.get(key) or self._validate.get(key)
            return self._validated_field(key, value, read) if validate is None else validate(value)
        except ValidationError:
            if key in self._lenient:
                return value
            raise

    def _validated_field(self, key: str, value: Any, read: Read | None) -> Any:
        if self._assign is None or key not in self.keys:
            raise KeyError(key)
        around = {}
        if read is not None and key in self._looks_around:
            around = {name: materialise(held) for name in self.keys if name != key and (held := read(name)) is not ABSENT}
        values: Any = self._assign.validate_assignment(around, key, value)  # (values, extra, names set)
        return values[0][key]

    def check_final(self, read: Read) -> None:
        """Check the state as a whole, model validators included.

        Raises:
            ValueError: it breaks the model's own rules; the text names every problem.
        """
        held = {name: materialise(value) for name in self.keys if (value := read(name)) is not ABSENT}
        _, problems = self._model_values(held) if self.model is not None else self._mapping_values(held)
        if problems:
            raise ValueError("; ".join(problems))


def readable(error: ValidationError, where: str = "") -> list[str]:
    """One line per problem pydantic found: ``amount: Input should be a valid number``."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        place = ".".join(str(part) for part in ((where,) if where else ()) + problem["loc"])
        lines.append(f"{place}: {problem['msg']}" if place else problem["msg"])
    return lines


def _annotation_of(field: FieldInfo) -> Any:
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _key_spec(name: str, field: FieldInfo, *, required: bool | None = None) -> KeySpec:
    annotation = _annotation_of(field)
    default = None if field.is_required() else partial(field.get_default, call_default_factory=True, validated_data={})
    return KeySpec(name, annotation, reducer_of(annotation), field.is_required() if required is None else required, default)


def _adapter(annotation: Any, config: ConfigDict | None) -> TypeAdapter[Any]:
    try:
        # Classes the codec knows by registration alone are checked with isinstance.
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, **(config or {})))
    except PydanticUserError:
        return TypeAdapter(annotation)  # a model or dataclass brings its own configuration


def _partial_validator(spec: KeySpec) -> Callable[[Any], Any] | None:
    """Of a TypedDict that is merged key by key: a validator that misses no key."""
    declared = bare(spec.annotation.__origin__ if get_origin(spec.annotation) is Annotated else spec.annotation)
    if spec.reducer.name not in _MERGING or not is_typeddict(declared):
        return None
    # A subclass that only says total=False would leave the inherited keys required: a new TypedDict says it of all.
    optional = {name: NotRequired[bare(hint)] for name, hint in get_type_hints(declared, include_extras=True).items()}
    return TypeAdapter(TypedDict(declared.__name__, optional)).validator.validate_python  # type: ignore[operator]


def _model_fields_of(schema: Any) -> tuple[dict[str, Any], Any, Sequence[Any]]:
    """Dig the fields, the configuration and the shared definitions out of a model's core schema, past its model validators."""
    definitions: Sequence[Any] = ()
    config = None
    while schema["type"] != "model-fields":
        if schema["type"] == "definitions":
            definitions = schema["definitions"]
        if schema["type"] == "definition-ref":
            schema = next(found for found in definitions if found.get("ref") == schema["schema_ref"])
            continue
        if schema["type"] == "model":
            config = schema.get("config", config)
        if "schema" not in schema:
            raise TypeError("this kind of model has no fields; a state needs named keys")
        schema = schema["schema"]
    return schema["fields"], config, definitions


def _exact_type(schema: Any) -> type | None:
    """The builtin that needs no validation at all where the value is exactly of it."""
    while schema["type"] == "default":
        schema = schema["schema"]
    return _EXACT.get(schema["type"]) if set(schema) <= {"type", "metadata"} else None


def _has_with_info(schema: Any) -> bool:
    if isinstance(schema, dict):
        return schema.get("type") == "with-info" or any(_has_with_info(part) for part in schema.values())
    return isinstance(schema, list) and any(_has_with_info(part) for part in schema)
