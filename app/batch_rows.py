"""JSON and NDJSON bodies as slices of a batch: objects are read column by column, as `RowReader` reads each of them."""

import io
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Final

import numpy as np

from app.batch_header import refuse_count
from app.batch_slices import (
    Fault,
    Notes,
    Places,
    Slice,
    encode,
    read_coded,
    read_numbers,
)
from app.bodies import parse_json, refuse
from app.errors import MAX_ERRORS, ApiError, clean_name
from app.model_host import Served
from app.row_reader import Passing
from models.scorer import Coded, Values

SLICE_ROWS = 2_048  # rows as Python objects take memory
BAD_LINE: Final = Fault(None, "bad_json", "expects one line of valid JSON")
NO_OBJECT: Final = Fault(None, "object_type", "expects an object")
EMPTY: Final[dict[str, object]] = {}
HASHABLE: Final = frozenset({str, bool, type(None)})  # and none of them equal to another type's


class BadLine:
    """Stands for a line that is no JSON."""


def read_json(served: Served, content: bytes, max_rows: int) -> Iterator[Slice]:
    """Return the rows of an array of objects.

    Raises
    ------
    ApiError : 400 when it is no JSON; 422 when it is no array, is empty or too long
    """
    values = parse_json(content)
    if not isinstance(values, list):
        raise refuse("array_type", "The body is no batch", "expects an array of objects")
    if not 1 <= len(values) <= max_rows:
        raise refuse_count(len(values), max_rows)
    starts = range(0, len(values), SLICE_ROWS)
    return (read_objects(served, start, values[start : start + SLICE_ROWS]) for start in starts)


def read_ndjson(served: Served, content: bytes, max_rows: int) -> Iterator[Slice]:
    """Return the rows of a text with an object on each line; blank lines are none.

    Raises
    ------
    ApiError : 422 when there are too many or none
    """
    content = content.removeprefix(b"\xef\xbb\xbf")
    n_rows = sum(not line.isspace() for line in io.BytesIO(content))
    if not 1 <= n_rows <= max_rows:
        raise refuse_count(n_rows, max_rows)
    return _iterate_lines(served, content)


def _iterate_lines(served: Served, content: bytes) -> Iterator[Slice]:
    lines = (line for line in io.BytesIO(content) if not line.isspace())
    start = 0
    while some := list(islice(lines, SLICE_ROWS)):
        yield read_objects(served, start, [read_line(line) for line in some])
        start += len(some)


def read_line(line: bytes) -> object:
    """Return the JSON value on a line."""
    try:
        return parse_json(line)
    except ApiError:
        return BadLine()


def read_objects(served: Served, start: int, values: Sequence[object]) -> Slice:
    """Return JSON values as a slice; those that are no objects are refused.

    Parameters
    ----------
    served : the model
    start : the index of the first
    values : (n_rows,)
    """
    notes = Notes()
    rows: Sequence[dict[str, object]] = values  # type: ignore[assignment]
    is_object = np.fromiter((isinstance(value, dict) for value in values), dtype=bool, count=len(values))
    if not is_object.all():
        rows = [value if isinstance(value, dict) else EMPTY for value in values]
    known = served.reader.columns
    if not all(map(known.issuperset, rows)):
        _refuse_unknown(rows, known, notes)
    columns = _read_columns(served, rows, notes)
    if not is_object.all():
        is_bad = np.fromiter((isinstance(value, BadLine) for value in values), dtype=bool, count=len(values))
        faults = [(mask & is_object, fault) for mask, fault in notes.faults]
        notes.faults = [(is_bad, BAD_LINE), (~is_object & ~is_bad, NO_OBJECT), *faults]
    return Slice(start, len(rows), columns, notes)


def _refuse_unknown(rows: Sequence[dict[str, object]], known: frozenset[str], notes: Notes) -> None:
    """Refuse rows with names that are not in the contract; the first names are said."""
    found: dict[str | None, list[int]] = {}
    for place, row in enumerate(rows):
        for name in row.keys() - known if not known.issuperset(row) else ():
            is_said = name in found or len(found) < MAX_ERRORS
            found.setdefault(clean_name(name) if is_said else None, []).append(place)
    for said, places in found.items():
        mask = np.zeros(len(rows), dtype=bool)
        mask[places] = True
        notes.add(mask, Fault(said, "unknown_field", "is not in the contract; see /schema"))


def _read_columns(served: Served, rows: Sequence[dict[str, object]], notes: Notes) -> dict[str, Values | Coded]:
    plan = served.reader.plan
    names = [passing.name for passing in plan]
    try:
        table = list(zip(*map(itemgetter(*names, names[0]), rows), strict=True))  # never of one name, which is no tuple
    except KeyError:
        table = [tuple(row.get(name) for row in rows) for name in names]
    return {passing.name: read_items(passing, items, notes) for passing, items in zip(plan, table, strict=False)}


def read_items(passing: Passing, items: Sequence[object], notes: Notes) -> Values | Coded:
    """Return a feature of JSON rows.

    Parameters
    ----------
    passing : of the feature
    items : (n_rows,) JSON values
    notes : grow
    """
    kinds, read = set(map(type, items)), passing.feature.read
    if passing.known is not None:
        if kinds <= HASHABLE:
            return read_coded(passing, Coded(*encode(items)), read, notes)
        return read_coded(passing, Coded(np.arange(len(items)), items), read, notes)
    passes = {passing.kind, passing.other}
    plain = items if kinds <= passes else [item if type(item) in passes else None for item in items]
    try:
        numbers = np.array(plain, dtype=np.float64)
    except OverflowError:  # an integer of hundreds of digits
        numbers = np.full(len(items), np.nan)

    def get_levels(places: Places) -> tuple[Places, list[object]]:
        return np.arange(len(places)), [items[place] for place in places.tolist()]

    return read_numbers(passing, numbers, get_levels, read, notes)
