"""From the text of a CSV to blocks of whole records, without guessing and without losing a row.

A fault of the file (separator, header, quotes, encoding) is refused at once with its line. Blocks are cut on the ends
of records, so each can be read by itself, and they always come out the same, whatever pieces the text arrives in.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from data_ingestion.csv_places import (
    count_lines,
    find_last_end,
    find_paired_quotes,
    locate_records,
    quoted_field,
)
from data_ingestion.handoff import PipelineError
from data_ingestion.schema import join_names

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
BLOCK_BYTES = 8 * 1024 * 1024
MAX_RECORD_BYTES = 64 * 1024 * 1024
_SNIFFED_BYTES = 64 * 1024


@dataclass(frozen=True)
class Block:
    """Whole records of one file.

    Parameters
    ----------
    view : their text in UTF-8, where it was read: a copy would cost more than to look at it
    header : the names of the file's columns
    separator : what stands between fields
    line : the number of the first line in the file; the header's is 1
    offset : the place of the first byte in the file
    source : the file's name, for messages
    """

    view: memoryview
    header: tuple[str, ...]
    separator: str
    line: int
    offset: int
    source: str

    @property
    def content(self) -> bytes:
        """A copy of the text."""
        return bytes(self.view)


def detect_separator(head: bytes, is_whole: bool, name: str) -> str:
    """Return the one separator that cuts the first records into equally many fields, more than one.

    Parameters
    ----------
    head : the beginning of the text
    is_whole : whether that is all of it
    name : the file's name, for messages

    Raises
    ------
    PipelineError : none or several do
    """
    if not is_whole or len(head) > _SNIFFED_BYTES:
        head = head[:_SNIFFED_BYTES]
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


def read_blocks(
    pieces: Iterable[bytes], separator: str | None, name: str, size: int, spare: list[bytearray] | None = None
) -> Iterator[Block]:
    """Yield the records of a CSV after its header, block by block.

    Parameters
    ----------
    pieces : the text in UTF-8 without byte-order mark, in pieces of any length
    separator : one character; None detects it
    name : the file's name, for messages
    size : the length of a block, in bytes; a record that is longer makes a longer block
    spare : buffers to be written over, see `recycle`

    Raises
    ------
    PipelineError : there is a NUL byte, a quoted field that does not end, a header that cannot be, or no record at all
    """
    cuts = _cut(pieces, separator, name, size, [] if spare is None else spare)
    first, separator = next(cuts)
    header, start, line = _split_header(first, separator, name)
    is_empty = not bytes(first.view[start:]).strip(b"\r\n")
    if not is_empty:
        yield Block(first.view[start:], header, separator, line, first.offset + start, name)
    for text, _ in cuts:
        is_empty = is_empty and not bytes(text.view).strip(b"\r\n")
        yield Block(text.view, header, separator, text.line, text.offset, name)
    if is_empty:
        raise PipelineError(f"{name} holds a header and no rows. Name another file: --source FILE")


@dataclass(frozen=True)
class _Text:
    """Whole records, the header perhaps among them."""

    view: memoryview
    line: int
    offset: int


def recycle(block: Block, spare: list[bytearray]) -> None:
    """Let the text of a block be written over; nobody may look at it again. Fresh memory costs more than to fill it."""
    if isinstance(block.view.obj, bytearray):
        spare.append(block.view.obj)


class _Stream:
    """Pieces of any length, read in the lengths that are asked for."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._left = iter(pieces), memoryview(b"")

    def read_into(self, view: memoryview) -> int:
        """Fill a buffer, and return how many bytes there were for it."""
        length = 0
        while length < len(view):
            while not self._left:
                piece = next(self._pieces, None)
                if piece is None:
                    return length
                self._left = memoryview(piece)
            part = self._left[: len(view) - length]
            view[length : length + len(part)] = part
            self._left = self._left[len(part) :]
            length += len(part)
        return length


def _cut(
    pieces: Iterable[bytes], separator: str | None, name: str, size: int, spare: list[bytearray]
) -> Iterator[tuple[_Text, str]]:
    """Yield the text in pieces that end with a record, each with the separator."""
    stream, rest, line, offset, wanted, is_last = _Stream(pieces), bytearray(), 1, 0, size, False
    while not is_last:
        # One byte more than is wanted tells whether the text goes on.
        content = _take_buffer(max(wanted + 1, len(rest), _SNIFFED_BYTES), spare)
        content[: len(rest)] = rest
        length = len(rest) + stream.read_into(memoryview(content)[len(rest) :])
        is_last, stop = length <= wanted, min(length, wanted)
        if not offset and not content[:length].strip(b"\r\n"):
            raise PipelineError(f"{name} is empty, expected a header line and rows. Name another file: --source FILE")
        if separator is None:
            separator = detect_separator(bytes(content[:length]), is_last, name)
        _check_nul(content, stop, line, offset, name)
        if is_last:
            _check_last_quotes(content[:length], separator, line, name)
        end = stop if is_last else _find_end(content, stop, separator, line, name)
        rest = content[end:length]
        if not end and not is_last:  # one record is longer than a block
            if wanted > MAX_RECORD_BYTES:
                raise PipelineError(
                    f"{name} line {line}: one record is longer than {MAX_RECORD_BYTES >> 20} MB. Is a quote missing?"
                )
            wanted *= 2
            continue
        wanted = size
        yield _Text(memoryview(content)[:end], line, offset), separator
        line, offset = line + count_lines(content, end), offset + end


