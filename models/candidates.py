"""What training tries: settings known to be good first, then settings that a search proposes.

Estimators take the encoded columns of processed.parquet, whose names say what made them: `category__` columns hold
codes, `date__` columns parts of dates.
"""

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy.stats import skew
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

from data_ingestion.handoff import PipelineError
from data_ingestion.schema import Task
from models.boosting import BoostedRegressor
from models.linear import RowwiseLogisticRegression, RowwiseRidgeCV
from models.pairs import PairFeatures

if TYPE_CHECKING:
    import optuna

Metric = Literal["rmse", "roc_auc", "log_loss"]
METRICS: Mapping[Task, Metric] = {"regression": "rmse", "binary": "roc_auc", "multiclass": "log_loss"}
GREATER_IS_BETTER: Mapping[Metric, bool] = {"rmse": False, "roc_auc": True, "log_loss": False}

MIN_ROWS_EARLY_STOPPING = 1_000  # below this, a fold is too few rows to say when to stop
MIN_CLASS_ROWS_EARLY_STOPPING = 20
MAX_ITERATIONS = 1_500
MAX_LINEAR_CELLS = 50_000_000  # of a linear model's table, 0.4 GB: it learns no more from further rows
MIN_SKEW = 1.0  # of a positive target: above it, a logarithmic scale is worth a try
RAW_DATE_PARTS = re.compile(r"date__.*_(year|month|day|weekday|hour|minute)")

Family = Literal["dummy", "linear", "boosting", "extra_trees", "own"]
Base = Literal["mean", "line", "log"]
Pairs = Literal["none", "differences", "all", "products"]
BOOSTING: Mapping[str, object] = {  # what boosting does unless told otherwise
    "max_leaf_nodes": 31,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
    "max_features": 0.5,
    "learning_rate_factor": 1.0,
    "max_bins": 255,
    "base": "mean",
    "pairs": "none",
}
SIGNS: Mapping[Pairs, str] = {"none": "", "differences": "-", "all": "~+/", "products": "*"}


@dataclass(frozen=True)
class Candidate:
    """A kind of estimator with settings.

    Parameters
    ----------
    name : as the leaderboard shows it
    family : what is built
    settings : of that family, see `build_estimator`
    """

    name: str
    family: Family
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """What a candidate is built for.

    Parameters
    ----------
    task : what to predict
    columns : the encoded columns
    n_rows : train rows
    n_codes : the one-hot columns that the categories come to
    classes : the labels, none for a regression
    seed : for whatever draws at random
    watch : whether boosting watches the rows of its fold to stop early
    is_skewed : the target is positive and has a long tail
    strongest : the columns of numbers that matter most, for pairs; fewer than two make none
    monotone : columns whose effect must not change its sign, as HistGradientBoosting takes it
    learning_rate, max_iterations : what time allows
    extra_trees : forests may be tried, which only the pickle can serve
    own : "package.module:ClassName" of an estimator to try as well
    """

    task: Task
    columns: tuple[str, ...]
    n_rows: int
    n_codes: int
    classes: tuple[int | str, ...]
    seed: int
    watch: bool
    is_skewed: bool = False
    strongest: tuple[str, ...] = ()
    monotone: Mapping[str, int] = field(default_factory=dict)
    learning_rate: float = 0.05
    max_iterations: int = MAX_ITERATIONS
    extra_trees: bool = False
    own: str | None = None

    @property
    def is_classification(self) -> bool:
        """Whether classes are predicted."""
        return self.task != "regression"


def describe_problem(task: Task, X: pd.DataFrame, y: pd.Series, seed: int, **more: object) -> Problem:
    """Return the problem that train rows pose.

    Parameters
    ----------
    task : what to predict
    X, y : encoded features and target of the train rows
    seed : for whatever draws at random
    more : further fields of `Problem`
    """
    classes = () if task == "regression" else tuple(sorted(y.unique()))
    watch = len(y) >= MIN_ROWS_EARLY_STOPPING
    if classes:
        watch = watch and int(y.value_counts().min()) >= MIN_CLASS_ROWS_EARLY_STOPPING
    return Problem(
        task=task,
        columns=tuple(X.columns),
        n_rows=len(X),
        n_codes=int(X[list_codes(X.columns)].nunique().sum()),
        classes=classes,
        seed=seed,
        watch=watch,
        is_skewed=not classes and float(y.min()) >= 0 and skew(y.to_numpy(dtype=np.float64)) > MIN_SKEW,
        **more,  # type: ignore[arg-type]
    )


