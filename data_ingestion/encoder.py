"""From raw rows to the numbers an estimator takes: one fitted scikit-learn object for training and for serving.

`TypeCaster` reads raw columns as the contract says, from a parquet hand-off, a CSV read by pandas, or a request; what
follows are scikit-learn's own transformers, one of its kind for dates, and an OrdinalEncoder that always knows missing
values. This module needs nothing else of the project, so that a saved model can travel with it. The preprocessor fits
it on a sample (learnt.py) and encodes row group by row group with what it has learnt (stream_encoder.py).
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder, TargetEncoder
from sklearn.utils.validation import check_is_fitted

DATE_PARTS = ("year", "month", "day", "weekday", "hour", "minute")
CYCLES = {"month": 12, "weekday": 7, "hour": 24}  # parts whose last value lies beside the first
DAY = 86_400_000_000  # microseconds
UNSEEN_CODE = -1  # a category that the train rows do not hold
MISSING_CODE = -2  # no category at all
ISO = "iso"
MAX_NUMBER = 1e30  # as in the contract
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"[+-]?\d{1,18}(\.0*)?", re.ASCII)
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
ISO_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}")  # what a typed date becomes in JSON


class TypeCaster(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Cast raw columns to the kinds of the contract.

    Numbers, integers and booleans become float64 (true is 1), categories become texts, dates become datetime64 in
    UTC. Missing values become NaN or NaT. Other columns are passed over, and the order of columns is free.

    Parameters
    ----------
    columns : list of dict, one per feature in contract order, with the keys name, kind, missing, and as far as the
        kind needs them true_values, false_values, format
    """

    def __init__(self, columns: Sequence[Mapping[str, object]]) -> None:
        self.columns = columns

    def fit(self, X: pd.DataFrame, y: object = None) -> "TypeCaster":
        """Remember the features' names; there is nothing else to learn."""
        self.feature_names_in_ = np.array([str(column["name"]) for column in self.columns], dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the features, (n_rows, n_features), in contract order.

        Raises
        ------
        ValueError : a feature is not there, or a value is not of its column's kind
        """
        check_is_fitted(self, "feature_names_in_")
        for name in self.feature_names_in_:
            if name not in X.columns:
                near = difflib.get_close_matches(name, [str(other) for other in X.columns], n=1)
                hint = f' Did you mean "{near[0]}"?' if near else ""
                raise ValueError(f'column "{name}" is missing: the model was trained with it.{hint}')
        return pd.DataFrame({str(column["name"]): cast_series(X[column["name"]], column) for column in self.columns})

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Return the features' names: casting changes none."""
        return np.asarray(self.feature_names_in_, dtype=object)


def cast_series(values: pd.Series, column: Mapping[str, object]) -> pd.Series:
    """Return one column as its kind; see `TypeCaster`.

    Raises
    ------
    ValueError : naming the column, the row and the value
    """
    kind = column["kind"]
    if kind == "datetime":
        return _cast_each(values, column, _parse_datetime).astype("datetime64[us]")
    if kind in ("category", "text"):
        return _cast_each(values, column, _format_category)
    if kind == "boolean":
        is_typed = pd.api.types.is_bool_dtype(values.dtype)
        return (values if is_typed else _cast_each(values, column, _parse_word)).astype("float64")
    if not pd.api.types.is_numeric_dtype(values.dtype):
        return _cast_each(values, column, _parse_number).astype("float64")
    numbers = values.astype("float64")
    is_fault = numbers.abs() > MAX_NUMBER
    if kind == "integer":
        is_fault |= numbers % 1 > 0
    if is_fault.any():
        row = int(np.flatnonzero(is_fault)[0])
        raise _describe_fault(column, row, numbers.iloc[row])
    return numbers


def _cast_each(values: pd.Series, column: Mapping[str, object], cast) -> pd.Series:  # type: ignore[no-untyped-def]
    """Cast the distinct values one by one; trimmed texts that mean missing, None, NaN and NaT become NaN."""
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        moments = values.dt.tz_convert("UTC").dt.tz_localize(None) if values.dt.tz is not None else values
        return moments if cast is _parse_datetime else moments.astype(str)
    missing = set(column["missing"])  # type: ignore[call-overload]
    codes, distinct = pd.factorize(values.map(_trim), use_na_sentinel=True)
    # Missing is NaN, never None, which OrdinalEncoder takes for a category. The last entry answers code -1.
    table = np.full(len(distinct) + 1, np.nan, dtype=object)
    for code, value in enumerate(distinct):
        if isinstance(value, str) and value in missing:
            continue
        try:
            table[code] = cast(value, column)
        except (ValueError, TypeError, OverflowError) as err:
            raise _describe_fault(column, int(np.flatnonzero(codes == code)[0]), value) from err
    return pd.Series(table[codes], index=values.index, dtype=object)


def cast_texts(texts: Sequence[str], column: Mapping[str, object]) -> list[str | None]:
    """Return the categories that typed texts are, None for missing: what `cast_series` makes of a column of texts."""
    missing = set(column["missing"])  # type: ignore[call-overload]
    return [None if (trimmed := text.strip()) in missing else trimmed for text in texts]


def _describe_fault(column: Mapping[str, object], row: int, value: object) -> ValueError:
    expected = {"integer": "an integer", "boolean": "a boolean", "datetime": "a date"}.get(
        str(column["kind"]), "a number"
    )
    return ValueError(f'column "{column["name"]}" row {row}: expects {expected}, got {value!r}')


def _trim(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _parse_number(value: object, column: Mapping[str, object]) -> float:
    is_integer = column["kind"] == "integer"
    if isinstance(value, str):
        value = value if is_integer else _normalize_number(value, column)
        if not (INTEGER if is_integer else NUMBER).fullmatch(value):
            raise ValueError("not written as one")
    number = float(value)  # type: ignore[arg-type]
    if not abs(number) <= MAX_NUMBER or (is_integer and not number.is_integer()):
        raise ValueError("too large, or not whole")
    return number


def _normalize_number(text: str, column: Mapping[str, object]) -> str:
    """Return a text such as 1.234,5 or $ 1,234.5 as 1234.5, where the contract says that numbers are written so."""
    decimal, thousands, currency = (column.get(key) for key in ("decimal", "thousands", "currency"))
    if decimal in (None, ".") and not thousands and not currency:
        return text
    if currency:
        sign = re.escape(str(currency))
        text = re.sub(rf"^([+-]?)\s*{sign}\s*|\s*{sign}$", r"\1", text)
    thousands = str(thousands or ("." if decimal == "," else ""))
    grouped = rf"\d{{1,3}}({re.escape(thousands)}\d{{3}})+|" if thousands else ""
    if not re.fullmatch(rf"[+-]?({grouped}\d+)({re.escape(str(decimal or '.'))}\d+)?", text, re.ASCII):
        raise ValueError("not written as one")
    return (text.replace(thousands, "") if thousands else text).replace(str(decimal or "."), ".")


def _parse_word(value: object, column: Mapping[str, object]) -> float:
    if isinstance(value, bool | np.bool_):
        return float(value)
    word = _format_category(value, column).lower()
    for answer, words in ((1.0, column["true_values"]), (0.0, column["false_values"])):
        if word in [text.lower() for text in words]:  # type: ignore[attr-defined]
            return answer
    raise ValueError("no declared word")


def _parse_datetime(value: object, column: Mapping[str, object]) -> datetime:
    if isinstance(value, datetime):
        moment = value
    elif ISO_MOMENT.match(str(value)) or (column["format"] == ISO and ISO_DATE.match(str(value))):
        moment = datetime.fromisoformat(str(value))
    elif column["format"] == ISO:
        raise ValueError("does not begin like 2024-02-29")
    else:
        moment = datetime.strptime(str(value), str(column["format"]))
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _format_category(value: object, column: Mapping[str, object]) -> str:
    """Return a category as its text. pandas reads the texts 1.0 as numbers, and 1 beside a missing value as 1.0."""
    if not isinstance(value, float | np.floating) or not float(value).is_integer():
        return str(value)
    known: Sequence[str] = column.get("categories", ())  # type: ignore[assignment]
    spellings = (str(int(value)), str(float(value)))
    return next((text for text in spellings if text in known), spellings[0])


class CategoryEncoder(OrdinalEncoder):  # type: ignore[misc]
    """An OrdinalEncoder with a code for missing values, also where no train row lacks one."""

    def fit(self, X: pd.DataFrame, y: object = None) -> "CategoryEncoder":
        """Learn the levels of each column, the missing one always among them."""
        missing = pd.DataFrame({name: pd.Series([np.nan], dtype=object) for name in X.columns})
        super().fit(pd.concat([X, missing], ignore_index=True))
        return self


class Coded(NamedTuple):
    """A column of few distinct values: row i holds `table[places[i]]`."""

    places: NDArray[np.integer]
    table: NDArray[np.float64]


class DateEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn each date into days since 1970, fractions included, and those of DATE_PARTS that vary in the train rows.

    Month, weekday and hour also give their sine and cosine, so that December lies beside January. A missing date
    becomes the median moment of the train rows (of the two in the middle the earlier), and where train rows lack dates
    a flag says so.

    Attributes
    ----------
    moments_ : (n_features,) datetime64[us], what stands for a missing date
    parts_ : for each feature, the parts that vary
    has_missing_ : (n_features,) bool
    """

    def fit(self, X: pd.DataFrame, y: object = None) -> "DateEncoder":
        """Learn from columns of datetime64."""
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        self.moments_ = np.zeros(X.shape[1], dtype="datetime64[us]")
        self.has_missing_ = np.zeros(X.shape[1], dtype=bool)
        self.parts_: list[tuple[str, ...]] = []
        for place, name in enumerate(X.columns):
            values = X[name].to_numpy("datetime64[us]")
            known = np.sort(values[~np.isnat(values)])
            self.has_missing_[place] = len(known) < len(values)
            if len(known):
                self.moments_[place] = known[(len(known) - 1) // 2]
            parts = compute_date_parts(known.astype(np.int64))
            self.parts_.append(tuple(part for part in DATE_PARTS if np.ptp(parts[part]) > 0) if len(known) else ())
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the parts, (n_rows, n_encoded) float64, feature after feature."""
        check_is_fitted(self, "moments_")
        columns = [
            encode_dates(X[name].to_numpy("datetime64[us]"), self.moments_[place], parts, self.has_missing_[place])
            for place, (name, parts) in enumerate(zip(self.feature_names_in_, self.parts_, strict=True))
        ]
        names = self.get_feature_names_out()
        arrays = [v.table[v.places] if isinstance(v, Coded) else v for made in columns for v in made]
        return pd.DataFrame(dict(zip(names, arrays, strict=True)), index=X.index)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Return the names of the encoded columns."""
        return np.array([name for names in self.name_columns() for name in names], dtype=object)

    def name_columns(self) -> list[list[str]]:
        """Return for each feature the names of the columns that it becomes."""
        named = []
        for feature, parts, missing in zip(self.feature_names_in_, self.parts_, self.has_missing_, strict=True):
            wanted = [[part, f"{part}_sin", f"{part}_cos"] if part in CYCLES else [part] for part in parts]
            names = [f"{feature}_{name}" for group in [*wanted, ["days"]] for name in group]
            named.append([*names, *([f"missingindicator_{feature}"] if missing else [])])
        return named


def encode_dates(
    values: NDArray[np.datetime64], moment: np.datetime64, parts: Sequence[str], has_missing: bool
) -> list[NDArray[np.float64] | Coded]:
    """Return the encoded columns of one date column; see `DateEncoder`.

    Parameters
    ----------
    values : (n_rows,) datetime64[us], NaT where missing
    moment : what stands for NaT
    parts : which of DATE_PARTS
    has_missing : whether a flag says what was missing
    """
    is_missing = np.isnat(values)
    moments = np.where(is_missing, moment, values).astype(np.int64)
    found = compute_date_parts(moments, parts)
    columns: list[NDArray[np.float64] | Coded] = []
    for part, places in found.items():
        first, last = (int(places.min()), int(places.max())) if len(places) else (0, 0)
        columns.append(Coded(places - first, np.arange(first, last + 1, dtype=np.float64)))
        if part in CYCLES:
            columns += [Coded(places, wave) for wave in _WAVES[part]]
    return [*columns, moments / DAY, *([is_missing.astype(np.float64)] if has_missing else [])]


def compute_date_parts(moments: NDArray[np.int64], parts: Sequence[str] = DATE_PARTS) -> dict[str, NDArray[np.int64]]:
    """Return the parts of moments given in microseconds since 1970; a Monday is weekday 0."""
    days = moments // DAY
    seconds = (moments - days * DAY) // 1_000_000
    distinct, places = _index_days(days)
    dates = distinct.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    calendar: dict[str, Callable[[], NDArray[np.int64]]] = {
        "year": lambda: (dates.astype("datetime64[Y]").astype(np.int64) + 1970)[places],
        "month": lambda: (months.astype(np.int64) % 12 + 1)[places],
        "day": lambda: ((dates - months.astype("datetime64[D]")).astype(np.int64) + 1)[places],
        "weekday": lambda: ((distinct + 3) % 7)[places],
        "hour": lambda: seconds // 3600,
        "minute": lambda: seconds // 60 % 60,
    }
    return {part: calendar[part]() for part in parts}


def _index_days(days: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return distinct days, and where each day stands among them: the calendar is slow, and days repeat."""
    if not len(days):
        return days, days
    first, last = int(days.min()), int(days.max())
    if last - first > len(days):
        return days, np.arange(len(days))
    return np.arange(first, last + 1), days - first


def _compute_waves(period: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sine and cosine of 0 to `period`, rounded so that every platform has the same."""
    angles = 2 * np.pi * (np.arange(period + 1, dtype=np.float64) % period) / period
    sine, cosine = (np.round(wave(angles), 12).astype(np.float64) for wave in (np.sin, np.cos))
    return sine, cosine


_WAVES = {part: _compute_waves(period) for part, period in CYCLES.items()}


def build_encoder(
    columns: Sequence[Mapping[str, object]],
    target_means: Sequence[str],
    task: str,
    min_frequency: int,
    seed: int,
) -> Pipeline:
    """Return the unfitted encoder: raw table in, DataFrame of float64 without missing values out.

    Its columns are named after what made them: `number__x` and `number__missingindicator_x`, `category__x` (codes),
    `mean__x` (target means), `date__x_month` and `date__missingindicator_x`.

    Parameters
    ----------
    columns : one mapping per feature, see `TypeCaster`
    target_means : the categories with too many levels for codes; the target's mean stands for each level, on the
        train rows taken from other rows only (cross-fitting), as TargetEncoder does
    task : regression, binary or multiclass
    min_frequency : categories with fewer train rows share one code
    seed : decides the folds of the cross-fitting
    """
    names = {kind: [str(c["name"]) for c in columns if c["kind"] == kind] for kind in {c["kind"] for c in columns}}
    numbers = [n for kind in ("number", "integer", "boolean") for n in names.get(kind, [])]
    codes = [name for name in names.get("category", []) if name not in target_means]
    target_type = "continuous" if task == "regression" else task
    folds = (KFold if task == "regression" else StratifiedKFold)(n_splits=5, shuffle=True, random_state=seed)
    impute = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    ordinal = CategoryEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=UNSEEN_CODE,
        encoded_missing_value=MISSING_CODE,
        min_frequency=min_frequency,
    )
    steps = [
        ("number", impute, numbers),
        ("category", ordinal, codes),
        ("mean", TargetEncoder(target_type=target_type, cv=folds), list(target_means)),
        ("date", DateEncoder(), names.get("datetime", [])),
    ]
    encode = ColumnTransformer([step for step in steps if step[2]], verbose_feature_names_out=True)
    return Pipeline([("cast", TypeCaster(list(columns))), ("encode", encode)]).set_output(transform="pandas")


def group_encoded_columns(encoder: Pipeline) -> dict[str, list[int]]:
    """Return the places of the encoded columns that each feature became, in a fitted encoder's output."""
    encode = encoder.named_steps["encode"]
    groups: dict[str, list[int]] = {}
    for step, transformer, features in encode.transformers_:
        if step == "remainder":
            continue
        start = encode.output_indices_[step].start
        for feature, places in zip(features, _place_columns(step, transformer, list(features)), strict=True):
            groups[str(feature)] = [start + place for place in places]
    return groups


def _place_columns(step: str, transformer: BaseEstimator, features: list[str]) -> list[list[int]]:
    """Return for each feature of one step the places of its columns among those that the step makes."""
    if step == "date":
        counts = [len(names) for names in transformer.name_columns()]
    elif step == "mean":  # one column a class, feature after feature
        counts = [len(transformer.get_feature_names_out(features)) // len(features)] * len(features)
    else:
        counts = [1] * len(features)
    ends = np.cumsum(counts)
    places = [list(range(end - count, end)) for end, count in zip(ends, counts, strict=True)]
    if step == "number":  # the flags follow in the order of the features that have one
        for number, place in enumerate(transformer.indicator_.features_):
            places[place].append(len(features) + number)
    return places
