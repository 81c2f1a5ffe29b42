"""Whose error it is: told by names, so that nobody loads SQLAlchemy or asyncpg for it."""

from __future__ import annotations

import sqlite3
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from checkpoint_stores.errors import CodecError, StoreUnavailableError
from checkpoint_stores.sql import faults

TAKEN = sqlite3.IntegrityError("UNIQUE constraint failed: checkpoints.run_id, checkpoints.seq")
LOCKED = sqlite3.OperationalError("database is locked")


def by_sqlalchemy(error: BaseException) -> Any:
    return sa.exc.DBAPIError.instance("SELECT 1", {}, error, sqlite3.Error)  # type: ignore[arg-type]


def by_asyncpg(error: BaseException) -> Any:
    """As SQLAlchemy's dialect wraps it once more."""
    wrapped = sqlite3.Error("wrapped")
    wrapped.__cause__ = error
    return by_sqlalchemy(wrapped)


@pytest.mark.parametrize("error", [TAKEN, LOCKED], ids=["taken", "locked"])
def test_a_drivers_error_is_the_same_bare_and_under_sqlalchemys(error: sqlite3.Error) -> None:
    wrapped = by_sqlalchemy(error)
    assert isinstance(wrapped, sa.exc.DBAPIError)
    assert faults.cause_of(wrapped) is error is faults.cause_of(error)
    assert faults.reason_of(wrapped) == faults.reason_of(error)
    assert faults.is_taken(wrapped) == faults.is_taken(error) == (error is TAKEN)
    assert faults.is_of_a_driver(wrapped)
    assert faults.is_of_a_driver(error)


def test_an_error_of_asyncpg_is_found_under_two_wrappings() -> None:
    error = asyncpg.UniqueViolationError("taken")
    assert faults.cause_of(by_asyncpg(error)) is error
    assert faults.is_taken(by_asyncpg(error))
    assert faults.is_of_a_driver(error)


@pytest.mark.parametrize(
    "error",
    [
        sa.exc.SQLAlchemyError("x"), sa.exc.ArgumentError("x"), sa.exc.TimeoutError("x"), sa.exc.InvalidRequestError("x"),
        sa.exc.StatementError("x", "SELECT 1", {}, ValueError("y")),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_every_error_of_sqlalchemys_own_is_known_and_is_its_own_cause(error: Exception) -> None:
    assert faults.is_of_a_driver(error)
    assert faults.cause_of(error) is error


def test_an_error_that_only_bears_such_a_name_is_nobodys() -> None:
    class DBAPIError(Exception):
        orig = TAKEN

    class SQLAlchemyError(Exception):
        pass

    assert faults.cause_of(named := DBAPIError("x")) is named
    assert not faults.is_of_a_driver(named)
    assert not faults.is_of_a_driver(SQLAlchemyError("x"))


def test_a_kind_derived_from_sqlalchemys_is_one_of_its() -> None:
    class MineError(sa.exc.IntegrityError):
        pass

    assert faults.cause_of(MineError("SELECT 1", {}, TAKEN)) is TAKEN
    assert faults.is_of_a_driver(MineError("SELECT 1", {}, TAKEN))


@pytest.mark.parametrize(("error", "kind"), [(LOCKED, StoreUnavailableError), (OverflowError("too large"), CodecError)])
def test_errors_of_drivers_become_the_stores_and_others_pass(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind), faults.typed_errors("sqlite:///x"):
        raise error
    with pytest.raises(KeyError), faults.typed_errors("sqlite:///x"):
        raise KeyError