def list_codes(columns: Iterable[str]) -> list[str]:
    """Return the encoded columns that hold codes of categories."""
    return [name for name in columns if name.startswith("category__")]


# What is tried


def list_known_good(problem: Problem) -> list[Candidate]:
    """Return the candidates to try before any search, what is cheap or likely to win first."""
    pairs = len(problem.strongest) > 1
    simple = not problem.monotone  # neither a line nor a foreign estimator keeps to a sign
    found = [Candidate("linear", "linear")] if simple else []
    found.append(Candidate("boosting", "boosting"))
    if simple and problem.own is not None:
        found.append(Candidate(problem.own.rpartition(":")[2], "own", {"estimator": problem.own}))
    if problem.is_classification:
        found.append(
            Candidate(
                "boosting, few leaves",
                "boosting",
                {"max_leaf_nodes": 12, "l2_regularization": 10.0, "max_features": 0.3},
            )
        )
        if simple:
            found.append(Candidate("linear, free", "linear", {"C": 100.0}))
    elif simple:
        line = {"base": "line", "pairs": "differences" if pairs else "none"}
        found.append(Candidate("boosting on a line", "boosting", line))
    if pairs:
        found.append(Candidate("boosting with pairs", "boosting", {"pairs": "all"}))
        if problem.is_classification:
            few = {"pairs": "differences", "max_leaf_nodes": 12}
            found.append(Candidate("boosting with differences", "boosting", few))
    if problem.is_skewed:
        found.append(
            Candidate(
                "boosting on a log scale", "boosting", {"base": "log", "pairs": "differences" if pairs else "none"}
            )
        )
    if simple and pairs:
        found.append(Candidate("linear with products", "linear", {"pairs": "products"}))
    if simple and problem.extra_trees:
        found.append(Candidate("extra trees", "extra_trees"))
    return found


def define_space(problem: Problem) -> "dict[str, optuna.distributions.BaseDistribution]":
    """Return the settings of boosting among which to search, all of those in `BOOSTING`."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    return {
        "max_leaf_nodes": IntDistribution(6, 63, log=True),
        "min_samples_leaf": IntDistribution(2, 60, log=True),
        "l2_regularization": FloatDistribution(0.01, 100.0, log=True),
        "max_features": FloatDistribution(0.15, 1.0),
        "learning_rate_factor": FloatDistribution(0.5, 2.0, log=True),
        "max_bins": CategoricalDistribution([127, 255]),
        "base": CategoricalDistribution(list_bases(problem)),
        "pairs": CategoricalDistribution(["none", "differences", "all"] if len(problem.strongest) > 1 else ["none"]),
    }


def list_bases(problem: Problem) -> list[Base]:
    """Return what boosting may begin with."""
    if problem.is_classification:
        return ["mean"]
    bases: list[Base] = ["mean"] if problem.monotone else ["mean", "line"]
    return [*bases, "log"] if problem.is_skewed else bases


# How it is built


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
    pairs = PairFeatures(list(problem.strongest), list(signs)).set_output(transform="pandas")
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
    width = len(problem.columns) + problem.n_codes + len(problem.strongest) ** 2
    return max(MAX_LINEAR_CELLS // width, 1_000)


def _build_boosting(settings: Mapping[str, object], problem: Problem, iterations: int | None) -> BaseEstimator:
    a_round = len(problem.classes) if len(problem.classes) > 2 else 1  # trees: one for each of many classes
    most = max(problem.max_iterations // a_round, 1)
    settings = {**BOOSTING, **({} if problem.watch else {"min_samples_leaf": 5}), **settings}
    chosen = {name: settings[name] for name in BOOSTING if name not in ("learning_rate_factor", "base", "pairs")} | {
        "learning_rate": problem.learning_rate * settings["learning_rate_factor"],  # type: ignore[operator]
        "categorical_features": list_codes(problem.columns) or None,
        "monotonic_cst": dict(problem.monotone) or None,
        "random_state": problem.seed,
    }
    if iterations is not None:
        chosen |= {"max_iter": max(min(iterations, most), 1), "early_stopping": False}
    elif problem.watch:
        chosen |= {"max_iter": most, "early_stopping": True, "n_iter_no_change": 20}
    else:
        chosen |= {"max_iter": min(150, most), "early_stopping": False}
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
    return kind(**{key: value for key, value in wanted.items() if key in known})


def iterate_settings(candidate: Candidate) -> Iterator[tuple[str, object]]:
    """Return the settings as the leaderboard shows them."""
    yield "family", candidate.family
    yield from sorted(candidate.settings.items())
