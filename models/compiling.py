"""From the fitted pipeline to a `CompiledModel`: arrays that scorer.py answers with, without scikit-learn.

Compiles what training can choose but for forests of extra trees and the user's own estimators. What a class here does
not know for certain to answer the same is refused, and then the model is served from its pickle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from data_ingestion.schema import Contract
from models.boosting import BoostedRegressor
from models.compiling_encoder import compile_encoder
from models.compiling_trees import ForestBuilder
from models.ensemble import WeightedClassifier, WeightedRegressor
from models.formulas import Average, Constant, Formula, Line, OneHot, OnLine, Pairs, Scaled, Trees
from models.linear import RowwiseLogisticRegression, RowwiseRidgeCV
from models.pairs import PairFeatures
from models.scorer import CompiledModel, NotCompilableError

Pair = tuple[str, int, int, float, float]  # sign, columns, standard deviations


@dataclass(frozen=True)
class _Columns:
    """The columns that an estimator takes: their names, and where each is among all that the model makes."""

    names: tuple[str, ...]
    places: tuple[int, ...]

    def find(self, wanted: Sequence[object]) -> list[int]:
        """Return the places of columns given by name or by number."""
        numbers = [self.names.index(key) if isinstance(key, str) else int(key) for key in wanted]  # type: ignore[call-overload]
        return [self.places[number] for number in numbers]


@dataclass
class _Parts:
    """What the members of a model share."""

    n_encoded: int
    forest: ForestBuilder = field(default_factory=ForestBuilder)
    pairs: list[Pair] = field(default_factory=list)

    def place_pair(self, pair: Pair) -> int:
        """Return the column of a pair, the same for members that make the same of the same columns."""
        if pair not in self.pairs:
            self.pairs.append(pair)
        return self.n_encoded + self.pairs.index(pair)

    def group_pairs(self) -> tuple[Pairs, ...]:
        """Return the pairs in runs of one sign, in order."""
        runs: list[list[Pair]] = []
        for pair in self.pairs:
            if not runs or runs[-1][0][0] != pair[0]:
                runs.append([])
            runs[-1].append(pair)
        return tuple(Pairs(run[0][0], *(tuple(values) for values in list(zip(*run, strict=True))[1:])) for run in runs)


def compile_pipeline(pipeline: Pipeline, contract: Contract) -> CompiledModel:
    """Return what answers as a fitted pipeline does.

    Parameters
    ----------
    pipeline : the encoder, and the estimator that takes what it makes
    contract : says whether numbers or classes are predicted

    Raises
    ------
    NotCompilableError : something in it is of another kind than training makes; the message says what
    """
    if len(pipeline.steps) != 2:
        raise NotCompilableError(f"it has {len(pipeline.steps)} steps, expected encoder and estimator")
    (_, encoder), (_, estimator) = pipeline.steps
    features, names = compile_encoder(encoder)
    parts = _Parts(len(names))
    formula = _compile_estimator(estimator, _Columns(tuple(names), tuple(range(len(names)))), parts)
    return CompiledModel(
        features=tuple(features),
        n_encoded=len(names),
        pairs=parts.group_pairs(),
        forest=parts.forest.build(),
        formula=formula,
        threshold=getattr(estimator, "threshold", None),
        is_classification=contract.is_classification,
    )


def _compile_estimator(estimator: BaseEstimator, columns: _Columns, parts: _Parts) -> Formula:
    kind = type(estimator)
    if kind is Pipeline:
        return _compile_steps(estimator, columns, parts)
    if kind in (WeightedRegressor, WeightedClassifier):
        return _compile_average(estimator, columns, parts)
    if kind is BoostedRegressor:
        line = None if estimator.linear_ is None else _compile_estimator(estimator.linear_, columns, parts)
        trees = _compile_estimator(estimator.boosting_, columns, parts)
        if not isinstance(line, Line | None) or not isinstance(trees, Trees):
            raise NotCompilableError("its trees stand on something else than a line")
        return OnLine(line, trees, bool(estimator.log_target))
    if kind in (HistGradientBoostingRegressor, HistGradientBoostingClassifier):
        _check_names(estimator, columns)
        return parts.forest.add(estimator, columns.places)
    if kind is DummyRegressor:
        return Constant(np.ravel(estimator.constant_).astype(np.float64), is_number=True)
    if kind is DummyClassifier and estimator.strategy == "prior":
        return Constant(np.asarray(estimator.class_prior_, dtype=np.float64), is_number=False)
    raise NotCompilableError(f"{kind.__name__} is not one of the estimators that can be compiled")


def _compile_steps(pipeline: Pipeline, columns: _Columns, parts: _Parts) -> Formula:
    steps = [step for _, step in pipeline.steps]
    if type(steps[0]) is PairFeatures:
        columns = _add_pairs(steps.pop(0), columns, parts)
    if len(steps) == 1:
        return _compile_estimator(steps[0], columns, parts)
    if len(steps) == 2 and type(steps[0]) is ColumnTransformer:
        return _compile_line(steps[0], steps[1], columns)
    raise NotCompilableError(f"the steps {', '.join(type(step).__name__ for step in steps)} cannot be compiled")


def _add_pairs(pairs: PairFeatures, columns: _Columns, parts: _Parts) -> _Columns:
    """Return the columns with those that the pairs add."""
    _check_names(pairs, columns)
    place = dict(zip(columns.names, columns.places, strict=True))
    added = [
        parts.place_pair((sign, place[a], place[b], scale_a, scale_b))
        for a, sign, b, scale_a, scale_b in pairs.list_pairs()
    ]
    return _Columns(tuple(map(str, pairs.get_feature_names_out())), (*columns.places, *added))


def _check_names(estimator: BaseEstimator, columns: _Columns) -> None:
    names = getattr(estimator, "feature_names_in_", columns.names)
    if list(names) != list(columns.names):
        raise NotCompilableError(f"{type(estimator).__name__} takes other columns than it is given")


def _compile_line(encode: ColumnTransformer, linear: BaseEstimator, columns: _Columns) -> Line:
    if type(linear) not in (RowwiseRidgeCV, RowwiseLogisticRegression):
        raise NotCompilableError(f"{type(linear).__name__} is not one of the linear models that can be compiled")
    _check_names(encode, columns)
    is_classifier = type(linear) is RowwiseLogisticRegression
    coefs = np.atleast_2d(np.asarray(linear.coef_, dtype=np.float64))
    if not is_classifier and len(coefs) != 1:
        raise NotCompilableError("it predicts several numbers at once")
    parts = [
        _compile_columns(transformer, columns.find(chosen))
        for _, transformer, chosen in _list_transformers(encode, columns)
    ]
    flat = tuple(part for group in parts for part in group)
    if sum(part.width for part in flat) != coefs.shape[1]:
        raise NotCompilableError("its coefficients do not fit its columns")
    intercepts = np.broadcast_to(np.asarray(linear.intercept_, dtype=np.float64), (len(coefs),)).copy()
    link = "identity" if not is_classifier else "logit" if len(coefs) == 1 else "softmax"
    return Line(flat, coefs, intercepts, link)  # type: ignore[arg-type]


def _list_transformers(encode: ColumnTransformer, columns: _Columns) -> list[tuple[str, BaseEstimator, list[object]]]:
    """Return name, transformer and columns of what a ColumnTransformer makes, in the order of its output."""
    chosen = [
        (name, transformer, list(wanted))
        for name, transformer, wanted in encode.transformers_
        if not (isinstance(transformer, str) and transformer == "drop") and len(wanted)
    ]
    starts = [encode.output_indices_[name].start for name, _, _ in chosen]
    if starts != sorted(starts):
        raise NotCompilableError("its columns are in another order")
    return chosen


def _compile_columns(transformer: BaseEstimator, places: list[int]) -> list[OneHot | Scaled]:
    if type(transformer) is OneHotEncoder:
        if transformer.handle_unknown != "ignore" or transformer.drop is not None or transformer._infrequent_enabled:
            raise NotCompilableError("its OneHotEncoder has settings that cannot be compiled")
        pairs = zip(places, transformer.categories_, strict=True)
        return [OneHot(place, np.asarray(codes, dtype=np.float64)) for place, codes in pairs]
    if type(transformer) is StandardScaler and transformer.with_mean and transformer.with_std:
        return [Scaled(np.array(places, dtype=np.intp), transformer.mean_, transformer.scale_)]
    raise NotCompilableError(f"{type(transformer).__name__} cannot be compiled")


def _compile_average(estimator: BaseEstimator, columns: _Columns, parts: _Parts) -> Average:
    members = tuple(_compile_estimator(member, columns, parts) for member in estimator.members)
    weights = tuple(float(weight) for weight in estimator.weights)
    if type(estimator) is WeightedRegressor:
        return Average(members, weights, ((),) * len(members), 0, None, ())
    classes = list(estimator.classes)
    places = tuple(
        () if len(member.classes_) == len(classes) else tuple(classes.index(label) for label in member.classes_)
        for member in estimator.members
    )
    slope, intercepts = (None, ()) if estimator.calibration is None else estimator.calibration
    return Average(members, weights, places, len(classes), slope, tuple(float(value) for value in intercepts))
