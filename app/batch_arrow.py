"""Arrow columns as numpy takes them: numbers and moments without a copy where nothing is missing, texts as codes.

Needs PyArrow: imported only when a file or a body holds such columns.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.scorer import Coded, Values


def to_column(values: pa.Array) -> Values | Coded:
    """Return an Arrow column as `Scorer.score_columns` takes it; null is NaN, NaT, or a level None.

    Parameters
    ----------
    values : (n_rows,) numbers, booleans, moments, texts, or a dictionary of texts
    """
    kind = values.type
    if is_text(kind):
        values = values.dictionary_encode()
    if pa.types.is_dictionary(values.type):
        return to_coded(values.indices, values.dictionary.to_pylist())
    if pa.types.is_boolean(kind):
        return to_coded(values.cast(pa.int8()), [False, True])
    numbers: Values = values.to_numpy(zero_copy_only=False)
    return numbers


def to_coded(codes: pa.Array, levels: list[object]) -> Coded:
    """Return codes that may be null with their levels."""
    filled = pc.fill_null(codes.cast(pa.int64()), len(levels)) if codes.null_count else codes
    return Coded(filled.to_numpy(zero_copy_only=False), [*levels, None])


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type holds texts, not coded."""
    return any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


# NumPy's arrays as Arrow's, without pa.array: that imports pandas where it is installed.


def wrap_numbers(numbers: NDArray[np.generic], is_valid: NDArray[np.bool_] | None) -> pa.Array:
    """Return float64 or int64 numbers as an Arrow array; null where they are not valid."""
    kind = pa.float64() if numbers.dtype.kind == "f" else pa.int64()
    return pa.Array.from_buffers(kind, len(numbers), [pack(is_valid), pa.py_buffer(numbers)])


def pack(is_valid: NDArray[np.bool_] | None) -> pa.Buffer | None:
    """Return which values are valid as Arrow has it; None where all are."""
    return None if is_valid is None else pa.py_buffer(np.packbits(is_valid, bitorder="little"))
