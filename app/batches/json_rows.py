"""JSON and NDJSON bodies as slices of a batch: objects are read column by column, as `RowReader` reads each of them."""

import io
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

import msgspec
import numpy as np

from app.batches.header import refuse_count
from app.batches.readers import CHUNK_ROWS, LevelReader, NumberReader, ValueReader
from app.batches.slices import (
    SLICE_ROWS,
    Fault,
    Floats,
    Mask,
    Notes,
    Slice,
)
from app.errors import MAX_ERRORS, ApiError, clean_name
from app.model_host import Served
from app.rows.bodies import parse_json, refuse
from app.rows.reader import Passing

BAD_LINE: Final = Fault(None, "bad_json", "expects one line of valid JSON")
NO_OBJECT: Final = Fault(None, "object_type", "expects an object")
EMPTY: Final[dict[str, object]] = {}
_ESCAPED = re.compile(r'["\\\x00-\x1f]')


_cutter = msgspec.json.Decoder(list[msgspec.Raw])


class BadLine:
    """Stands for a line that is no JSON."""


Chunk = list[object] | tuple[Sequence[object], ...]  # (n_rows,) JSON values, or the columns of that many objects


class Quick(NamedTuple):
    """Reads objects of known names, and nothing else, in less time than a dictionary for each takes.

    Parameters
    ----------
    items, lines : decode an array of objects, and lines of them
    n_features : how many of the values of each are features: the first
    """

    items: "msgspec.json.Decoder[list[msgspec.Struct]]"
    lines: "msgspec.json.Decoder[msgspec.Struct]"
    n_features: int

    def take_columns(self, rows: Sequence[msgspec.Struct]) -> tuple[Sequence[object], ...]:
        """Return the features, (n_rows,) each; None for one that is not there."""
        return tuple(zip(*map(msgspec.structs.astuple, rows), strict=True))[: self.n_features]


@lru_cache(maxsize=8)
def build_quick(features: tuple[str, ...], columns: tuple[str, ...]) -> Quick | None:
    """Return what reads objects with the features and the other columns of a contract.

    msgspec knows no names that JSON writes with a backslash: None when a feature has one; objects with another such
    column are none of its.
    """
    if any(map(_ESCAPED.search, features)):
        return None
    names = [name for name in dict.fromkeys([*features, *columns]) if not _ESCAPED.search(name)]
    fields = [(f"field_{number}", object, None) for number in range(len(names))]
    rename = {field: name for (field, _, _), name in zip(fields, names, strict=True)}
    row = msgspec.defstruct("Row", fields, rename=rename, forbid_unknown_fields=True, gc=False)
    return Quick(msgspec.json.Decoder(list[row]), msgspec.json.Decoder(row), len(features))  # type: ignore[valid-type]


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
    quick = build_quick(tuple(served.contract.features), tuple(served.contract.columns))
    starts = range(0, len(items), CHUNK_ROWS)
    return _iterate_slices(served, (read_items(quick, items[start : start + CHUNK_ROWS]) for start in starts))


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


def read_items(quick: Quick | None, items: list[object]) -> Chunk:
    """Return some items of an array that are still JSON, or are values already."""
    if not isinstance(items[0], msgspec.Raw):
        return items
    try:
        if quick is not None:
            return quick.take_columns(quick.items.decode(b"[" + b",".join(items) + b"]"))  # type: ignore[arg-type]
    except (msgspec.DecodeError, RecursionError):  # one is no such object, or a number is too large
        pass  # and each is read by itself
    return [read_line(bytes(item)) for item in items]  # type: ignore[call-overload]


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
    quick = build_quick(tuple(served.contract.features), tuple(served.contract.columns))
    chunks = iter(lambda: list(islice(lines, CHUNK_ROWS)), [])
    return _iterate_slices(served, (read_lines(quick, chunk) for chunk in chunks))


def read_lines(quick: Quick | None, lines: list[bytes]) -> Chunk:
    """Return the JSON values on some lines, BadLine for one that holds none."""
    try:
        rows = [] if quick is None else quick.lines.decode_lines(b"".join(lines))
        if quick is not None and len(rows) == len(lines):  # else one goes on over several lines
            return quick.take_columns(rows)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # and each is read by itself
    return [read_line(line) for line in lines]


def read_line(line: bytes) -> object:
    """Return the JSON value on a line."""
    try:
        return parse_json(line)
    except ApiError:
        return BadLine()


def _iterate_slices(served: Served, chunks: Iterator[Chunk]) -> Iterator[Slice]:
    start = 0
    while (some := read_objects(served, start, islice(chunks, SLICE_ROWS // CHUNK_ROWS))).n_rows:
        yield some
        start += some.n_rows


def read_objects(served: Served, start: int, chunks: Iterator[Chunk]) -> Slice:
    """Return JSON values as a slice; those that are no objects are refused.

    Parameters
    ----------
    served : the model
    start : the index of the first
    chunks : (n_rows,) values together, or their columns
    """
    plan = served.reader.plan
    readers = {passing.name: build_reader(passing) for passing in plan}
    n_rows = 0
    wrong: dict[int, Fault] = {}
    unknown: dict[str | None, list[int]] = {}
    for some in chunks:
        columns = some
        if isinstance(some, list):
            wrong |= {n_rows + place: fault for place, value in enumerate(some) if (fault := find_wrong(value))}
            rows = [value if isinstance(value, dict) else EMPTY for value in some]
            find_unknown(rows, served.reader.columns, n_rows, unknown)
            columns = tuple([row.get(passing.name) for row in rows] for passing in plan)
        for reader, values in zip(readers.values(), columns, strict=True):
            reader.add(values)  # type: ignore[arg-type]
        n_rows += len(columns[0])  # type: ignore[arg-type]
    if not n_rows:
        return Slice(start, 0, {}, Notes())
    notes = Notes()
    for name, places in unknown.items():
        notes.add(mark(places, n_rows), Fault(name, "unknown_field", "is not in the contract; see /schema"))
    read = {name: reader.finish(notes) for name, reader in readers.items()}
    if wrong:
        is_object = ~mark(list(wrong), n_rows)
        faults = [(mark([n for n, f in wrong.items() if f == fault], n_rows), fault) for fault in (BAD_LINE, NO_OBJECT)]
        notes.faults = [*faults, *((mask & is_object, fault) for mask, fault in notes.faults)]
    return Slice(start, n_rows, read, notes)


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
        for name in row if not known.issuperset(row) else ():
            if name in known:
                continue
            said = clean_name(name)
            found.setdefault(said if said in found or len(found) < MAX_ERRORS else None, []).append(place)


def build_reader(passing: Passing) -> ValueReader:
    """Return what reads a feature from JSON values."""
    if passing.known is not None:
        return LevelReader(passing, passing.feature.read)
    passes = frozenset({passing.kind, passing.other})
    return NumberReader(passing, lambda values: to_numbers(values, passes), passing.feature.read)


def to_numbers(values: Sequence[object], passes: frozenset[type]) -> Floats:
    """Return JSON values as numbers, NaN where they are of other types than pass at once."""
    if not passes.issuperset(map(type, values)):
        values = [value if type(value) in passes else None for value in values]
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:  # an integer of hundreds of digits
        return np.full(len(values), np.nan)
