"""What training tries: settings known to be good first, then settings that a search proposes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy.stats import skew

from data_ingestion.schema import Task

if TYPE_CHECKING:
    import optuna

Metric = Literal["rmse", "roc_auc", "log_loss"]
METRICS: Mapping[Task, Metric] = {"regression": "rmse", "binary": "roc_auc", "multiclass": "log_loss"}
GREATER_IS_BETTER: Mapping[Metric, bool] = {"rmse": False, "roc_auc": True, "log_loss": False}

MIN_ROWS_EARLY_STOPPING = 1_000  # below this, a fold is too few rows to say when to stop
MIN_CLASS_ROWS_EARLY_STOPPING = 20
MAX_ITERATIONS = 1_500
MIN_SKEW = 1.0  # of a positive target: above it, a logarithmic scale is worth a try

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


@dataclass(frozen=True)
class Candidate:
    """A kind of estimator with settings.

    Parameters
    ----------
    name : as the leaderboard shows it
    family : what is built
    settings : of that family, see `estimators.build_estimator`
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


def iterate_settings(candidate: Candidate) -> Iterator[tuple[str, object]]:
    """Return the settings as the leaderboard shows them."""
    yield "family", candidate.family
    yield from sorted(candidate.settings.items())
