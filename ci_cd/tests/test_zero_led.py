"""Columns that may hold numbers with leading zeros are found in the text of a block."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_ingestion.csv_reader import Block
from data_ingestion.zero_led import find_zero_led

_LED = {True: re.compile(r'"?[ \t]*0[0-9xX]'), False: re.compile(r'"?[ \t]*0[xX]')}


def make_block(text: str, header: tuple[str, ...], separator: str = ",") -> Block:
    """Return a block that begins in line 2."""
    return Block(memoryview(text.encode()), header, separator, 2, 0, "data.csv")


@pytest.mark.parametrize(
    ("text", "with_digits", "expected"),
    [
        ("007,1\n8,2\n", True, {"a"}),
        ("1,007", True, {"b"}),
        ("7,0x1F\n", True, {"b"}),
        ("7,0X1f\n", False, {"b"}),
        ("007,1\n", False, set()),
        ("0,0.5\n0,10\n", True, set()),
        ("1, 07\n", True, {"b"}),
        ('1,"07"\n', True, {"b"}),
        ("1,\t 07\n", True, {"b"}),
        ("1,2023-01-05 00:00:07\n", True, set()),
        ("0", True, set()),
    ],
)
def test_columns_are_found_where_a_value_begins_with_a_zero(text: str, with_digits: bool, expected: set[str]) -> None:
    block = make_block(text, ("a", "b"))
    assert find_zero_led(block, text.count("\n") or 1, False, with_digits) == expected


cells = st.text(alphabet="0012 \tx.-;", max_size=4)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=5), st.sampled_from(",|~"), st.booleans())
def test_columns_are_found_as_a_pattern_finds_them(
    rows: list[tuple[str, str]], separator: str, with_digits: bool
) -> None:
    block = make_block("".join(separator.join(row) + "\n" for row in rows), ("a", "b"), separator)
    expected = {name for place, name in enumerate("ab") if any(_LED[with_digits].match(row[place]) for row in rows)}
    assert find_zero_led(block, len(rows), False, with_digits) == expected


def test_columns_are_found_beyond_the_piece_that_is_looked_at_first() -> None:
    row = "5,2023-01-05 00:00:07\n"
    for shift in range(len(row)):
        head = "1" * shift + row * (2**17 // len(row))
        assert find_zero_led(make_block(head + "5,07\n", ("a", "b")), head.count("\n") + 1, False, True) == {"b"}
