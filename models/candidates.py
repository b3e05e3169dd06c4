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

FEW_ROWS = 2_000  # below this, chance has a large part in which candidates are the best
MIN_ROWS_EARLY_STOPPING = 1_000  # below this, a fold is too few rows to say when to stop
MAX_ITERATIONS = 1_500
MIN_ROWS_LARGE_TREES = 500  # of numbers to predict; classes say less and want small trees wherever rows are few
FEW_ROWS_ITERATIONS = 150  # where a fold is too few rows to say when to stop
MIN_SKEW = 1.0  # of a positive target: above it, a logarithmic scale is worth a try

Family = Literal["dummy", "linear", "boosting", "extra_trees", "own"]
Base = Literal["mean", "line", "log"]
Pairs = Literal["none", "differences", "all", "products"]


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
    most_codes : codes of the category that has most
    classes : the labels, none for a regression
    seed : for whatever draws at random
    watch : whether boosting watches the rows of its fold to stop early
    is_skewed : the target is positive and has a long tail
    strongest : the columns of numbers that matter most, for pairs; fewer than two make none
    switches : the columns of two levels, 0 and 1, that matter most
    monotone : columns whose effect must not change its sign, as HistGradientBoosting takes it
    learning_rate : of boosting, higher where time or trees are short
    max_iterations : how often boosting may add trees, one for each class of many
    extra_trees : forests may be tried, which only the pickle can serve
    own : "package.module:ClassName" of an estimator to try as well
    """

    task: Task
    columns: tuple[str, ...]
    n_rows: int
    n_codes: int
    most_codes: int
    classes: tuple[int | str, ...]
    seed: int
    watch: bool
    is_skewed: bool = False
    strongest: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    monotone: Mapping[str, int] = field(default_factory=dict)
    learning_rate: float = 0.05
    max_iterations: int = MAX_ITERATIONS
    extra_trees: bool = False
    own: str | None = None

    @property
    def trees_a_round(self) -> int:
        """How many trees boosting adds at a time: one for each class, where there are more than two."""
        return len(self.classes) if len(self.classes) > 2 else 1

    @property
    def has_small_trees(self) -> bool:
        """Whether rows are so few that trees of many leaves learn their noise."""
        return not self.watch and (self.is_classification or self.n_rows < MIN_ROWS_LARGE_TREES)

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
    codes = X[list_codes(X.columns)]
    return Problem(
        task=task,
        columns=tuple(X.columns),
        n_rows=len(X),
        n_codes=int(codes.nunique().sum()),
        most_codes=int(codes.to_numpy().max()) + 1 if codes.size else 0,
        classes=classes,
        seed=seed,
        watch=len(y) >= MIN_ROWS_EARLY_STOPPING,
        is_skewed=not classes and float(y.min()) >= 0 and skew(y.to_numpy(dtype=np.float64)) > MIN_SKEW,
        **more,  # type: ignore[arg-type]
    )


def list_codes(columns: Iterable[str]) -> list[str]:
    """Return the encoded columns that hold codes of categories."""
    return [name for name in columns if name.startswith("category__")]


def complete_boosting(problem: Problem, **settings: object) -> dict[str, object]:
    """Return settings of boosting, those not given as they do well on most tables."""
    usual: dict[str, object] = {
        "learning_rate": problem.learning_rate,
        "max_leaf_nodes": 8 if problem.has_small_trees else 31,
        "min_samples_leaf": 20 if problem.watch else 5,
        "l2_regularization": 1.0,
        "max_features": 0.5,
        "max_bins": 255,
        "base": "mean",
        "pairs": "none",
    }
    return usual | settings


def list_known_good(problem: Problem) -> list[Candidate]:
    """Return the candidates to try before any search, what is cheap or likely to win first."""

    def boost(name: str, **settings: object) -> Candidate:
        return Candidate(name, "boosting", complete_boosting(problem, **settings))

    has_pairs = len(problem.strongest) > 1
    small = {"max_leaf_nodes": 4, "min_samples_leaf": 10} if problem.has_small_trees else {"max_leaf_nodes": 12}
    differences = "differences" if has_pairs else "none"
    is_free = not problem.monotone  # neither a line nor a foreign estimator keeps to a sign
    found = [Candidate("linear", "linear")] if is_free else []
    found.append(boost("boosting"))
    if problem.own is not None:
        found.append(Candidate(problem.own.rpartition(":")[2], "own", {"estimator": problem.own}))
    if problem.is_classification:
        found.append(boost("boosting, few leaves", **small, l2_regularization=10.0, max_features=0.3))
        if is_free:
            found.append(Candidate("linear, free", "linear", {"C": 10.0}))
    elif is_free:
        on_a_line = boost(
            "boosting on a line", base="line", pairs=differences, **(small if problem.has_small_trees else {})
        )
        found.append(on_a_line)
    if has_pairs:
        found.append(boost("boosting with pairs", pairs="all"))
        if problem.is_classification:
            found.append(boost("boosting with differences", pairs="differences", **small))
    if problem.is_skewed:
        found.append(boost("boosting on a log scale", base="log", pairs=differences))
    if is_free and has_pairs:
        found.append(Candidate("linear with products", "linear", {"pairs": "products"}))
    if is_free and problem.is_classification and problem.n_rows < FEW_ROWS:  # of many it hardly matters
        found.append(Candidate("linear, strict", "linear", {"C": 0.1}))
        found.append(Candidate("linear, very free", "linear", {"C": 100.0}))
    if problem.extra_trees:
        found.append(Candidate("extra trees", "extra_trees"))
    return found


def define_space(problem: Problem) -> "dict[str, optuna.distributions.BaseDistribution]":
    """Return the settings of boosting among which to search, all of those in `complete_boosting`."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    rate = problem.learning_rate
    return {
        "learning_rate": FloatDistribution(rate / 2, rate * 2, log=True),
        "max_leaf_nodes": IntDistribution(6, 63, log=True) if problem.watch else IntDistribution(3, 31, log=True),
        "min_samples_leaf": IntDistribution(2, 60, log=True),
        "l2_regularization": FloatDistribution(0.01, 100.0, log=True),
        "max_features": FloatDistribution(0.15, 1.0),
        "max_bins": CategoricalDistribution([127, 255] if problem.most_codes <= 127 else [255]),
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
