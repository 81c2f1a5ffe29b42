"""The table of what is shown by which test is whole and true: its rows are all there, its tests exist, its page is current."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import trailmark

ROOT = Path(trailmark.__file__).resolve().parent.parent
ROWS = {"E": 25, "K": 17, "S": 13, "X": 10, "H": 13, "A": 32, "B": 18, "C": 12}
"""How many rows there are of each letter."""


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location("docs_build_features", ROOT / "docs" / "build_features.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = loaded()
EVERY_ROW = [row for rows in BUILD.table()["GROUPS"].values() for row in rows]


def test_every_row_is_there_once_and_in_order() -> None:
    assert [row.id for row in EVERY_ROW] == [f"{letter}{number}" for letter, count in ROWS.items() for number in range(1, count + 1)]


def test_every_test_that_is_named_exists() -> None:
    known = set(BUILD.known_tests())
    assert [(row.id, test) for row in EVERY_ROW for test in row.tests if test not in known] == []


def test_no_test_has_the_name_of_another_in_its_file() -> None:
    assert [test for test, count in Counter(BUILD.known_tests()).items() if count > 1] == []


@pytest.mark.parametrize("row", EVERY_ROW, ids=lambda row: row.id)
def test_a_row_names_its_tests_or_says_in_a_sentence_what_is_missing(row: Any) -> None:
    assert row.title.strip()
    assert len(set(row.tests)) == len(row.tests)
    assert row.tests or row.missing or row.outside
    assert not (row.outside and (row.tests or row.missing))
    assert all(text.endswith(".") for text in (row.missing, row.outside) if text)


def test_the_page_is_what_the_table_says_now() -> None:
    assert BUILD.PAGE.read_text("utf-8") == BUILD.page(), "type make docs"
