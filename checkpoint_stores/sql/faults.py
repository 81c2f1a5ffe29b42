"""What went wrong in a database, by who must act: pure sorting of driver errors.

A driver's own error never leaves the SQL store.  Errors of SQLAlchemy and asyncpg are known by name: whoever has not loaded these
has none of theirs, and need not load them to find that out.  Knows no connection.
"""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager

from checkpoint_stores.errors import CodecError, StoreError, StoreUnavailableError


def _is_sqlalchemys(error: BaseException, name: str) -> bool:
    """Whether it is an error of that name in `sqlalchemy.exc`."""
    return any(kind.__name__ == name and kind.__module__ == "sqlalchemy.exc" for kind in type(error).__mro__)


def cause_of(error: BaseException) -> BaseException:
    """The driver's own error under SQLAlchemy's."""
    while _is_sqlalchemys(error, "DBAPIError") and isinstance(orig := getattr(error, "orig", None), BaseException):
        error = orig
    # SQLAlchemy's asyncpg dialect wraps once more.
    inner = error.__cause__
    return inner if inner is not None and type(inner).__module__.startswith("asyncpg") else error


def reason_of(error: BaseException) -> str:
    """One line for a person, without SQL, parameters or a password."""
    cause = cause_of(error)
    lines = str(cause).strip().splitlines()
    said = f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
    return f"{said}; another process keeps it locked: wait for it or end it, then try again" if is_locked(cause) else said


def is_locked(cause: BaseException) -> bool:
    """Whether another process held a SQLite file's lock for longer than we wait."""
    return isinstance(cause, sqlite3.OperationalError) and "locked" in str(cause)


def is_taken(error: BaseException) -> bool:
    """Whether a unique key was taken."""
    cause = cause_of(error)
    if isinstance(cause, sqlite3.IntegrityError):
        return "UNIQUE" in str(cause)
    return getattr(cause, "sqlstate", None) == "23505"


def is_bad_value(error: BaseException) -> bool:
    """Whether the database refuses a value itself (a NUL or a lone surrogate in a text, a number too large)."""
    cause = cause_of(error)
    state = getattr(cause, "sqlstate", None) or ""
    if isinstance(cause, (UnicodeError, OverflowError, sqlite3.ProgrammingError, sqlite3.DataError)):
        return not (isinstance(cause, sqlite3.ProgrammingError) and "closed" in str(cause))
    # asyncpg refuses an argument before it sends: DataError without a state.
    return state.startswith("22") or type(cause).__name__ == "DataError"


def is_connection_lost(error: BaseException) -> bool:
    """Whether nobody knows what became of the statement."""
    cause = cause_of(error)
    state = getattr(cause, "sqlstate", None) or ""
    if state:
        return state.startswith("08") or state in ("57P01", "57P02", "57P03")
    return isinstance(cause, (OSError, EOFError, TimeoutError)) or (
        type(cause).__name__ in ("ConnectionDoesNotExistError", "InterfaceError", "InternalClientError") and not is_bad_value(error)
    )


def is_of_a_driver(error: BaseException) -> bool:
    """Whether a driver, SQLAlchemy or the system said so, or refused a value: no mistake of our own, and none of the caller's."""
    if isinstance(error, (sqlite3.Error, OSError, EOFError, UnicodeError, OverflowError)):
        return True
    return type(error).__module__.startswith("asyncpg") or _is_sqlalchemys(error, "SQLAlchemyError")


def typed(url: str, error: BaseException) -> StoreError:
    """The store's error for a driver's."""
    if is_bad_value(error):
        return CodecError(f"the database cannot hold a value: {reason_of(error)}")
    return StoreUnavailableError(url, reason_of(error))


class _TypedErrors:
    """A context; a class, since a generator that is one takes several times the instructions, at every commit."""

    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, StoreError) and is_of_a_driver(error):
            raise typed(self._url, error) from error


def typed_errors(url: str) -> AbstractContextManager[None]:
    """Turn every error of a driver, of SQLAlchemy or of the system into the store's."""
    return _TypedErrors(url)
