"""The fitted encoder over row groups, in numpy: the numbers that `encoder.transform` gives, many times faster.

Reads what the scikit-learn transformers have learnt from their own attributes, so there is one fitted object for the
files and for serving; a test holds both equal bit for bit.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from data_ingestion.encoder import (
    MISSING_CODE,
    UNSEEN_CODE,
    CategoryEncoder,
    Coded,
    cast_texts,
    encode_dates,
    group_encoded_columns,
)
from data_ingestion.target_means import TargetMeans

MAX_CODED = 65_536  # larger dictionaries save nothing
Floats = NDArray[np.float64]
Folds = NDArray[np.integer]
Encoded = Floats | Coded
EncodeColumn = Callable[[pa.Array, Folds], list[Encoded]]
ColumnSpec = Mapping[str, object]  # see encoder.TypeCaster


class StreamEncoder:
    """Encodes row groups as a fitted encoder does; train rows get the target means of the other folds.

    Parameters
    ----------
    encoder : fitted, see `encoder.build_encoder`
    target_means : by category, see `learnt.Learnt`

    Attributes
    ----------
    names : the encoded columns, in the encoder's order
    features : the raw columns that it reads
    """

    def __init__(self, encoder: Pipeline, target_means: Mapping[str, Sequence[TargetMeans]]) -> None:
        encode, specs = encoder.named_steps["encode"], encoder.named_steps["cast"].columns
        columns = {str(column["name"]): column for column in specs}
        self.names = [str(name) for name in encode.get_feature_names_out()]
        self.features = list(columns)
        self._places = group_encoded_columns(encoder)
        self._encode: dict[str, EncodeColumn] = {}
        for step, transformer, names in encode.transformers_:
            for number, name in enumerate(names if step != "remainder" else ()):
                self._encode[name] = _compile_column(step, transformer, number, columns[name], target_means.get(name))

    def list_types(self, schema: pa.Schema) -> list[pa.DataType]:
        """Return the types of the encoded columns that rows of this schema become, in the order of `names`."""
        return [values.type for values in self.encode(schema.empty_table(), np.empty(0, dtype=np.int16))]

    def encode(self, table: pa.Table, folds: Folds) -> list[pa.Array]:
        """Return the encoded columns, (n_rows,) each, in the order of `names`: float64, or dictionaries of float64.

        A dictionary is written in half the time and space, and read as what it holds.

        Parameters
        ----------
        table : typed rows
        folds : (n_rows,) the fold of a train row in the cross-fitting; -1 for a row that does not train
        """
        encoded: list[pa.Array] = [None] * len(self.names)
        for name in self.features:
            made = self._encode[name](table[name].combine_chunks(), folds)
            for place, values in zip(self._places[name], made, strict=True):
                encoded[place] = to_arrow(values)
        return encoded


def _compile_column(
    step: str, transformer: object, number: int, column: ColumnSpec, means: Sequence[TargetMeans] | None
) -> EncodeColumn:
    """Return the function that encodes one raw column.

    Parameters
    ----------
    step : of the ColumnTransformer: number, category, mean or date
    transformer : what that step has fitted
    number : the place of the column among those of the step
    column : the column
    means : its target means, with the step `mean`
    """
    if step == "number":
        has_flag = number in transformer.indicator_.features_  # type: ignore[attr-defined]
        return partial(_encode_numbers, transformer.statistics_[number], has_flag)  # type: ignore[attr-defined]
    if step == "date":
        moment, parts = transformer.moments_[number], transformer.parts_[number]  # type: ignore[attr-defined]
        return partial(_encode_moments, moment, parts, transformer.has_missing_[number])  # type: ignore[attr-defined]
    levels = [level for level in transformer.categories_[number] if isinstance(level, str)]  # type: ignore[attr-defined]
    if means is not None:
        places = dict(zip(levels, range(len(levels))))
        # A level that is not seen stands after all others, and missing too where no train row lacked one.
        missing, unseen = len(levels), len(transformer.categories_[number])  # type: ignore[attr-defined]
        return partial(_encode_means, column, places, missing, unseen, [mean.table for mean in means])
    assert isinstance(transformer, CategoryEncoder)
    return partial(_encode_codes, column, _read_codes(transformer, number, levels))


def _read_codes(encoder: CategoryEncoder, number: int, levels: list[str]) -> dict[str, float]:
    """Return the code of each level of one column, rare ones sharing theirs."""
    texts = pd.Series([*levels, np.nan], dtype=object)  # never empty
    codes = encoder.transform(pd.DataFrame(dict.fromkeys(encoder.feature_names_in_, texts)))
    return dict(zip(levels, np.asarray(codes)[:-1, number].tolist(), strict=True))


def _encode_numbers(median: float, has_flag: bool, values: pa.Array, folds: Folds) -> list[Encoded]:
    numbers = to_floats(values)
    is_missing = np.isnan(numbers)
    if not is_missing.any():
        return [numbers, *([np.zeros(len(numbers))] if has_flag else [])]
    filled = np.where(is_missing, median, numbers)
    return [filled, *([is_missing.astype(np.float64)] if has_flag else [])]


def _encode_moments(
    moment: np.datetime64, parts: Sequence[str], has_flag: bool, values: pa.Array, folds: Folds
) -> list[Encoded]:
    return encode_dates(to_dates(values), moment, parts, has_flag)


def _encode_codes(column: ColumnSpec, codes: Mapping[str, float], values: pa.Array, folds: Folds) -> list[Encoded]:
    answers, rows = look_up_texts(values, column, codes, MISSING_CODE, UNSEEN_CODE)
    return [Coded(rows, np.array(answers, dtype=np.float64))]


def _encode_means(
    column: ColumnSpec,
    places: Mapping[str, int],
    missing: int,
    unseen: int,
    tables: Sequence[Floats],
    values: pa.Array,
    folds: Folds,
) -> list[Encoded]:
    answers, rows = look_up_texts(values, column, places, missing, unseen)
    width = tables[0].shape[1]
    rows_of = np.where(folds < 0, len(tables[0]) - 1, folds).astype(np.int64)  # times the width, which may be large
    cells = rows_of * width + np.array(answers, dtype=np.int64)[rows]
    columns = [Coded(cells, table.ravel()) for table in tables]
    return [column if column.table.size <= MAX_CODED else column.table[column.places] for column in columns]


def look_up_texts(
    values: pa.Array, column: ColumnSpec, answers: Mapping[str, float], missing: float, unseen: float
) -> tuple[list[float], NDArray[np.int32]]:
    """Return the answer for each distinct text, and which of them is that of each row.

    Parameters
    ----------
    values : (n_rows,) text, or a dictionary of texts
    column : says which texts mean missing
    answers : by text as it is once trimmed
    missing, unseen : the answers for no text, and for one that is not among `answers`
    """
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    texts = cast_texts(encoded.dictionary.to_pylist(), column)
    found = [missing if text is None else answers.get(text, unseen) for text in texts]
    places = pc.fill_null(encoded.indices, len(found)) if encoded.null_count else encoded.indices
    return [*found, missing], places.to_numpy()


def to_arrow(values: Encoded) -> pa.Array:
    """Return an encoded column as an array, one of few distinct values as a dictionary."""
    if not isinstance(values, Coded):
        return pa.array(values)
    return pa.DictionaryArray.from_arrays(pa.array(values.places, pa.int32()), pa.array(values.table))


def to_floats(values: pa.Array) -> Floats:
    """Return numbers, integers or booleans as float64, NaN where missing."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    numbers: Floats = values.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return numbers


def to_dates(values: pa.Array) -> NDArray[np.datetime64]:
    """Return dates as datetime64[us], NaT where missing."""
    dates: NDArray[np.datetime64] = values.to_numpy(zero_copy_only=False).astype("datetime64[us]", copy=False)
    return dates
