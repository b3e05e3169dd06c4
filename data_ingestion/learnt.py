"""Fit the encoder on a sample of typed rows, without handing scikit-learn a million of them.

What scikit-learn's transformers learn (medians, levels and which are rare, the dates' parts) is worked out in numpy
over the sample, and the encoder is fitted on a digest: a small table that has the same median, the same levels, as rare
or as frequent, the same varying parts. So the fitted encoder is an ordinary one, made by scikit-learn's own `fit`, and
it is the one that a fit on all the sample's rows would be. Only target means, which no small table has, are put in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import TargetEncoder

from data_ingestion.encoder import DATE_PARTS, build_encoder, cast_texts, compute_date_parts
from data_ingestion.stream_encoder import to_dates, to_floats
from data_ingestion.target_means import Labels, TargetMeans, cross_fit_means

MIN_CLASS_ROWS = 5  # as many as TargetEncoder has folds

ColumnSpec = Mapping[str, object]  # see encoder.TypeCaster


@dataclass(frozen=True)
class EncodeRequest:
    """What to encode, and how.

    Parameters
    ----------
    columns : the features in contract order, see `encoder.TypeCaster`
    task : regression, binary or multiclass
    min_frequency : categories with fewer train rows share one code
    max_levels : categories with more levels become target means
    seed : stands in the encoder for whoever fits it anew
    """

    columns: Sequence[ColumnSpec]
    task: str
    min_frequency: int
    max_levels: int
    seed: int


@dataclass(frozen=True)
class Learnt:
    """The fitted encoder, and what it needs beside itself for the rows it was fitted on.

    Parameters
    ----------
    encoder : fitted
    target_means : by category, one entry for each class (one for a regression or two classes)
    levels : by category, without the places of the rows
    """

    encoder: Pipeline
    target_means: dict[str, list[TargetMeans]]
    levels: "dict[str, Levels]"


@dataclass(frozen=True)
class Levels:
    """The levels of one category among the sample.

    Parameters
    ----------
    texts : sorted
    places : (n_rows,) the level of each row, `len(texts)` where it is missing
    counts : (n_levels + 1,) the rows of each, the missing ones last
    """

    texts: list[str]
    places: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def n_levels(self) -> int:
        """How many levels there are, missing being one where rows lack the category."""
        return len(self.texts) + bool(self.counts[-1])


@dataclass(frozen=True)
class Digest:
    """A few values from which one column's transformer learns what it would learn from all.

    Parameters
    ----------
    values : (n_values,)
    filler : can be added any number of times without a change
    """

    values: NDArray[np.generic]
    filler: object


def learn_encoder(
    sample: pa.Table, target: str, folds: NDArray[np.uint8], n_folds: int, request: EncodeRequest
) -> Learnt:
    """Return the encoder fitted on the rows of a sample.

    Parameters
    ----------
    sample : typed train rows with features and target
    target : its name
    folds : (n_rows,) the fold of each row in the cross-fitting
    n_folds : how many folds there are
    request : what to encode
    """
    columns = {str(column["name"]): column for column in request.columns}
    levels = {name: find_levels(sample[name], c) for name, c in columns.items() if c["kind"] == "category"}
    means = [name for name, found in levels.items() if len(found.texts) > request.max_levels]
    classes = None if request.task == "regression" else pc.unique(sample[target]).sort()
    task = "regression" if classes is None else "binary" if len(classes) == 2 else "multiclass"
    encoder = build_encoder(request.columns, means, task, request.min_frequency, request.seed)
    digests = {
        name: digest_category(levels[name], 1 if name in means else request.min_frequency, name in means)
        if name in levels
        else digest_dates(sample[name])
        if column["kind"] == "datetime"
        else digest_numbers(sample[name])
        for name, column in columns.items()
    }
    X, y = join_digests(digests, classes)
    encoder.named_steps["cast"].fit(X)
    encode = encoder.named_steps["encode"].fit(X, y)
    labels = list_labels(sample[target], classes)
    fitted = {
        name: [cross_fit_means(levels[name].places, y, levels[name].n_levels, folds, n_folds) for y in labels]
        for name in means
    }
    if means:
        put_means(encode.named_transformers_["mean"], list(fitted.values()))
    counted = {name: replace(found, places=found.places[:0]) for name, found in levels.items()}  # the rows may go
    return Learnt(encoder, fitted, counted)


def find_levels(values: pa.ChunkedArray, column: ColumnSpec) -> Levels:
    """Return the levels of a category."""
    encoded = values.combine_chunks().dictionary_encode()
    texts = cast_texts(encoded.dictionary.to_pylist(), column)
    levels = sorted({text for text in texts if text is not None})
    place = {text: number for number, text in enumerate(levels)}
    table = np.array([*(len(levels) if text is None else place[text] for text in texts), len(levels)], dtype=np.int64)
    places = table[pc.fill_null(encoded.indices, len(texts)).to_numpy()]
    return Levels(levels, places, np.bincount(places, minlength=len(levels) + 1))


def digest_numbers(values: pa.ChunkedArray) -> Digest:
    """Return the median, and a gap where there is one."""
    numbers = to_floats(values.combine_chunks())
    known = numbers[~np.isnan(numbers)]
    median = np.median(known) if len(known) else np.nan
    return Digest(np.array([median, *([np.nan] if len(known) < len(numbers) else [])]), median)


def digest_category(levels: Levels, min_frequency: int, is_mean: bool) -> Digest:
    """Return each level as often as it takes to tell rare from frequent; missing stands for itself."""
    counts = np.minimum(levels.counts[:-1], min_frequency)
    missing = [np.nan] if levels.counts[-1] or not is_mean else []
    texts = np.array([*levels.texts, *missing], dtype=object)
    repeated = np.repeat(texts, [*counts, *([1] * len(missing))])
    return Digest(repeated, texts[-1] if missing else texts[0])


def digest_dates(values: pa.ChunkedArray) -> Digest:
    """Return dates with the same median, whose parts vary as all do, and a gap where there is one."""
    dates = to_dates(values.combine_chunks())
    known = np.sort(dates[~np.isnat(dates)])
    gap = [np.datetime64("NaT", "us")] if len(known) < len(dates) else []
    if not len(known):
        return Digest(np.array(gap, dtype="datetime64[us]"), np.datetime64("NaT", "us"))
    median = known[(len(known) - 1) // 2]
    parts = compute_date_parts(known.astype(np.int64))
    chosen = {known[find(parts[part])] for part in DATE_PARTS for find in (np.argmin, np.argmax)}
    around = [median] * (len(chosen) + 1)
    return Digest(np.array([*sorted(chosen), *around, *gap], dtype="datetime64[us]"), median)


def join_digests(digests: Mapping[str, Digest], classes: pa.Array | None) -> tuple[pd.DataFrame, pd.Series]:
    """Return the table to fit on and a target, with rows enough for TargetEncoder to cut its folds."""
    n_classes = 1 if classes is None else len(classes)
    n_rows = max(MIN_CLASS_ROWS * n_classes, *(len(digest.values) for digest in digests.values()))
    columns = {}
    for name, digest in digests.items():
        values = np.full(n_rows, digest.filler, dtype=digest.values.dtype)
        values[: len(digest.values)] = digest.values
        columns[name] = pd.Series(values, dtype=digest.values.dtype)
    y = np.zeros(n_rows) if classes is None else np.resize(np.array(classes.to_pylist(), dtype=object), n_rows)
    return pd.DataFrame(columns), pd.Series(y).infer_objects()


def list_labels(target: pa.ChunkedArray, classes: pa.Array | None) -> list[Labels]:
    """Return what the target means are of: the target, the second of two classes, or each class against the rest."""
    if classes is None:
        return [target.cast(pa.float64()).to_numpy()]
    places = pc.index_in(target, value_set=classes).to_numpy()
    return [(places == number).astype(np.int64) for number in ([1] if len(classes) == 2 else range(len(classes)))]


def put_means(encoder: TargetEncoder, means: Sequence[Sequence[TargetMeans]]) -> None:
    """Put what was learnt from all rows in the place of what the digest taught."""
    encoder.encodings_ = [mean.encodings for of_feature in means for mean in of_feature]
    overall = [mean.mean for mean in means[0]]
    encoder.target_mean_ = np.array(overall) if len(overall) > 1 else np.float64(overall[0])
