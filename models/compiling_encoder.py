"""From the fitted encoder to the features of raw_values.py, asked of the encoder itself wherever it can answer."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import TargetEncoder

from data_ingestion.encoder import CYCLES, CategoryEncoder, DateEncoder, TypeCaster, encode_dates
from models.raw_values import CategoryFeature, DateFeature, NumberFeature
from models.scorer import NotCompilableError

Spec = Mapping[str, object]  # see encoder.TypeCaster
Features = list[NumberFeature | CategoryFeature | DateFeature]


def compile_encoder(encoder: BaseEstimator) -> tuple[Features, list[str]]:
    """Return the features of a fitted encoder in contract order, and the names of the columns that it makes.

    Raises
    ------
    NotCompilableError : it is not as `encoder.build_encoder` builds it
    """
    steps = [type(step) for _, step in encoder.steps] if type(encoder) is Pipeline else [type(encoder)]
    if steps != [TypeCaster, ColumnTransformer]:
        raise NotCompilableError("its encoder is none of this project's")
    specs = {str(spec["name"]): spec for spec in encoder.steps[0][1].columns}
    encode = encoder.steps[1][1]
    features: Features = []
    for step, transformer, chosen in encode.transformers_:
        if step == "remainder" or not len(chosen):
            continue
        compile_step = _STEPS.get(type(transformer))
        if compile_step is None:
            raise NotCompilableError(f"{type(transformer).__name__} in its encoder cannot be compiled")
        wanted = [specs[str(name)] for name in chosen]
        features += compile_step(transformer, wanted, encode.output_indices_[step].start)
    order = list(specs)
    features.sort(key=lambda feature: order.index(feature.name))
    return features, [str(name) for name in encode.get_feature_names_out()]


def _compile_numbers(imputer: SimpleImputer, specs: Sequence[Spec], start: int) -> Features:
    if not imputer.keep_empty_features or not np.isnan(imputer.missing_values):
        raise NotCompilableError("its SimpleImputer leaves out columns")
    flagged = [] if imputer.indicator_ is None else imputer.indicator_.features_.tolist()
    return [
        NumberFeature(
            name=str(spec["name"]),
            kind=str(spec["kind"]),
            missing=_list_texts(spec, "missing"),
            decimal=_get_text(spec, "decimal"),
            thousands=_get_text(spec, "thousands"),
            currency=_get_text(spec, "currency"),
            true_values=_list_texts(spec, "true_values"),
            false_values=_list_texts(spec, "false_values"),
            known=_list_known(spec),
            column=start + place,
            flag=start + len(specs) + flagged.index(place) if place in flagged else None,
            fill=float(imputer.statistics_[place]),
        )
        for place, spec in enumerate(specs)
    ]


def _compile_categories(encoder: CategoryEncoder | TargetEncoder, specs: Sequence[Spec], start: int) -> Features:
    """Ask the encoder for the numbers of each text it knows, of one it does not know, and of a missing one."""
    texts = [[str(level) for level in levels if isinstance(level, str)] for levels in encoder.categories_]
    asked = [[*known, _invent_text(known), np.nan] for known in texts]
    n_rows = max(map(len, asked))
    names = list(encoder.feature_names_in_)
    columns = {
        name: pd.Series([*[np.nan] * (n_rows - len(values)), *values], dtype=object)
        for name, values in zip(names, asked, strict=True)
    }
    answers: NDArray[np.float64] = np.asarray(encoder.transform(pd.DataFrame(columns)), dtype=np.float64)
    width = answers.shape[1] // len(specs)
    return [
        CategoryFeature(
            name=str(spec["name"]),
            missing=_list_texts(spec, "missing"),
            known=_list_known(spec),
            texts=tuple(texts[place]),
            numbers=answers[n_rows - len(asked[place]) :, place * width : (place + 1) * width].copy(),
            column=start + place * width,
        )
        for place, spec in enumerate(specs)
    ]


def _invent_text(known: Sequence[str]) -> str:
    """Return a text that is none of the known ones."""
    return "x" * (max(map(len, known), default=0) + 1)


def _compile_dates(encoder: DateEncoder, specs: Sequence[Spec], start: int) -> Features:
    features: Features = []
    for place, (spec, named) in enumerate(zip(specs, encoder.name_columns(), strict=True)):
        has_flag = bool(encoder.has_missing_[place])
        parts = tuple(encoder.parts_[place])
        features.append(
            DateFeature(
                name=str(spec["name"]),
                missing=_list_texts(spec, "missing"),
                format=str(spec["format"]),
                parts=parts,
                waves={part: _list_waves(part) for part in parts if part in CYCLES},
                column=start,
                flag=start + len(named) - 1 if has_flag else None,
                fill=int(encoder.moments_[place].astype(np.int64)),
            )
        )
        start += len(named)
    return features


def _list_waves(part: str) -> NDArray[np.float64]:
    """Return (2, n_values) sine and cosine of each value of a part, by what the encoder makes of dates that have them.

    There is a date in 2018, which begins on a Monday, for each month, weekday and hour.
    """
    hours = pd.date_range("2018-01-01", "2018-12-31 23:00", freq="h").to_numpy("datetime64[us]")
    value, sine, cosine = (coded.table[coded.places] for coded in encode_dates(hours, hours[0], (part,), False)[:3])  # type: ignore[union-attr]
    waves = np.zeros((2, int(value.max()) + 1))
    waves[:, value.astype(np.intp)] = sine, cosine
    return waves


def _list_texts(spec: Spec, key: str) -> tuple[str, ...]:
    return tuple(str(text) for text in spec.get(key) or ())  # type: ignore[attr-defined]


def _list_known(spec: Spec) -> tuple[str, ...] | None:
    return None if spec.get("categories", ()) is None else _list_texts(spec, "categories")


def _get_text(spec: Spec, key: str) -> str | None:
    return None if spec.get(key) is None else str(spec[key])


_STEPS = {
    SimpleImputer: _compile_numbers,
    CategoryEncoder: _compile_categories,
    TargetEncoder: _compile_categories,
    DateEncoder: _compile_dates,
}
