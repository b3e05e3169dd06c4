"""Arrow columns as NumPy has them, and back, by their buffers: nothing is copied where nothing is missing.

PyArrow's own ways to NumPy import pandas where it is installed, which takes half a second and 60 MB. Needs PyArrow:
imported only when a file or a body holds such columns.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.scorer import Coded, Values

FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}
Mask = NDArray[np.bool_]


def to_column(values: pa.Array) -> Values | Coded:
    """Return an Arrow column as `Scorer.score_columns` takes it; null is NaN, NaT, or a level None.

    Parameters
    ----------
    values : (n_rows,) integers, floats, booleans, dates, timestamps, texts, or a dictionary of texts
    """
    kind = values.type
    if is_text(kind):
        values = values.dictionary_encode()
    is_null = unpack(values, 0) == 0 if values.null_count else None
    if pa.types.is_dictionary(values.type):
        return to_coded(view(values.indices), values.dictionary.to_pylist(), is_null)  # type: ignore[arg-type]
    if pa.types.is_boolean(kind):
        return to_coded(unpack(values, 1), [False, True], is_null)
    numbers = view(values)
    if is_null is None:
        return numbers
    if numbers.dtype.kind == "M":
        return np.where(is_null, np.datetime64("NaT"), numbers)
    return np.where(is_null, np.nan, numbers)


def to_coded(codes: NDArray[np.integer], levels: list[object], is_null: Mask | None) -> Coded:
    """Return codes with their levels; the code of a null means nothing."""
    if is_null is not None:
        codes = np.where(is_null, len(levels), codes.astype(np.intp))
    return Coded(codes, [*levels, None])


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type holds texts, not coded."""
    return any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def view(values: pa.Array) -> NDArray[np.generic]:
    """Return (n_rows,) integers, floats, dates or timestamps; nulls are any."""
    kind = values.type
    if pa.types.is_timestamp(kind):
        dtype = f"datetime64[{kind.unit}]"
    elif pa.types.is_date64(kind):
        dtype = "datetime64[ms]"
    else:
        dtype = "int32" if pa.types.is_date32(kind) else FLOATS.get(str(kind), str(kind))
    found = np.frombuffer(values.buffers()[1], dtype=dtype, count=values.offset + len(values))[values.offset :]
    return found.astype("datetime64[D]") if pa.types.is_date32(kind) else found


def unpack(values: pa.Array, number: int) -> NDArray[np.uint8]:
    """Return (n_rows,) the bits of one of the buffers of an array."""
    n_bits = values.offset + len(values)
    packed = np.frombuffer(values.buffers()[number], dtype=np.uint8, count=-(-n_bits // 8))
    return np.unpackbits(packed, count=n_bits, bitorder="little")[values.offset :]


def wrap_numbers(numbers: NDArray[np.generic], is_valid: Mask | None) -> pa.Array:
    """Return float64 or int64 numbers as an Arrow array; null where they are not valid."""
    kind = pa.float64() if numbers.dtype.kind == "f" else pa.int64()
    return pa.Array.from_buffers(kind, len(numbers), [pack(is_valid), pa.py_buffer(numbers)])


def wrap_texts(texts: Sequence[str | None]) -> pa.Array:
    """Return texts as an Arrow array."""
    encoded = [(text or "").encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    is_valid = np.array([text is not None for text in texts], dtype=bool)
    buffers = [pack(is_valid), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def pack(is_valid: Mask | None) -> pa.Buffer | None:
    """Return which values are valid as Arrow has it; None where all are."""
    return None if is_valid is None else pa.py_buffer(np.packbits(is_valid, bitorder="little"))
