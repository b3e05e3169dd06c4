"""From texts to typed columns, as the contract says. A text that cannot be cast is a fault of its row, never a guess.

The same rules for single values and for pandas columns are in schema.py and encoder.py; a test holds them equal.
"""

import re
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_ingestion.schema import ISO, MAX_NUMBER, Column, parse_datetime, read_bounds

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
INTEGER = r"^[+-]?\d{1,18}(\.0*)?$"
# What Arrow casts just as Python reads it: no year 0, no offset, no week dates.
PLAIN_ISO = r"^(\d{3}[1-9]|\d{2}[1-9]\d|\d[1-9]\d{2}|[1-9]\d{3})-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?)?$"
TIMESTAMP = pa.timestamp("us")  # UTC, by the contract
_DIGITS = {"%Y": r"(\d{4})", "%m": r"(\d{2})", "%d": r"(\d{2})", "%H": r"(\d{2})", "%M": r"(\d{2})", "%S": r"(\d{2})"}
_WHOLE_FORMATS = [{*list(_DIGITS)[:count]} for count in (3, 4, 5, 6)]


@dataclass(frozen=True)
class CastColumn:
    """A typed column.

    Parameters
    ----------
    values : (n_rows,) typed; null where the text means missing or is at fault
    is_missing : (n_rows,) bool, the text means missing
    is_fault : (n_rows,) bool, the text is not of the column's kind
    expected : what the column expects, in words
    """

    values: pa.Array
    is_missing: pa.Array
    is_fault: pa.Array
    expected: str


def arrow_type(column: Column) -> pa.DataType:
    """Return the Arrow type that holds a column in `raw.parquet`."""
    types = {
        "number": pa.float64(),
        "integer": pa.int64(),
        "boolean": pa.bool_(),
        "datetime": TIMESTAMP,
    }
    return types.get(column.kind, pa.string())


def cast_column(texts: pa.Array, column: Column, missing: list[str]) -> CastColumn:
    """Cast trimmed texts to the kind of the contract.

    Parameters
    ----------
    texts : (n_rows,) string, without nulls
    column : the column's part of the contract
    missing : the texts that mean missing
    """
    present = keep_present(texts, missing)
    is_missing = present.is_null()
    if column.kind == "number":
        values, expected = _cast_numbers(present, column), "a finite number of at most 1e30"
    elif column.kind == "integer":
        values, expected = _cast_integers(present), "an integer of at most 18 digits"
    elif column.kind == "boolean":
        true, false = column.true_values or ["true"], column.false_values or ["false"]
        values, expected = _cast_words(present, true, false), f"one of {', '.join(true + false)}"
    elif column.kind == "datetime":
        values = _cast_datetimes(present, column.format or ISO)
        expected = "a date such as 2024-02-29" if column.format in (None, ISO) else f"a date written {column.format}"
    else:
        values, expected = present, "a text"
    is_fault = pc.and_(pc.is_valid(present), pc.is_null(values))
    return CastColumn(values, is_missing, is_fault, expected)


def keep_present(texts: pa.Array, missing: list[str]) -> pa.Array:
    """Return the texts, null for those that mean missing."""
    is_missing = pc.is_in(texts, value_set=pa.array(missing, pa.string()))
    if not pc.any(is_missing).as_py():
        return texts
    return pc.if_else(is_missing, pa.scalar(None, pa.string()), texts)


def _cast_numbers(texts: pa.Array, column: Column) -> pa.Array:
    """Cast to float64; null where the text is no number, or one too large to calculate with."""
    matching = _keep_matching(texts, NUMBER) if is_plain_number(column) else _normalize_numbers(texts, column)
    values = pc.replace_substring_regex(matching, r"^\+", "").cast(pa.float64())
    return pc.if_else(pc.less_equal(pc.abs(values), MAX_NUMBER), values, pa.scalar(None, pa.float64()))


def is_plain_number(column: Column) -> bool:
    """Return whether a column's numbers are written 1234.5, without decimal comma, thousands or currency."""
    return column.decimal in (None, ".") and column.thousands is None and column.currency is None


def number_pattern(column: Column) -> str:
    """Return the pattern of numbers that are written 1.234,5 or 1,234.5, without their sign of currency."""
    decimal, thousands = re.escape(column.decimal or "."), re.escape(find_thousands(column))
    grouped = rf"\d{{1,3}}({thousands}\d{{3}})+|" if thousands else ""
    return rf"^[+-]?({grouped}\d+)({decimal}\d+)?$"


def find_thousands(column: Column) -> str:
    """Return what sets off thousands: as declared, else a point beside a decimal comma, else nothing."""
    return column.thousands or ("." if column.decimal == "," else "")


