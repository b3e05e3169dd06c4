"""CSV bodies, without PyArrow: numbers as Python reads them where that is what the contract means, else with care."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from app.batches.header import check_header, refuse_count
from app.batches.readers import CHUNK_ROWS, LevelReader, NumberReader, ValueReader
from app.batches.slices import (
    SLICE_ROWS,
    Fault,
    Floats,
    Notes,
    Slice,
)
from app.errors import ApiError
from app.model_host import Served
from app.rows.bodies import refuse
from app.rows.reader import FeatureReader, Passing
from app.rows.values import RefusedValueError
from data_ingestion.schema import Column
from models.artifact import Value

SEPARATORS = (",", ";", "\t", "|")
MAX_DIGITS = 18
MAX_KEPT = 5_000_000  # fields that an answer keeps
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"([+-]?)(\d+)(\.0*)?", re.ASCII)

Record = Sequence[str]


def read_csv(served: Served, content: bytes, keep: bool, max_rows: int) -> tuple[list[str], Iterator[Slice]]:
    """Return the names of the kept columns, and the rows.

    Parameters
    ----------
    served : the model
    content : the body, in UTF-8, or in UTF-16 with a byte-order mark
    keep : whether the answer keeps the columns
    max_rows : more are refused

    Raises
    ------
    ApiError : 422 when it is no CSV, its columns are not those of the contract, or it has too many rows or none
    """
    records = _iterate_records(content, served.contract.separator, served.contract.features)
    names = [name.strip() for name in next(records, [])]
    check_header(names, served, keep)
    slices: list[Slice] = []
    n_rows = 0
    while (some := _read_slice(served, names, records, n_rows, keep)).n_rows:
        slices.append(some)
        n_rows += some.n_rows
        if n_rows > max_rows:
            raise refuse_count(n_rows, max_rows, is_all=False)
        if keep and n_rows * len(names) > MAX_KEPT:
            raise refuse("table_size", "The table is too large to be kept", f"expects {MAX_KEPT:,} fields at most")
    if not slices:
        raise refuse_count(0, max_rows)
    return names if keep else [], iter(slices)


def _iterate_records(content: bytes, separator: str, features: Sequence[str] | dict[str, Column]) -> Iterator[Record]:
    """Yield the records, the header first; blank lines are none.

    Raises
    ------
    ApiError : 422 where it is no CSV, with the line
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = _recode(content)
    if b"\0" in content:
        raise refuse("string_nul", "The body is no valid CSV", "expects a text without NUL characters")
    lines = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    reader = csv.reader(lines, delimiter=_find_separator(content, separator, features), strict=True)
    try:
        yield from filter(None, reader)
    except UnicodeDecodeError as err:
        raise _refuse_encoding(content) from err
    except csv.Error as err:
        rule = "expects fields of at most 131,072 characters, and each quote closed"
        raise refuse("csv_syntax", f"The body is no valid CSV at line {reader.line_num:,}", rule) from err


def _refuse_encoding(content: bytes) -> ApiError:
    """Return the 422 for a body that is not UTF-8, with the line."""
    try:
        content.decode()
        place = 0
    except UnicodeDecodeError as err:
        place = err.start
    line = content.count(b"\n", 0, place) + 1
    return refuse("encoding", f"The body is no valid CSV at line {line:,}", "expects UTF-8")


def _recode(content: bytes) -> bytes:
    try:
        return content.decode("utf-16").encode()
    except UnicodeError as err:
        raise refuse("encoding", "The body is no valid CSV", "expects UTF-8 or UTF-16") from err


def _find_separator(content: bytes, separator: str, features: Sequence[str] | dict[str, Column]) -> str:
    """Return what separates the fields of the first line into most features: the contract's own where several do."""
    first = content.lstrip(b"\r\n")[:65_536].decode("utf-8-sig", errors="ignore").splitlines()[:1]
    found = dict.fromkeys((separator, *SEPARATORS), 0)
    for sign in found:
        try:
            names = {name.strip() for name in next(csv.reader(first, delimiter=sign), [])}
        except csv.Error:  # its own reading says what is wrong with it
            continue
        found[sign] = sum(name in names for name in features)
    return max(found, key=lambda sign: found[sign])


