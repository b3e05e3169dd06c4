"""How good the answers of one tool are, and how the tools stand to each other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

ERRORS = {"regression": "RMSE", "binary": "1 − ROC AUC", "multiclass": "log loss"}
OVERRUN = 1.25  # a fit of more than so many budgets does not keep the budget
# In ratios the error of a classification counts as this at least: below it nothing but single rows is told apart.
LEAST_ERROR = 0.001


@dataclass(frozen=True)
class Result:
    """One tool on one split of one table; a line of results.jsonl.

    Parameters
    ----------
    table : its name, file and target
    source : sha256 of the CSV, its first digits
    seed : of the split, and of the tool
    tool : its name
    code : what the tool was: its lock file or, for ours, the code of the stages, as the first digits of a sha256
    budget_s : seconds to fit in
    task : regression, binary or multiclass
    n_train, n_test : rows
    version : as the tool says it
    error : lower is better, see ERRORS; None when the tool failed
    accuracy : of a classification
    fit_s, predict_s : wall time
    others : how many cores worked for somebody else meanwhile, on average; None where nobody knows
    note : why it failed
    """

    table: str
    source: str
    seed: int
    tool: str
    code: str
    budget_s: float
    task: str
    n_train: int
    n_test: int
    version: str = ""
    error: float | None = None
    accuracy: float | None = None
    fit_s: float | None = None
    predict_s: float | None = None
    others: float | None = None
    note: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What makes another result the same one."""
        return self.table, self.source, self.seed, self.tool, self.code, self.budget_s


@dataclass(frozen=True)
class Standing:
    """One tool on one table, over the seeds.

    Parameters
    ----------
    error, spread : mean and standard deviation; the spread of one seed is None
    accuracy : mean; None for a regression
    fit_s : mean
    is_over : the fit does not keep the budget
    rank : 1 is the best, equals share the mean of their ranks
    rank_in_budget : the same among those that keep the budget; None for the others
    regret : how much larger the error is than the least one, as a share
    """

    error: float
    spread: float | None
    accuracy: float | None
    fit_s: float
    is_over: bool
    rank: float
    rank_in_budget: float | None
    regret: float


def score_answers(task: str, y: "pd.Series", answers: "pd.DataFrame") -> tuple[float, float | None]:
    """Return error and accuracy of a tool's answers, the same way for all tools.

    Parameters
    ----------
    task : regression, binary or multiclass
    y : (n_rows,) the truth; for a classification as texts
    answers : (n_rows, 1) the predictions, or (n_rows, n_classes) probabilities in columns named by class

    Returns
    -------
    root mean squared error and None; or 1 − ROC AUC and accuracy; or log loss and accuracy
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, log_loss, roc_auc_score, root_mean_squared_error

    if not np.isfinite(answers.to_numpy()).all():
        raise ValueError("an answer is no finite number")
    if task == "regression":
        return float(root_mean_squared_error(y, answers["prediction"])), None
    classes = sorted(answers.columns)
    shares = answers[classes].to_numpy()
    accuracy = float(accuracy_score(y, np.asarray(classes)[shares.argmax(axis=1)]))
    if task == "binary":
        return 1 - float(roc_auc_score(y == classes[1], shares[:, 1])), accuracy
    return float(log_loss(y, shares / shares.sum(axis=1, keepdims=True), labels=classes)), accuracy


def rank_tools(errors: Mapping[str, float]) -> dict[str, float]:
    """Return the rank of each tool; equals share the mean of their ranks."""
    values = list(errors.values())
    ranks = {}
    for tool, error in errors.items():
        better = sum(value < error for value in values)
        ranks[tool] = better + (values.count(error) + 1) / 2
    return ranks


def compare_on_table(results: Sequence[Result]) -> dict[str, Standing]:
    """Return the standing of each tool on one table; a tool that failed with any seed has none."""
    runs: dict[str, list[Result]] = {}
    for result in results:
        runs.setdefault(result.tool, []).append(result)
    runs = {tool: some for tool, some in runs.items() if all(run.error is not None for run in some)}
    errors = {tool: average(run.error for run in some) for tool, some in runs.items()}
    fits = {tool: average(run.fit_s for run in some) for tool, some in runs.items()}
    over = {tool: fits[tool] > OVERRUN * some[0].budget_s for tool, some in runs.items()}
    ranks = rank_tools(errors)
    ranks_in_budget = rank_tools({tool: error for tool, error in errors.items() if not over[tool]})
    standings = {}
    for tool, some in runs.items():
        seen = [run.error for run in some if run.error is not None]
        is_classification = some[0].task != "regression"
        standings[tool] = Standing(
            error=errors[tool],
            spread=stdev(seen) if len(seen) > 1 else None,
            accuracy=average(run.accuracy for run in some) if is_classification else None,
            fit_s=fits[tool],
            is_over=over[tool],
            rank=ranks[tool],
            rank_in_budget=ranks_in_budget.get(tool),
            regret=divide_errors(errors[tool], min(errors.values()), some[0].task) - 1,
        )
    return standings


def divide_errors(error: float, other: float, task: str) -> float:
    """Return the ratio of two errors of the same table; see LEAST_ERROR."""
    least = 0.0 if task == "regression" else LEAST_ERROR
    error, other = max(error, least), max(other, least)
    if error == other:
        return 1.0
    return error / other if other else float("inf")


def find_mean_ratio(results: Iterable[Result], tool: str) -> float | None:
    """Return the geometric mean, over the tables, of the error of ours divided by that of a tool; None without both."""
    tables: dict[str, list[Result]] = {}
    for result in results:
        tables.setdefault(result.table, []).append(result)
    ratios = []
    for some in tables.values():
        standings = compare_on_table(some)
        if "ours" in standings and tool in standings:
            ratios.append(divide_errors(standings["ours"].error, standings[tool].error, some[0].task))
    if not ratios:
        return None
    return exp(fmean(map(log, ratios))) if all(ratios) else 0.0


def average(values: Iterable[float | None]) -> float:
    """Return the mean of what is there."""
    return fmean(value for value in values if value is not None)
