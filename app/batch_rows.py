"""JSON and NDJSON bodies as slices of a batch: objects are read column by column, as `RowReader` reads each of them."""

import io
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Final

import msgspec
import numpy as np

from app.batch_header import refuse_count
from app.batch_slices import (
    SLICE_ROWS,
    Fault,
    Mask,
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

CHUNK_ROWS = 256  # objects that are there at once
BAD_LINE: Final = Fault(None, "bad_json", "expects one line of valid JSON")
NO_OBJECT: Final = Fault(None, "object_type", "expects an object")
EMPTY: Final[dict[str, object]] = {}
HASHABLE: Final = frozenset({str, bool, type(None)})  # and none of them equal to another type's


_decoder = msgspec.json.Decoder()
_cutter = msgspec.json.Decoder(list[msgspec.Raw])


class BadLine:
    """Stands for a line that is no JSON."""


def read_json(served: Served, content: bytes, max_rows: int) -> Iterator[Slice]:
    """Return the rows of an array of objects.

    Raises
    ------
    ApiError : 400 when it is no JSON; 422 when it is no array, is empty or too long
    """
    items = cut_array(content)
    if not isinstance(items, list):
        raise refuse("array_type", "The body is no batch", "expects an array of objects")
    if not 1 <= len(items) <= max_rows:
        raise refuse_count(len(items), max_rows)
    chunks = (items[start : start + CHUNK_ROWS] for start in range(0, len(items), CHUNK_ROWS))
    return _iterate_slices(served, map(read_items, chunks))


def cut_array(content: bytes) -> object:
    """Return the items of a JSON array, each still as its JSON where the whole is as it should be; else its value.

    All values at once would take five times as much memory.

    Raises
    ------
    ApiError : 400 when it is no JSON
    """
    try:
        if not content.isascii():
            content.decode()  # which the cutting does not check
        return _cutter.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return parse_json(content)


def read_items(items: list[object]) -> list[object]:
    """Return the values of some items of an array that are still JSON, or are values already."""
    if not isinstance(items[0], msgspec.Raw):
        return items
    try:
        values: list[object] = _decoder.decode(b"[" + b",".join(items) + b"]")  # type: ignore[arg-type]
    except (msgspec.DecodeError, RecursionError):  # such as a number that is too large
        return [read_line(bytes(item)) for item in items]  # type: ignore[call-overload]
    return values


def read_ndjson(served: Served, content: bytes, max_rows: int) -> Iterator[Slice]:
    """Return the rows of a text with an object on each line; blank lines are none.

    Raises
    ------
    ApiError : 422 when there are too many or none
    """
    content = content.removeprefix(b"\xef\xbb\xbf")
    n_rows = sum(1 for _ in filter(bytes.strip, io.BytesIO(content)))
    if not 1 <= n_rows <= max_rows:
        raise refuse_count(n_rows, max_rows)
    lines = filter(bytes.strip, io.BytesIO(content))
    return _iterate_slices(served, map(read_lines, iter(lambda: list(islice(lines, CHUNK_ROWS)), [])))


def read_lines(lines: list[bytes]) -> list[object]:
    """Return the JSON values on some lines, BadLine for one that holds none."""
    try:
        values: list[object] = _decoder.decode_lines(b"".join(lines))
        if len(values) == len(lines):  # else one goes on over several lines
            return values
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # and each is read by itself
    return [read_line(line) for line in lines]


def read_line(line: bytes) -> object:
    """Return the JSON value on a line."""
    try:
        return parse_json(line)
    except ApiError:
        return BadLine()


def _iterate_slices(served: Served, chunks: Iterator[list[object]]) -> Iterator[Slice]:
    start = 0
    while (some := read_objects(served, start, islice(chunks, SLICE_ROWS // CHUNK_ROWS))).n_rows:
        yield some
        start += some.n_rows


def read_objects(served: Served, start: int, chunks: Iterator[list[object]]) -> Slice:
    """Return JSON values as a slice; those that are no objects are refused.

    Parameters
    ----------
    served : the model
    start : the index of the first
    chunks : (n_rows,) values together
    """
    plan, known = served.reader.plan, served.reader.columns
    table: list[list[object]] = [[] for _ in plan]
    wrong: dict[int, Fault] = {}
    unknown: dict[str | None, list[int]] = {}
    n_rows = 0
    for some in chunks:
        rows: list[dict[str, object]] = some  # type: ignore[assignment]
        if set(map(type, some)) != {dict}:
            wrong |= {n_rows + place: fault for place, value in enumerate(some) if (fault := find_wrong(value))}
            rows = [value if isinstance(value, dict) else EMPTY for value in some]
        if not all(map(known.issuperset, rows)):
            find_unknown(rows, known, n_rows, unknown)
        for column, items in zip(table, take_columns(rows, [passing.name for passing in plan]), strict=True):
            column.extend(items)
        n_rows += len(some)
    notes = Notes()
    for name, places in unknown.items():
        notes.add(mark(places, n_rows), Fault(name, "unknown_field", "is not in the contract; see /schema"))
    columns = {passing.name: read_values(passing, items, notes) for passing, items in zip(plan, table, strict=True)}
    if wrong:
        is_object = ~mark(list(wrong), n_rows)
        faults = [(mark([n for n, f in wrong.items() if f == fault], n_rows), fault) for fault in (BAD_LINE, NO_OBJECT)]
        notes.faults = [*faults, *((mask & is_object, fault) for mask, fault in notes.faults)]
    return Slice(start, n_rows, columns, notes)


def find_wrong(value: object) -> Fault | None:
    """Return why a value is no row; None where it is one."""
    if isinstance(value, dict):
        return None
    return BAD_LINE if isinstance(value, BadLine) else NO_OBJECT


def mark(places: Sequence[int], n_rows: int) -> Mask:
    """Return (n_rows,) whether each is one of the places."""
    mask = np.zeros(n_rows, dtype=bool)
    mask[list(places)] = True
    return mask


def find_unknown(
    rows: Sequence[dict[str, object]], known: frozenset[str], start: int, found: dict[str | None, list[int]]
) -> None:
    """Add to `found` where rows have names that are not in the contract; after some names, the others under None.

    Parameters
    ----------
    rows : (n_rows,)
    known : the names of the contract
    start : the place of the first row
    found : places by name
    """
    for place, row in enumerate(rows, start):
        for name in row.keys() - known if not known.issuperset(row) else ():
            said = clean_name(name)
            found.setdefault(said if said in found or len(found) < MAX_ERRORS else None, []).append(place)


def take_columns(rows: Sequence[dict[str, object]], names: Sequence[str]) -> list[tuple[object, ...]]:
    """Return the values of some names, (n_rows,) each; None for one that is not there."""
    try:
        table = list(zip(*map(itemgetter(*names, names[0]), rows), strict=True))  # never of one name: that is no tuple
    except KeyError:
        return [tuple(row.get(name) for row in rows) for name in names]
    return table[:-1]


def read_values(passing: Passing, items: Sequence[object], notes: Notes) -> Values | Coded:
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