def _read_slice(served: Served, names: list[str], records: Iterator[Record], start: int, keep: bool) -> Slice:
    """Return the next records, read; those of another number of fields than the header are refused."""
    readers = {p.name: (names.index(p.name), build_reader(p)) for p in served.reader.plan}
    width, empty = len(names), [""] * len(names)
    misfits: list[NDArray[np.bool_]] = []
    kept: list[list[str]] = [[] for _ in names]
    for _ in range(SLICE_ROWS // CHUNK_ROWS):
        some = list(islice(records, CHUNK_ROWS))
        is_misfit = np.fromiter(map(len, some), dtype=np.intp, count=len(some)) != width
        shown = some
        if is_misfit.any():
            shown = [[*record, *empty][:width] for record in some]  # for whoever looks for the row that is at fault
            some = [empty if misfit else record for record, misfit in zip(some, is_misfit.tolist(), strict=True)]
        misfits.append(is_misfit)
        fields = list(zip(*some, strict=True)) or [()] * width
        for place, reader in readers.values():
            reader.add(fields[place])
        for column, texts in zip(kept, zip(*shown, strict=True), strict=False) if keep else ():
            column.extend(texts)
    notes = Notes()
    is_misfit = np.concatenate(misfits)
    columns = {name: reader.finish(notes) for name, (_, reader) in readers.items()}
    if is_misfit.any():
        notes.faults = [(mask & ~is_misfit, fault) for mask, fault in notes.faults]
        notes.faults.append((is_misfit, Fault(None, "field_count", f"expects {width:,} fields")))
    return Slice(start, len(is_misfit), columns, notes, kept if keep else ())


def build_reader(passing: Passing) -> ValueReader:
    """Return what reads a feature from texts."""
    feature = passing.feature
    if feature.column.kind not in ("number", "integer"):
        return LevelReader(passing, feature.read)
    read = partial(read_number, feature)
    if not is_plain(feature.column):
        return LevelReader(passing, read)
    convert: Callable[[str], float] = int if passing.kind is int else float
    return NumberReader(passing, lambda texts: to_floats(texts, convert), read)  # type: ignore[arg-type]


def to_floats(texts: Record, convert: Callable[[str], float]) -> Floats:
    """Return texts as Python reads numbers, NaN where it reads none, and all NaN where it may read other than we do.

    It takes digits of all scripts, and with an underscore between them.
    """
    joined = "".join(texts)
    if "_" in joined or not joined.isascii() or (convert is int and max(map(len, texts), default=0) > MAX_DIGITS):
        return np.full(len(texts), np.nan)
    try:
        return np.array(list(map(convert, texts)), dtype=np.float64)
    except ValueError:
        return np.array([_to_float(text, convert) for text in texts], dtype=np.float64)


def _to_float(text: str, convert: Callable[[str], float]) -> float:
    try:
        return convert(text)
    except ValueError:  # a missing one, or one at fault: it is read with care
        return np.nan


def is_plain(column: Column) -> bool:
    """Return whether a column's numbers are written 1234.5, or are integers, which have no other form."""
    is_bare = column.decimal in (None, ".") and column.thousands is None and column.currency is None
    return is_bare or column.kind == "integer"


def read_number(feature: FeatureReader, text: object) -> tuple[Value, str | None]:
    """Return a text as the number that the contract says it is, and a warning; see `FeatureReader.read`.

    Raises
    ------
    RefusedValueError : it is none
    """
    column, word = feature.column, str(text).strip()
    if word in feature.missing:
        return feature.read(None)
    if column.kind == "integer":
        match = INTEGER.fullmatch(word)
        if match is None or len(match[2]) > MAX_DIGITS:
            rule = "integer_type" if match is None else "integer_size"
            raise RefusedValueError(rule, f"expects an integer of at most {MAX_DIGITS} digits")
        return feature.read(int(match[1] + match[2]))
    number = word if is_plain(column) else normalize(word, column)
    if not NUMBER.fullmatch(number):
        raise RefusedValueError("number_type", "expects a number" + _describe_form(column))
    return feature.read(float(number))


def normalize(text: str, column: Column) -> str:
    """Return a text such as 1.234,5 or $ 1,234.5 as 1234.5; an empty one where it is not written so."""
    decimal, thousands = column.decimal or ".", column.thousands or ("." if column.decimal == "," else "")
    if column.currency:
        sign = re.escape(column.currency)
        text = re.sub(rf"^([+-]?)\s*{sign}\s*|\s*{sign}$", r"\1", text)
    grouped = rf"\d{{1,3}}({re.escape(thousands)}\d{{3}})+|" if thousands else ""
    if not re.fullmatch(rf"[+-]?({grouped}\d+)({re.escape(decimal)}\d+)?", text, re.ASCII):
        return ""
    return (text.replace(thousands, "") if thousands else text).replace(decimal, ".")


def _describe_form(column: Column) -> str:
    if is_plain(column):
        return ""
    decimal, thousands = column.decimal or ".", column.thousands or ("." if column.decimal == "," else "")
    return f" written like {column.currency or ''}1{thousands}234{decimal}5"
