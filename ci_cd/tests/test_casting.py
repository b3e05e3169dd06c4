"""Dates: whole columns are cast as single values are read."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from data_ingestion.casting import cast_column
from data_ingestion.schema import ISO, Column, parse_datetime

ALMOST_ISO = st.from_regex(
    r"^[012]\d{3}-[01]\d-[0-3]\d([T ][0-2]\d:[0-6]\d(:[0-6]\d(\.\d{1,6})?)?(Z|[+-][01]\d:[0-5]\d)?)?$", fullmatch=True
)


def read_or_none(text: str) -> object:
    try:
        return parse_datetime(text, ISO)
    except ValueError:
        return None


@settings(deadline=None)
@given(st.lists(ALMOST_ISO | st.datetimes().map(str), max_size=5))
def test_column_of_dates_is_cast_as_each_is_read_alone(texts: list[str]) -> None:
    cast = cast_column(pa.array(texts, pa.string()), Column(kind="datetime"), [])
    assert cast.values.to_pylist() == [read_or_none(text) for text in texts]


def test_dates_with_and_without_offset_share_a_column() -> None:
    texts = ["2024-02-29", "2024-02-29 10:00:00.5+02:00", "2024-02-30", "NA"]
    cast = cast_column(pa.array(texts), Column(kind="datetime"), ["NA"])
    assert [str(value) for value in cast.values.to_pylist()] == [
        "2024-02-29 00:00:00",
        "2024-02-29 08:00:00.500000",
        "None",
        "None",
    ]
    assert cast.is_fault.to_pylist() == [False, False, True, False]
