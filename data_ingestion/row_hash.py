"""Hashes of rows: 64 bits that equal rows share and that nothing but the values and the seed decides.

Each value is mixed with its column's name, and a row's hash is the mixed sum over its columns, so the order of columns,
of rows and of row groups, the platform and the library versions change nothing. Zero has one sign, NaN is missing, and
an integer or a boolean hashes like the equal number: a column of integers keeps its hashes when a fraction joins it.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_MISSING = np.uint64(0xFFF8_0000_0000_0001)  # a NaN that no calculation makes
_FACTORS = np.uint64(0xBF58_476D_1CE4_E5B9), np.uint64(0x94D0_49BB_1331_11EB)
_STEP = np.uint64(0x9E37_79B9_7F4A_7C15)  # of SplitMix64: neighbours have nothing in common
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
_NO_MOMENT = np.uint64(2**63)  # what numpy has for a missing moment
_WORD = 8  # bytes
_FIRST_BYTES = np.array([256**count - 1 for count in range(_WORD + 1)], dtype=np.uint64)  # of a little-endian word
_EXACT = 2**53  # integers beyond it need not be themselves as a float64


def hash_rows(table: pa.Table, names: Sequence[str], seed: int) -> Hashes:
    """Return the hash of each row over the named columns, (n_rows,)."""
    total, scratch = np.zeros(table.num_rows, dtype=np.uint64), np.empty(table.num_rows, dtype=np.uint64)
    for name in names:
        total += hash_column(table[name], name, seed, scratch)
    return mix(total, scratch)


def hash_column(column: pa.ChunkedArray, name: str, seed: int, scratch: Hashes | None = None) -> Hashes:
    """Return the hash of each value of one column, (n_rows,), salted with the column's name.

    Parameters
    ----------
    column : numbers, integers, booleans, texts or moments
    name : its name
    seed : another seed, other hashes
    scratch : (n_rows,) to calculate in
    """
    values = column.combine_chunks()
    if pa.types.is_string(values.type) or pa.types.is_dictionary(values.type):
        bits = _view_texts(values)
    elif pa.types.is_timestamp(values.type):
        bits = values.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False).view(np.uint64).copy()
        bits[bits == _NO_MOMENT] = _MISSING
    else:
        bits = _view_numbers(values)
    bits ^= _salt(name, seed)
    return mix(bits, scratch)


def hash_places(start: int, count: int, seed: int) -> Hashes:
    """Return a hash of each of the places `start` to `start + count`: what a stable sample is drawn by."""
    return mix(np.arange(start, start + count, dtype=np.uint64) * _STEP + _salt("place of the row", seed))


def mix(bits: Hashes, scratch: Hashes | None = None) -> Hashes:
    """Spread every bit over all 64, in place: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    scratch = np.empty_like(bits) if scratch is None else scratch  # fresh memory costs more than the calculation
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        bits ^= np.right_shift(bits, shift, out=scratch)
        bits *= factor
    bits ^= np.right_shift(bits, _SHIFTS[2], out=scratch)
    return bits


def is_below(hashes: Hashes, share: float) -> NDArray[np.bool_]:
    """Return which hashes lie in the lowest `share` of all that there can be, (n_rows,)."""
    limit = int(share * 2**64)
    return np.ones(len(hashes), dtype=bool) if limit >= 2**64 else hashes < np.uint64(limit)


def _view_numbers(values: pa.Array) -> Hashes:
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    # A sum, not in place: it copies, and -0.0 becomes 0.0.
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64, copy=False) + 0.0
    bits: Hashes = numbers.view(np.uint64)
    is_missing = np.isnan(numbers)
    if pa.types.is_integer(values.type) and (is_large := np.abs(numbers) >= _EXACT).any():
        whole: NDArray[np.int64] = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        bits[is_large] = whole.view(np.uint64)[is_large]
    bits[is_missing] = _MISSING
    return bits


def _view_texts(values: pa.Array) -> Hashes:
    """Hash each distinct text once."""
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    table = np.append(hash_texts(encoded.dictionary), _MISSING)
    places = pc.fill_null(encoded.indices, len(table) - 1) if encoded.null_count else encoded.indices
    hashes: Hashes = table[places.to_numpy()]
    return hashes


def hash_texts(texts: pa.StringArray) -> Hashes:
    """Return a hash of each text, (n_texts,): its length and its UTF-8 in words of eight bytes, mixed one by one."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    content = np.zeros(int(ends[-1] - ends[0]) + _WORD, dtype=np.uint8)
    if data is not None:
        content[:-_WORD] = np.frombuffer(data, dtype=np.uint8)[ends[0] : ends[-1]]
    words = np.ndarray(len(content) - _WORD + 1, dtype="<u8", buffer=content, strides=(1,))  # one begins at every byte
    starts, lengths = ends[:-1] - ends[0], np.diff(ends)
    hashes: Hashes = mix(lengths.astype(np.uint64))
    rows = np.flatnonzero(lengths)
    place = 0
    while len(rows):
        left = lengths[rows] - place
        word = words[starts[rows] + place] & _FIRST_BYTES[np.minimum(left, _WORD)]
        hashes[rows] = mix(hashes[rows] ^ word)
        rows, place = rows[left > _WORD], place + _WORD
    return hashes


@lru_cache
def _salt(name: str, seed: int) -> np.uint64:
    """Return 64 bits of BLAKE2b (RFC 7693) of a column's name, keyed by the seed."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=str(seed).encode()).digest()
    return np.uint64(int.from_bytes(digest, "little"))
