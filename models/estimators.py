"""How a candidate becomes an estimator.

It takes the encoded columns of processed.parquet, whose names say what made them: `category__` columns hold codes,
`date__` columns parts of dates.
"""

import importlib
import inspect
import re
from collections.abc import Mapping

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import get_tags

from data_ingestion.handoff import PipelineError
from models.boosting import BoostedRegressor
from models.candidates import FEW_ROWS_ITERATIONS, Candidate, Pairs, Problem, complete_boosting, list_codes
from models.linear import RowwiseLogisticRegression, RowwiseRidgeCV
from models.pairs import PairFeatures

MAX_LINEAR_CELLS = 50_000_000  # of a linear model's table, 0.4 GB: it learns no more from further rows
RAW_DATE_PARTS = re.compile(r"date__.*_(year|month|day|weekday|hour|minute)")
SIGNS: Mapping[Pairs, str] = {"none": "", "differences": "-", "all": "~+/", "products": "*?"}


def build_estimator(candidate: Candidate, problem: Problem, iterations: int | None = None) -> BaseEstimator:
    """Return the unfitted estimator of a candidate.

    Parameters
    ----------
    candidate : of the family "boosting" with settings of HistGradientBoosting, `base` (begin with the mean, with a
        line, or on a log scale) and `pairs`; of "linear" with `C` (classes only) and `pairs`
    problem : what it is for
    iterations : how often boosting adds trees; None lets it stop early, or takes what suits few rows
    """
    settings = candidate.settings
    if candidate.family == "dummy":
        return DummyClassifier(strategy="prior") if problem.is_classification else DummyRegressor(strategy="mean")
    if candidate.family == "own":
        return build_own(str(settings["estimator"]), problem)
    if candidate.family == "extra_trees":
        kind = ExtraTreesClassifier if problem.is_classification else ExtraTreesRegressor
        return kind(n_estimators=200, min_samples_leaf=2, max_features=0.6, n_jobs=1, random_state=problem.seed)
    if candidate.family == "linear":
        return _with_pairs(_build_linear(problem, float(settings.get("C", 1.0))), settings, problem)  # type: ignore[arg-type]
    return _with_pairs(_build_boosting(settings, problem, iterations), settings, problem)


def _with_pairs(estimator: BaseEstimator, settings: Mapping[str, object], problem: Problem) -> BaseEstimator:
    signs = SIGNS[settings.get("pairs", "none")]  # type: ignore[index]
    if not signs:
        return estimator
    steps = estimator.steps if isinstance(estimator, Pipeline) else [("estimator", estimator)]
    pairs = PairFeatures(list(problem.strongest), list(signs), list(problem.switches)).set_output(transform="pandas")
    return Pipeline([("pairs", pairs), *steps])


def _build_linear(problem: Problem, C: float = 1.0) -> Pipeline:
    """Return a linear model of one-hot categories and scaled numbers; of dates it takes the days and the waves."""
    raw_parts = [name for name in problem.columns if RAW_DATE_PARTS.fullmatch(name)]
    codes = list_codes(problem.columns)
    steps = [("raw date parts", "drop", raw_parts)] if len(raw_parts) < len(problem.columns) else []
    if codes:
        steps.insert(0, ("codes", OneHotEncoder(handle_unknown="ignore", sparse_output=False), codes))
    encode = ColumnTransformer(steps, remainder=StandardScaler())
    if problem.is_classification:
        return make_pipeline(encode, RowwiseLogisticRegression(C=C, max_iter=2000))
    return make_pipeline(encode, RowwiseRidgeCV(alphas=np.logspace(-3, 3, 13)))


def count_linear_rows(problem: Problem) -> int:
    """Return from how many rows a linear model learns."""
    width = (
        len(problem.columns)
        + problem.n_codes
        + len(problem.strongest) * (len(problem.strongest) + len(problem.switches))
    )
    return max(MAX_LINEAR_CELLS // width, 1_000)


def _build_boosting(settings: Mapping[str, object], problem: Problem, iterations: int | None) -> BaseEstimator:
    settings = complete_boosting(problem, **settings)
    chosen = {name: value for name, value in settings.items() if name not in ("base", "pairs")} | {
        "categorical_features": list_codes(problem.columns) or None,
        "monotonic_cst": dict(problem.monotone) or None,
        "random_state": problem.seed,
    }
    most = problem.max_iterations
    if iterations is not None:
        chosen |= {"max_iter": max(min(iterations, most), 1), "early_stopping": False}
    elif problem.watch:
        chosen |= {"max_iter": most, "early_stopping": True, "n_iter_no_change": 20}
    else:
        chosen |= {"max_iter": min(FEW_ROWS_ITERATIONS, most), "early_stopping": False}
    if problem.is_classification:
        return HistGradientBoostingClassifier(**chosen)
    boosting = HistGradientBoostingRegressor(**chosen)
    base = settings["base"]
    if base == "mean":
        return boosting
    linear = _build_linear(problem) if base == "line" else None
    return BoostedRegressor(boosting, linear, log_target=base == "log", max_linear_rows=count_linear_rows(problem))


def build_own(path: str, problem: Problem) -> BaseEstimator:
    """Return an estimator of the user's own, seeded and on one thread where it can be told so.

    Raises
    ------
    PipelineError : the path is not "package.module:ClassName", or there is no such estimator for this task
    """
    module_name, _, name = path.partition(":")
    try:
        kind = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as err:
        raise PipelineError(
            f'--estimator "{path}": {err}. Give it as package.module:ClassName, of a package that is installed.'
        ) from err
    needed = "predict_proba" if problem.is_classification else "predict"
    if not inspect.isclass(kind) or not hasattr(kind, "fit") or not hasattr(kind, needed):
        raise PipelineError(f'--estimator "{path}" must be a class with fit and {needed}, for {problem.task}.')
    known = inspect.signature(kind).parameters
    wanted = {"random_state": problem.seed, "n_jobs": 1}
    estimator = kind(**{key: value for key, value in wanted.items() if key in known})
    try:
        get_tags(estimator)
    except (AttributeError, TypeError) as err:
        raise PipelineError(
            f'--estimator "{path}" must be a scikit-learn estimator: derive it from BaseEstimator.'
        ) from err
    return estimator
