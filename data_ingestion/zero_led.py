"""Which columns may hold what Arrow reads as a number and the contract does not: 007, perhaps a code, and 0x1F.

Every byte of the source is looked at, so a rough look comes first, and a close one only where it found something.
"""

import numpy as np
from numpy.typing import NDArray

from data_ingestion.csv_places import CACHED, NEWLINE, QUOTE, RETURN, find_paired_quotes
from data_ingestion.csv_reader import Block

_TAB, _BLANK, _COMMA, _DIGIT_0, _DIGIT_9, _UPPER_X, _LOWER_X, _CASE_BIT = 9, 32, 44, 48, 57, 88, 120, 32


def find_zero_led(block: Block, num_rows: int, has_misfits: bool, with_digits: bool) -> set[str]:
    """Return the columns that may hold a hexadecimal number, or digits behind a leading zero.

    Parameters
    ----------
    block : the records
    num_rows : how many records fit the header
    has_misfits : whether others do not
    with_digits : whether 007 is looked for, or only 0x07
    """
    data, separator = np.frombuffer(block.view, dtype=np.uint8), ord(block.separator)
    places = _find_zeros(data, separator, with_digits)
    places = places[_is_led(data, places, separator, with_digits)]
    if not len(places):
        return set()
    paired = find_paired_quotes(block.view, len(data), block.separator)
    if has_misfits or paired is None:
        return set(block.header)
    ends = np.flatnonzero((data == separator) | (data == NEWLINE))
    if len(paired):
        ends = ends[np.searchsorted(paired, ends) % 2 == 0]
    if len(ends) + (data[-1] != NEWLINE) != num_rows * len(block.header):  # records that do not fit, or blank lines
        return set(block.header)
    fields = np.unique(np.searchsorted(ends, places) % len(block.header))
    return {block.header[place] for place in fields}


def _find_zeros(data: NDArray[np.uint8], separator: int, with_digits: bool) -> NDArray[np.int64]:
    """Return all places that `_is_led` may hold for, found with as few comparisons a byte as can be.

    A value begins behind a byte up to the comma or behind the separator. A blank is such a byte only when another one
    stands before it, or the hours of every date would be looked at closely.
    """
    least = _DIGIT_0 if with_digits else _UPPER_X
    found = [np.arange(min(2, len(data) - 1))]  # too little stands before them
    for start in range(0, len(data) - 3, CACHED):
        piece = data[start : start + CACHED + 3]
        is_edge, after = piece[:-2] <= _COMMA, piece[3:]
        is_found = piece[2:-1] == _DIGIT_0
        is_found &= after >= least
        if separator > _COMMA:
            is_edge |= piece[:-2] == separator
            is_found &= after != separator
        is_found &= is_edge[1:]
        if separator != _BLANK:
            begins = piece[1:-2] != _BLANK
            begins |= is_edge[:-1]
            is_found &= begins
        if is_found.any():
            found.append(np.flatnonzero(is_found) + (start + 2))
    return np.concatenate(found)


def _is_led(data: NDArray[np.uint8], places: NDArray[np.int64], separator: int, with_digits: bool) -> NDArray[np.bool_]:
    """Return at which places a value begins with a zero, with an x or a digit behind it, (n_places,)."""
    blanks = [byte for byte in (_BLANK, _TAB) if byte != separator]
    edges = [separator, NEWLINE, RETURN, QUOTE, *blanks]
    is_first = places == 0
    before = data[places - 1]
    is_blank_led = (places == 1) | np.isin(data[np.maximum(places - 2, 0)], edges)
    is_begin = is_first | (np.isin(before, edges) & (is_blank_led | ~np.isin(before, blanks)))
    after = data[places + 1]
    is_led: NDArray[np.bool_] = (after | _CASE_BIT) == _LOWER_X
    if with_digits:
        is_led |= (after >= _DIGIT_0) & (after <= _DIGIT_9)
    is_led &= is_begin & (data[places] == _DIGIT_0)
    return is_led
