"""The root of every error trailmark raises, and the errors of reducers.

An error's fields hold the facts; its message is one sentence that names the
thing and the remedy.  This file knows nothing of nodes, graphs or stores: the
layers above subclass `TrailmarkError` and add what they know.
"""

from __future__ import annotations


def with_article(name: str) -> str:
    """``name`` with its indefinite article, as error messages speak of types.

    >>> with_article("list"), with_article("Order"), with_article("UUID")
    ('a list', 'an Order', 'a UUID')
    """
    return f"an {name}" if name[:1] in "aeioAEIO" or name[:2] in ("un", "Un") else f"a {name}"


def how_many(number: int, what: str) -> str:
    """``number`` of ``what``, in words that fit.

    >>> how_many(1, "problem"), how_many(2, "problem")
    ('1 problem', '2 problems')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


class TrailmarkError(Exception):
    """The root of every error that trailmark raises on purpose."""


class ReducerError(TrailmarkError):
    """A reducer could not merge an update.  Nothing was changed."""


class ReducerTypeError(ReducerError, TypeError):
    """A reducer was given a value of a type it cannot merge."""

    def __init__(self, reducer: str, expected: str, got: object, *, key: str = "", role: str = "update") -> None:
        self.reducer = reducer
        self.expected = expected
        self.got_type = type(got).__name__
        self.key = key
        self.role = role
        where = f" for key {key!r}" if key else ""
        remedy = {
            "update": f"return {expected} from the node or declare another reducer",
            "current value": "write the key with a fitting value first, or declare another reducer",
            "result": f"return {expected} from the reducer's function",
        }.get(role, "declare another reducer")
        super().__init__(f"reducer {reducer!r}{where} needs {expected} as the {role}, got {self.got_type}; {remedy}")


class ReducerFunctionError(ReducerError, TypeError):
    """A function cannot serve as a reducer.  It was not registered."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"the function of reducer {name!r} {reason}")


class UnknownReducerError(ReducerError, LookupError):
    """No reducer is registered under this name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        self.name = name
        self.known = known
        super().__init__(f"no reducer is named {name!r}; registered are: {', '.join(known)}")


class DuplicateReducerError(ReducerError, ValueError):
    """Two different reducers want the same name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"a different reducer is already registered as {name!r}; choose another name")


class ReducerAnnotationError(ReducerError, TypeError):
    """The type of a state key does not say clearly which reducer it has."""

    def __init__(self, annotation: object, reason: str) -> None:
        self.annotation = annotation
        self.reason = reason
        super().__init__(f"{annotation!r} {reason}")