def _normalize_numbers(texts: pa.Array, column: Column) -> pa.Array:
    """Return texts such as 1.234,5 or $ 1,234.5 as 1234.5; null where they are not written so."""
    if column.currency:
        sign = re.escape(column.currency)
        texts = pc.replace_substring_regex(texts, rf"^([+-]?)\s*{sign}\s*|\s*{sign}$", r"\1")
    matching = _keep_matching(texts, number_pattern(column))
    thousands = find_thousands(column)
    whole = pc.replace_substring(matching, thousands, "") if thousands else matching
    return pc.replace_substring(whole, column.decimal, ".") if column.decimal else whole


def _cast_integers(texts: pa.Array) -> pa.Array:
    """Cast to int64; `3.0` is the integer 3. Null where the text is no integer of at most 18 digits."""
    matching = _keep_matching(texts, INTEGER)
    return pc.replace_substring_regex(matching, r"^\+|\.0*$", "").cast(pa.int64())


def _cast_words(texts: pa.Array, true: list[str], false: list[str]) -> pa.Array:
    """Cast the declared words, in any case, to booleans; null for any other word."""
    lower = pc.utf8_lower(texts)
    is_true = pc.is_in(lower, value_set=pa.array([word.lower() for word in true], pa.string()))
    is_false = pc.is_in(lower, value_set=pa.array([word.lower() for word in false], pa.string()))
    return pc.if_else(pc.or_(is_true, is_false), is_true, pa.scalar(None, pa.bool_()))


def _cast_datetimes(texts: pa.Array, format: str) -> pa.Array:
    """Cast to UTC timestamps; null where the text is of another format or names no moment."""
    if format != ISO:
        pattern, order = _describe_format(format)
        if order is None:
            return _parse_each(texts, format)
        plain = pc.replace_substring_regex(_keep_matching(texts, pattern), pattern, order)
        plain = _keep_matching(plain, PLAIN_ISO)
        return _cast_plain_dates(texts, plain, format)
    return _cast_plain_dates(texts, _keep_matching(texts, PLAIN_ISO), format)


def _describe_format(format: str) -> tuple[str, str | None]:
    """Return the pattern of a format of digits alone, and how its parts make a date in ISO form; None for others."""
    parts = re.findall("%.", format)
    if {*parts} not in _WHOLE_FORMATS or len({*parts}) < len(parts):
        return "", None
    pattern = "^" + re.sub("%.", lambda match: _DIGITS[match[0]], re.escape(format).replace(r"\%", "%")) + "$"
    places = {part: rf"\{number}" for number, part in enumerate(parts, start=1)}
    order = "-".join(places[part] for part in ("%Y", "%m", "%d"))
    clock = [places[part] for part in ("%H", "%M", "%S") if part in places]
    if len(clock) == 1:
        clock.append("00")
    return pattern, order + (" " + ":".join(clock) if clock else "")


def _cast_plain_dates(texts: pa.Array, plain: pa.Array, format: str) -> pa.Array:
    """Cast to UTC timestamps: `plain` holds the texts that Arrow casts as Python reads them, the rest is parsed."""
    try:
        values = plain.cast(TIMESTAMP)
    except pa.ArrowInvalid:  # one of them names no moment, and Arrow does not say which
        return _parse_each(texts, format)
    rest = pc.if_else(pc.is_valid(plain), pa.scalar(None, pa.string()), texts)
    return values if rest.null_count == len(rest) else pc.coalesce(values, _parse_each(rest, format))


def _parse_each(texts: pa.Array, format: str) -> pa.Array:
    """Parse the distinct texts one by one."""
    encoded = texts.dictionary_encode()
    moments: list[datetime | None] = []
    for text in encoded.dictionary.to_pylist():
        try:
            moments.append(parse_datetime(text, format))
        except ValueError:  # the caller counts and names the rows that come back null
            moments.append(None)
    return pa.array(moments, TIMESTAMP).take(encoded.indices)


def _keep_matching(texts: pa.Array, pattern: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(texts, pattern), texts, pa.scalar(None, pa.string()))


def find_unexpected_values(values: pa.Array, column: Column) -> pa.Array:
    """Return (n_rows,) bool: the value is of the right kind but outside the contract's range or categories."""
    nothing = pa.array(np.zeros(len(values), dtype=bool))
    if column.kind == "category" and column.categories is not None:
        known = pc.is_in(values, value_set=pa.array(column.categories, pa.string()))
        return pc.and_(pc.is_valid(values), pc.invert(known))
    low, high = read_bounds(column)
    below = nothing if low is None else pc.fill_null(pc.less(values, _bound(low, values)), False)
    above = nothing if high is None else pc.fill_null(pc.greater(values, _bound(high, values)), False)
    return pc.or_(below, above)


def _bound(value: object, values: pa.Array) -> pa.Scalar:
    """Return a bound as the type that compares with the column without loss."""
    if pa.types.is_timestamp(values.type):
        return pa.scalar(value, values.type)
    if pa.types.is_integer(values.type) and isinstance(value, int) and abs(value) < 2**63:
        return pa.scalar(value, values.type)
    return pa.scalar(float(value), pa.float64())  # type: ignore[arg-type]
