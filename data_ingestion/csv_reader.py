"""From the bytes of a CSV to a table of texts, without guessing and without losing a row.

A fault of the file (separator, header, quotes) is refused at once with its line. A record with too many or
too few fields is set aside with its line; the other records go on.
"""

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data_ingestion.handoff import PipelineError
from data_ingestion.schema import join_names
from data_ingestion.sources import line_of

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
_SNIFFED_BYTES = 64 * 1024
_BLOCK_BYTES = 64 * 1024 * 1024  # the longest record PyArrow may meet


@dataclass(frozen=True)
class Reject:
    """A record that is set aside: its number in the file (the header is 1), the column at fault, and why."""

    record: int
    column: str | None
    reason: str


@dataclass(frozen=True)
class TextTable:
    """A CSV as texts.

    Parameters
    ----------
    table : one string column per header name, values as written, without the blanks around them
    records : (n_rows,) the number of each row's record in the file; the header is record 1
    rejects : the records that have too many or too few fields
    """

    table: "pa.Table"
    records: NDArray[np.int64]
    rejects: list[Reject]


def detect_separator(content: bytes, name: str) -> str:
    """Return the one separator that cuts the first records into equally many fields, more than one.

    Raises
    ------
    PipelineError : none or several do
    """
    head = content[:_SNIFFED_BYTES]
    if len(head) < len(content):
        head = head[: head.rfind(b"\n") + 1] or head
    text = head.decode(errors="ignore")
    widths = {separator: _count_fields(text, separator) for separator in SEPARATORS}
    candidates = {s: w for s, w in widths.items() if w[0] > 1}
    if not candidates:
        raise PipelineError(
            f"{name} line 1: expected column names separated by comma, semicolon, tab or pipe, got one column. "
            'Name the separator: --separator "CHARACTER"'
        )
    even = [s for s, w in candidates.items() if len(set(w)) == 1]
    if len(even) == 1:
        return even[0]
    likely = even or [s for s, w in candidates.items() if Counter(w).most_common(1)[0][0] == w[0]]
    if len(likely) == 1:
        return likely[0]
    if len(candidates) == 1:
        return next(iter(candidates))
    names = " or ".join(SEPARATORS[s] for s in (likely or candidates))
    raise PipelineError(f'{name}: the separator may be {names}. Say which: --separator "CHARACTER"')


def _count_fields(text: str, separator: str) -> list[int]:
    """Return the number of fields of the header and the next 200 records."""
    widths: list[int] = []
    try:
        for record in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if record:
                widths.append(len(record))
            if len(widths) > 200:
                break
    except csv.Error:  # a field beyond the csv module's limit: what was counted so far decides
        pass
    return widths or [1]


def read_texts(content: bytes, separator: str, name: str) -> TextTable:
    """Return the records of a CSV as a table of texts.

    Parameters
    ----------
    content : UTF-8 without byte-order mark
    separator : one character
    name : the file's name, for messages

    Raises
    ------
    PipelineError : a quoted field does not end, a column name stands twice, or there is no record at all
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pa_csv

    _check_quotes(content, separator, name)
    content = content.lstrip(b"\r\n")  # blank lines are no records, not even before the header
    try:
        header = next(csv.reader(io.StringIO(content.decode(), newline=""), delimiter=separator))
    except csv.Error as err:
        raise PipelineError(f"{name} line 1: the header cannot be read: {err}. Mend the file.") from err
    names = _name_columns(header, name)
    rejects: list[Reject] = []

    def set_aside(row: "pa_csv.InvalidRow") -> str:
        reason = f"expected {row.expected_columns} fields, got {row.actual_columns}"
        rejects.append(Reject(row.number, None, reason))
        return "skip"

    try:
        table = pa_csv.read_csv(
            pa.py_buffer(content),
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=min(len(content) + 1, _BLOCK_BYTES)),
            parse_options=pa_csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=set_aside
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as err:
        raise PipelineError(f"{name} cannot be read as CSV: {err}. Mend the file.") from err
    table = table.rename_columns(names).combine_chunks()
    for index, column in enumerate(names):
        table = table.set_column(index, column, pc.utf8_trim_whitespace(table[column]))
    wrong = {reject.record for reject in rejects}
    numbers = range(2, 2 + table.num_rows + len(wrong))
    records = np.fromiter((n for n in numbers if n not in wrong), dtype=np.int64, count=table.num_rows)
    if not numbers:
        raise PipelineError(f"{name} holds a header and no rows. Name another file: --source FILE")
    return TextTable(table, records, rejects)


def _name_columns(header: list[str], name: str) -> list[str]:
    """Return the column names without the blanks around them; a nameless column is called as pandas calls it."""
    names = [text.strip() or f"Unnamed: {place}" for place, text in enumerate(header)]
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice:
        raise PipelineError(f"{name} line 1: the column name {join_names(twice)} stands twice. Rename one of them.")
    return names


def _quoted_field(separator: str) -> re.Pattern[bytes]:
    """Return the pattern of a quoted field. Group 1 matches when the field ends as it should."""
    mark = re.escape(separator.encode())
    return re.compile(rb"(?:\A|(?<=[\r\n]|" + mark + rb'))"(?:[^"]++|"")*+("(?=[\r\n]|' + mark + rb"|\Z))?")


def _check_quotes(content: bytes, separator: str, name: str) -> None:
    """Raise when a quoted field does not end: PyArrow would swallow the records that follow it without a word."""
    if b'"' not in content:
        return
    for match in _quoted_field(separator).finditer(content):
        if match.group(1) is None:
            line = line_of(content, match.start())
            raise PipelineError(
                f"{name} line {line}: a quoted field that begins here does not end with a quote before the separator. "
                'Close the quote; a quote inside a quoted field is written twice ("").'
            )


def locate_records(content: bytes, separator: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return where each record stands: first byte, end, and line, each (n_records,), the header first.

    Blank lines are no records. A newline inside a quoted field ends a line but no record.
    """
    data = np.frombuffer(content, dtype=np.uint8)
    is_cr = data == 13
    is_end = data == 10
    lone_cr = is_cr.copy()
    lone_cr[:-1] &= ~is_end[1:]
    line_ends = np.flatnonzero(is_end | lone_cr)
    inside = np.zeros(len(line_ends), dtype=bool)
    for match in _quoted_field(separator).finditer(content) if b'"' in content else ():
        first, last = np.searchsorted(line_ends, (match.start(), match.end()))
        inside[first:last] = True
    ends = line_ends[~inside]
    lines = np.flatnonzero(~inside) + 2
    starts = np.concatenate([[0], ends + 1])
    stops = np.concatenate([ends, [len(content)]])
    stops = np.where((stops > starts) & is_cr[np.maximum(stops - 1, 0)], stops - 1, stops)
    kept = stops > starts
    return starts[kept], stops[kept], np.concatenate([[1], lines])[kept]
