"""From one JSON value to one value of a feature, as the contract says.

Strict about types (the text "1.5" is no number) and lenient where JSON itself is (1.0 is an integer). What a fault says
comes from the contract alone and never repeats the value.
"""

import math
from collections.abc import Callable
from datetime import datetime

from data_ingestion.schema import EXACT_INTEGERS, ISO, MAX_NUMBER, Column, parse_datetime
from models.artifact import Value

MAX_INTEGER = 10**18 - 1  # 18 digits, as in the loader


class RefusedValueError(Exception):
    """A value is not what the contract says: a fixed name of the rule for programs, and what is expected for people."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message


def read_value(column: Column, missing: frozenset[str], value: object) -> Value:
    """Return a JSON value as the column's kind; None is missing.

    Raises
    ------
    RefusedValueError : it is none
    """
    text = read_text(value) if isinstance(value, str) else None
    if value is None or (text is not None and text in missing and column.kind not in ("number", "integer")):
        if column.nullable:
            return None
        raise RefusedValueError("missing", "is required")
    return _READERS[column.kind](column, value if text is None else text)


def read_text(value: str) -> str:
    """Return a text without the white space around it.

    Raises
    ------
    RefusedValueError : it holds what no text of the data can hold
    """
    if "\0" in value:
        raise RefusedValueError("string_nul", "expects a text without NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise RefusedValueError("string_unicode", "expects valid Unicode, without lone surrogates") from err
    return value.strip()


def read_number(column: Column, value: object) -> float | int:
    """Return a finite number of a size that a model can calculate with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedValueError("number_type", "expects a JSON number")
    if isinstance(value, int):
        if abs(value) > EXACT_INTEGERS:
            raise RefusedValueError("integer_size", "expects an integer within -2^53 to 2^53, or a decimal number")
        return value
    if not math.isfinite(value):
        raise RefusedValueError("finite_number", "expects a finite number")
    if abs(value) > MAX_NUMBER:
        raise RefusedValueError("number_size", "expects a number within -1e30 to 1e30")
    return value


def read_integer(column: Column, value: object) -> int:
    """Return an integer; 1.0 is one."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RefusedValueError("finite_number", "expects a finite number")
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        raise RefusedValueError("integer_type", "expects a JSON integer")
    if abs(value) > MAX_INTEGER:
        raise RefusedValueError("integer_size", "expects an integer of at most 18 digits")
    return int(value)


def read_boolean(column: Column, value: object) -> bool:
    """Return true or false; the contract's words are taken in any case."""
    if isinstance(value, bool):
        return value
    true, false = list_words(column)
    word = value.lower() if isinstance(value, str) else ""
    if word in map(str.lower, true):
        return True
    if word in map(str.lower, false):
        return False
    raise RefusedValueError("boolean_type", f"expects true, false or one of {', '.join(true + false)}")


def read_datetime(column: Column, value: object) -> datetime:
    """Return the moment, in UTC, of a text in the contract's format or in ISO 8601."""
    if isinstance(value, str):
        for format in dict.fromkeys((column.format or ISO, ISO)):
            try:
                return parse_datetime(value, format)
            except ValueError:
                continue
    shape = "" if column.format in (None, ISO) else f", or one written {column.format}"
    raise RefusedValueError("datetime_format", "expects a date such as 2024-02-29 or 2024-02-29T13:45:00Z" + shape)


def read_category(column: Column, value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise RefusedValueError("string_type", "expects a text")
    return value


def list_known(column: Column) -> str:
    """Return the first categories in words."""
    known = column.categories or []
    more = f" (+{len(known) - 5:,} more)" if len(known) > 5 else ""
    return "one of " + ", ".join(category[:40] for category in known[:5]) + more


def list_words(column: Column) -> tuple[list[str], list[str]]:
    """Return the words for true and those for false."""
    return column.true_values or ["true"], column.false_values or ["false"]


_READERS: dict[str, Callable[[Column, object], Value]] = {
    "number": read_number,
    "integer": read_integer,
    "boolean": read_boolean,
    "category": read_category,
    "datetime": read_datetime,
    "text": read_category,
}
