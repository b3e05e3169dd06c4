"""Where things stand in the text of a CSV: bytes, ends of lines, quotes, records."""

import re

import numpy as np
from numpy.typing import NDArray

CACHED = 128 * 1024  # bytes that a core keeps at hand
NEWLINE, RETURN, QUOTE = 10, 13, 34


def find_bytes(view: memoryview, byte: int) -> NDArray[np.int64]:
    """Return the places of a byte in a text, looked for piece by piece as the processor's cache takes them."""
    data = np.frombuffer(view, dtype=np.uint8)
    found = [start + np.flatnonzero(data[start : start + CACHED] == byte) for start in range(0, len(data), CACHED)]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def count_lines(content: bytes | bytearray, stop: int | None = None) -> int:
    """Return how many lines end before a place: with a line feed, a carriage return, or both."""
    stop = len(content) if stop is None else stop
    data = np.frombuffer(content, dtype=np.uint8, count=stop)
    pieces = (data[start : start + CACHED] for start in range(0, stop, CACHED))
    ends = sum(int(np.count_nonzero(piece == NEWLINE)) for piece in pieces)
    if content.find(b"\r", 0, stop) < 0:
        return ends
    return ends + content.count(b"\r", 0, stop) - content.count(b"\r\n", 0, stop)


def find_last_end(content: bytearray, before: int, stop: int) -> int:
    """Return the place after the last end of a line before a place, 0 when there is none; `stop` ends the text."""
    place = content.rfind(b"\n", 0, before)
    if place >= 0 or content.find(b"\n", 0, stop) >= 0:
        return place + 1
    place = content.rfind(b"\r", 0, before)
    if place == stop - 1:  # a line feed may be yet to come
        place = content.rfind(b"\r", 0, place)
    return place + 1


def find_paired_quotes(content: bytearray | memoryview, stop: int, separator: str) -> NDArray[np.int64] | None:
    """Return the places of all quotes when each opens or closes a field or is doubled within one, else None.

    A field opens after a separator or the end of a line and closes before one, so the quotes pair up.
    """
    data = np.frombuffer(content, dtype=np.uint8, count=stop)
    quotes = find_bytes(memoryview(content)[:stop], QUOTE)
    is_edge = np.zeros(256, dtype=bool)
    is_edge[[ord(separator), NEWLINE, RETURN]] = True
    opens, closes = quotes[0::2], quotes[1::2]
    before = np.where(opens > 0, is_edge[data[opens - 1]], True)
    before[1:] |= opens[1:] - 1 == closes[: len(opens) - 1]
    last = len(data) - 1
    after = np.where(closes < last, is_edge[data[np.minimum(closes + 1, last)]], True)
    nexts = opens[1 : len(closes) + 1]
    after[: len(nexts)] |= closes[: len(nexts)] + 1 == nexts
    return quotes if before.all() and after.all() else None


def quoted_field(separator: str) -> re.Pattern[bytes]:
    """Return the pattern of a quoted field. Group 1 matches when the field ends as it should."""
    mark = re.escape(separator.encode())
    return re.compile(rb"(?:\A|(?<=[\r\n]|" + mark + rb'))"(?:[^"]++|"")*+("(?=[\r\n]|' + mark + rb"|\Z))?")


def locate_records(content: bytes, separator: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return where each record stands: first byte, end, and line from 1, each (n_records,).

    Blank lines are no records. A newline inside a quoted field ends a line but no record.
    """
    if not content:
        none = np.empty(0, dtype=np.int64)
        return none, none, none
    data = np.frombuffer(content, dtype=np.uint8)
    is_cr = data == RETURN
    is_end = data == NEWLINE
    lone_cr = is_cr.copy()
    lone_cr[:-1] &= ~is_end[1:]
    line_ends = np.flatnonzero(is_end | lone_cr)
    inside = np.zeros(len(line_ends), dtype=bool)
    for match in quoted_field(separator).finditer(content) if b'"' in content else ():
        first, last = np.searchsorted(line_ends, (match.start(), match.end()))
        inside[first:last] = True
    ends = line_ends[~inside]
    lines = np.flatnonzero(~inside) + 2
    starts = np.concatenate([[0], ends + 1])
    stops = np.concatenate([ends, [len(content)]])
    stops = np.where((stops > starts) & is_cr[np.maximum(stops - 1, 0)], stops - 1, stops)
    kept = stops > starts
    return starts[kept], stops[kept], np.concatenate([[1], lines])[kept]
