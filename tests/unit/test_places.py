"""Where values go into a statement: what each driver is told."""

from __future__ import annotations

import re

import pytest

from checkpoint_stores.sql import statements
from checkpoint_stores.sql.places import for_postgres, for_sqlite

NUMBERED = {
    name: text for name, text in vars(statements).items() if name[0] != "_" and isinstance(text, str) and re.search(r"%\d|{now", text)
}


@pytest.mark.parametrize("name", NUMBERED)
def test_no_place_has_a_number_where_a_python_takes_it_for_a_name(name: str) -> None:
    number = max(int(place) for place in re.findall(r"[%:](\d+)", NUMBERED[name]))
    text, laid_out = for_sqlite(NUMBERED[name], tuple(range(number)))

    assert not re.search(r"[?:$%]\d|\{", text)
    assert text.count("?") == len(laid_out)
    assert set(laid_out) == set(range(number))


def test_a_value_is_given_wherever_its_place_is() -> None:
    assert for_sqlite("a = %2 AND b = %10 AND c = %2", tuple("abcdefghij")) == ("a = ? AND b = ? AND c = ?", ("b", "j", "b"))
    assert for_sqlite("a = %1", ("x",)) == ("a = ?", ("x",))


def test_the_clock_is_the_databases_unless_it_is_given() -> None:
    assert for_sqlite("SELECT {now:2} FROM runs WHERE id = %1{lock}", ("x", 7)) == ("SELECT ? FROM runs WHERE id = ?", (7, "x"))
    told = for_postgres("SELECT {now:2} FROM runs WHERE id = %1{lock}")
    assert re.fullmatch(r"SELECT coalesce\(\$2::bigint, .*clock_timestamp.*\) FROM runs WHERE id = \$1 FOR UPDATE", told)
