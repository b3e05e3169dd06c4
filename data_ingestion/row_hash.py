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
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
_EXACT = 2**53  # integers beyond it need not be themselves as a float64


def hash_rows(table: pa.Table, names: Sequence[str], seed: int) -> Hashes:
    """Return the hash of each row over the named columns, (n_rows,)."""
    total = np.zeros(table.num_rows, dtype=np.uint64)
    for name in names:
        total += hash_column(table[name], name, seed)
    return mix(total)


def hash_column(column: pa.ChunkedArray, name: str, seed: int) -> Hashes:
    """Return the hash of each value of one column, (n_rows,), salted with the column's name."""
    values = column.combine_chunks()
    if pa.types.is_string(values.type) or pa.types.is_dictionary(values.type):
        bits: Hashes = _view_texts(values, seed)
    elif pa.types.is_timestamp(values.type):
        moments = values.cast(pa.timestamp("us")).cast(pa.int64())
        bits = pc.fill_null(moments, 0).to_numpy(zero_copy_only=False).view(np.uint64).copy()
        _mark_missing(bits, values)
    else:
        bits = _view_numbers(values)
    return mix(bits ^ np.uint64(_hash_text(name, seed)))


def hash_places(start: int, count: int, seed: int) -> Hashes:
    """Return a hash of each of the places `start` to `start + count`: what a stable sample is drawn by."""
    return mix(np.arange(start, start + count, dtype=np.uint64) ^ np.uint64(_hash_text("place of the row", seed)))


def mix(bits: Hashes) -> Hashes:
    """Spread every bit over all 64, in place: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        bits ^= bits >> shift
        bits *= factor
    bits ^= bits >> _SHIFTS[2]
    return bits


def is_below(hashes: Hashes, share: float) -> NDArray[np.bool_]:
    """Return which hashes lie in the lowest `share` of all that there can be, (n_rows,)."""
    limit = int(share * 2**64)
    return np.ones(len(hashes), dtype=bool) if limit >= 2**64 else hashes < np.uint64(limit)


def _view_numbers(values: pa.Array) -> Hashes:
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    whole = pa.types.is_integer(values.type)
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) + 0.0  # -0.0 becomes 0.0
    bits: Hashes = numbers.view(np.uint64)
    is_missing = np.isnan(numbers)
    if whole and len(numbers) and np.fmax.reduce(np.abs(numbers)) >= _EXACT:
        is_large = np.abs(numbers) >= _EXACT
        bits[is_large] = (
            pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)[is_large]
        )
    bits[is_missing] = _MISSING
    return bits


def _view_texts(values: pa.Array, seed: int) -> Hashes:
    """Hash the distinct texts one by one."""
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    table = np.array([*(_hash_text(text, seed) for text in encoded.dictionary.to_pylist()), _MISSING], dtype=np.uint64)
    places = pc.fill_null(encoded.indices.cast(pa.int32()), len(table) - 1)
    hashes: Hashes = table[places.to_numpy()]
    return hashes


def _mark_missing(bits: Hashes, values: pa.Array) -> None:
    if values.null_count:
        bits[values.is_null().to_numpy(zero_copy_only=False)] = _MISSING


@lru_cache(maxsize=65_536)
def _hash_text(text: str, seed: int) -> int:
    """Return 64 bits of BLAKE2b (RFC 7693), keyed by the seed."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little")