def _take_buffer(size: int, spare: list[bytearray]) -> bytearray:
    """Return a buffer of so many bytes, one that is done with where it fits."""
    while spare:
        buffer = spare.pop()
        if len(buffer) == size:
            return buffer
    return bytearray(size)


def _check_nul(content: bytearray, stop: int, line: int, offset: int, name: str) -> None:
    nul = content.find(b"\0", 0, stop)
    if nul < 0:
        return
    if not offset and content[:200].count(b"\0") * 3 > len(content[:200]):
        raise PipelineError(
            f"{name} looks like UTF-16 without a byte-order mark. Save it as UTF-8, or say so: --encoding utf-16-le"
        )
    at = line + count_lines(content[:nul])
    raise PipelineError(f"{name} line {at}: a NUL byte (offset {offset + nul}). Remove it.")


def _find_end(content: bytearray, stop: int, separator: str, line: int, name: str) -> int:
    """Return where the last whole record before `stop` ends, 0 when there is none."""
    if content.find(b'"', 0, stop) < 0:
        return find_last_end(content, stop, stop)
    quotes = find_paired_quotes(content, stop, separator)
    if quotes is None:
        return _find_end_by_fields(content[:stop], separator, line, name)
    end = find_last_end(content, stop, stop)
    while end:
        before = int(np.searchsorted(quotes, end))
        if before % 2 == 0:  # they pair up, so the place is outside of quotes
            return end
        end = find_last_end(content, int(quotes[before - 1]), stop)
    return 0


def _find_end_by_fields(content: bytearray, separator: str, line: int, name: str) -> int:
    """Return where the last whole record ends, in a text where quotes stand within unquoted fields too."""
    fields = list(quoted_field(separator).finditer(content))
    for match in fields:
        if match.group(1) is None and match.end() < len(content):
            raise _quote_error(content, match.start(), line, name)
    end = find_last_end(content, len(content), len(content))
    for match in reversed(fields):  # the last may still be going on, so the place must stand before it
        if match.start() < end <= match.end() or (match.group(1) is None and match.start() < end):
            end = find_last_end(content, match.start(), len(content))
    return end


def _check_last_quotes(content: bytearray, separator: str, line: int, name: str) -> None:
    """Raise when a quoted field does not end: PyArrow would swallow the records that follow it without a word."""
    if b'"' not in content:
        return
    quotes = find_paired_quotes(content, len(content), separator)
    if quotes is not None and len(quotes) % 2 == 0:
        return
    for match in quoted_field(separator).finditer(content):
        if match.group(1) is None:
            raise _quote_error(content, match.start(), line, name)


def _quote_error(content: bytearray, place: int, line: int, name: str) -> PipelineError:
    return PipelineError(
        f"{name} line {line + count_lines(content[:place])}: a quoted field that begins here does not end with a quote "
        'before the separator. Close the quote; a quote inside a quoted field is written twice ("").'
    )


def _split_header(text: _Text, separator: str, name: str) -> tuple[tuple[str, ...], int, int]:
    """Return the column names, where the records begin, and in which line."""
    content = bytes(text.view)
    blank = len(content) - len(content.lstrip(b"\r\n"))  # blank lines are no records, not even before the header
    for head in (content[:_SNIFFED_BYTES], content):
        starts, stops, lines = locate_records(head, separator)
        if len(starts) > 1:
            break
    if not len(starts):
        raise PipelineError(f"{name} is empty, expected a header line and rows. Name another file: --source FILE")
    raw = content[starts[0] : stops[0]]
    try:
        header = next(csv.reader(io.StringIO(raw.decode(), newline=""), delimiter=separator))
    except UnicodeDecodeError as err:
        raise encoding_error(content, blank + err.start, text.line, text.offset, name) from err
    except csv.Error as err:
        raise PipelineError(f"{name} line 1: the header cannot be read: {err}. Mend the file.") from err
    start = int(starts[1]) if len(starts) > 1 else len(content)
    return _name_columns(header, name), start, text.line + (int(lines[1]) if len(lines) > 1 else 2) - 1


def _name_columns(header: list[str], name: str) -> tuple[str, ...]:
    """Return the column names without the blanks around them; a nameless column is called as pandas calls it."""
    names = [text.strip() or f"Unnamed: {place}" for place, text in enumerate(header)]
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice:
        raise PipelineError(f"{name} line 1: the column name {join_names(twice)} stands twice. Rename one of them.")
    return tuple(names)


def encoding_error(content: bytes, place: int, line: int, offset: int, name: str) -> PipelineError:
    """Return the one-line error for a byte that is not UTF-8, at a place of a text that begins at `line`."""
    return PipelineError(
        f"{name} line {line + count_lines(content[:place])}: byte 0x{content[place]:02x} at offset {offset + place} is "
        "not UTF-8. Name the encoding (--encoding latin-1), or save the file as UTF-8 (in a spreadsheet: CSV UTF-8)."
    )


def check_encoding(block: Block) -> None:
    """Raise when a block is not UTF-8."""
    content = block.content
    try:
        content.decode()
    except UnicodeDecodeError as err:
        raise encoding_error(content, err.start, block.line, block.offset, block.source) from err
