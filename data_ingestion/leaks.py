"""Signs that the target has leaked into the features, or test rows into the train rows.

A finding is a reason to look, not a verdict: it names columns, gives the figure it rests on, and proposes what to do.
Looks at a stable sample of the typed rows before they are encoded; duplicates are counted over all rows.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from data_ingestion.schema import Contract
from data_ingestion.splitter import TEST, TRAIN

ALMOST_PERFECT = 0.99  # R² of a regression, ROC AUC of a classification, on rows not fitted on
MAX_TERMS = 5  # a target that is a sum of more columns is no longer plainly one of them in disguise
MIN_LEAF_ROWS = 5
EXACT = 1e-6
ALL_DIFFERENT = 0.99  # share of distinct values from which on a column names rows
ID_NAME = re.compile(r"(?i:(^|[\W_])(id|uuid|guid|key|rowid)($|[\W_]))|[a-z]I[dD]$")
MIN_ID_ROWS = 50  # fewer may all differ by chance


@dataclass(frozen=True)
class Finding:
    """One sign of a leak.

    Parameters
    ----------
    kind : predicts_alone, function_of_target, encoded_target, id_as_feature, later_than_target or duplicate_rows
    columns : the features concerned
    figure : what the finding rests on, in the unit that `message` names
    message : what was found
    action : what to do about it
    """

    kind: str
    columns: list[str]
    figure: float
    message: str
    action: str

    def to_dict(self) -> dict[str, object]:
        """Return plain values that JSON can hold."""
        return asdict(self)


def find_leaks(sample: pd.DataFrame, contract: Contract, seed: int) -> list[Finding]:
    """Return what looks like a leak, the most telling first; `find_duplicates` needs all rows.

    Parameters
    ----------
    sample : (n_rows, n_columns) typed rows, some thousands
    contract : what the columns are
    seed : decides the folds
    """
    y = sample[contract.target]
    numbers = encode_columns(sample, contract)
    alone = list(find_single_predictors(numbers, sample, contract, seed))
    known = {name for finding in alone for name in finding.columns}
    rest = numbers.drop(columns=list(known))
    findings = [*alone, *find_encoded_targets(sample, numbers, contract)]
    if not contract.is_classification:
        findings += find_sums(rest, y.to_numpy(dtype=float), seed)
    return [*findings, *find_ids(sample, contract), *find_later_columns(sample, contract)]


def encode_columns(table: pd.DataFrame, contract: Contract) -> pd.DataFrame:
    """Return every feature as numbers without missing values: codes for categories, days for dates."""
    columns = {}
    for name, column in contract.features.items():
        values = table[name]
        if column.kind == "datetime":
            days = (values - pd.Timestamp(0)) / pd.Timedelta(days=1)
            columns[name] = days.fillna(days.median()).fillna(0)
        elif column.kind in ("category", "text"):
            columns[name] = pd.Series(pd.factorize(values)[0].astype(float))
        else:
            number = values.astype("float64")
            columns[name] = number.fillna(number.median()).fillna(0)
    return pd.DataFrame(columns)


def find_single_predictors(
    numbers: pd.DataFrame, sample: pd.DataFrame, contract: Contract, seed: int
) -> Iterator[Finding]:
    """Yield the features that predict the target almost perfectly by themselves: by value, or by being missing."""
    for name in numbers.columns:
        x = np.column_stack([numbers[name], sample[name].isna()])
        score = score_alone(x, sample[contract.target], contract, seed)
        if score >= ALMOST_PERFECT:
            figure = "ROC AUC" if contract.is_classification else "R²"
            yield Finding(
                "predicts_alone",
                [name],
                score,
                f'"{name}" alone predicts "{contract.target}" with {figure} {score:.4f}',
                f'if "{name}" is not known when the prediction is made, give it role: ignored in data/schema.yaml',
            )


def score_alone(x: NDArray[np.float64], y: pd.Series, contract: Contract, seed: int) -> float:
    """Return how well one column predicts the target on rows not fitted on: R², or the mean one-against-rest ROC AUC.

    Parameters
    ----------
    x : (n_rows, 2) its values, and whether they are missing
    y : (n_rows,) the target
    contract : says whether the target is a class
    seed : decides the folds
    """
    if not contract.is_classification:
        tree = DecisionTreeRegressor(min_samples_leaf=MIN_LEAF_ROWS, random_state=seed)
        folds = KFold(3, shuffle=True, random_state=seed)
        return max(float(r2_score(y, cross_val_predict(model, x, y, cv=folds))) for model in (LinearRegression(), tree))
    labels, classes = pd.factorize(y, sort=True)
    if np.bincount(labels).min() < 3:
        return 0.0
    tree = DecisionTreeClassifier(min_samples_leaf=MIN_LEAF_ROWS, random_state=seed)
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    shares = cross_val_predict(tree, x, labels, cv=folds, method="predict_proba")
    return float(np.mean([roc_auc_score(labels == place, shares[:, place]) for place in range(len(classes))]))


def find_sums(numbers: pd.DataFrame, y: NDArray[np.float64], seed: int) -> list[Finding]:
    """Return the fewest columns whose weighted sum is almost the target, when five or fewer do.

    Forward selection on half of the rows, judged on the other half: each step takes the column that most reduces what
    is left (orthogonal matching pursuit; Pati, Rezaiifar and Krishnaprasad, 1993).
    """
    half = np.random.default_rng(seed).permutation(len(y))
    fit, check = half[: len(y) // 2], half[len(y) // 2 :]
    X = numbers.to_numpy()
    spread = X[fit].std(axis=0)
    usable = np.flatnonzero(spread > 0)
    scaled = (X[fit][:, usable] - X[fit][:, usable].mean(axis=0)) / spread[usable]
    left, chosen = y[fit] - y[fit].mean(), list[int]()
    for _ in range(min(MAX_TERMS, len(usable))):
        gain = np.abs(scaled.T @ left)
        gain[[int(np.flatnonzero(usable == place)[0]) for place in chosen]] = -1
        chosen.append(int(usable[gain.argmax()]))
        model = LinearRegression().fit(X[fit][:, chosen], y[fit])
        left = y[fit] - model.predict(X[fit][:, chosen])
        score = float(r2_score(y[check], model.predict(X[check][:, chosen])))
        if score >= ALMOST_PERFECT and len(chosen) > 1:
            return [_describe_sum([str(numbers.columns[place]) for place in chosen], model.coef_, score)]
    return []


def _describe_sum(names: Sequence[str], weights: NDArray[np.float64], score: float) -> Finding:
    terms = " + ".join(f'{weight:.3g} × "{name}"' for name, weight in zip(names, weights, strict=True))
    return Finding(
        "function_of_target",
        list(names),
        score,
        f"the target is almost a sum: {terms} gives it with R² {score:.4f}",
        "if these are parts of the target that are only known with it, give them role: ignored in data/schema.yaml",
    )


def find_encoded_targets(table: pd.DataFrame, numbers: pd.DataFrame, contract: Contract) -> list[Finding]:
    """Return the numeric features that are the mean target of a category: encoded before the split, they know it."""
    y = table[contract.target]
    if contract.is_classification:
        y = pd.Series(pd.factorize(y, sort=True)[0])
    categories = [name for name, column in contract.features.items() if column.kind == "category"]
    floats = [name for name, column in contract.features.items() if column.kind == "number"]
    findings = []
    for category in categories:
        means = y.groupby(table[category].fillna("")).transform("mean").astype("float64")
        for name in floats:
            if numbers[name].nunique() > 1 and np.allclose(numbers[name], means, rtol=1e-3, atol=EXACT):
                findings.append(
                    Finding(
                        "encoded_target",
                        [name],
                        float(np.corrcoef(numbers[name], means)[0, 1]),
                        f'"{name}" is the mean of the target for each "{category}", over all rows',
                        f'give "{name}" role: ignored in data/schema.yaml; the encoder makes such means without a leak',
                    )
                )
    return findings


def find_later_columns(table: pd.DataFrame, contract: Contract) -> list[Finding]:
    """Return the date features that lie after the moment of the row, which the column with role time gives."""
    times = contract.columns_with_role("time")
    if len(times) != 1 or contract.columns[times[0]].kind != "datetime":
        return []
    findings = []
    for name, column in contract.features.items():
        if column.kind == "datetime":
            later = float((table[name] > table[times[0]]).mean())
            if later > 0:
                findings.append(
                    Finding(
                        "later_than_target",
                        [name],
                        later,
                        f'"{name}" is later than "{times[0]}" in {later:.1%} of the rows',
                        f'if "{name}" is not known at "{times[0]}", give it role: ignored in data/schema.yaml',
                    )
                )
    return findings


def find_ids(table: pd.DataFrame, contract: Contract) -> Iterator[Finding]:
    """Yield the features that name rows: texts that all differ, and whole numbers that do and count or are called id.

    A measured number may differ in every row too, so a number alone is no sign.
    """
    for name, column in contract.features.items():
        known = table[name].dropna()
        if column.kind not in ("category", "integer") or len(known) < MIN_ID_ROWS:
            continue
        share = known.nunique() / len(known)
        counts = column.kind == "integer" and known.is_monotonic_increasing
        if share >= ALL_DIFFERENT and (column.kind == "category" or counts or ID_NAME.search(name)):
            yield Finding(
                "id_as_feature",
                [name],
                share,
                f'"{name}" is different in {share:.1%} of the rows: it names rows, and a model learns them by heart',
                f'give "{name}" role: id in data/schema.yaml',
            )


def find_duplicates(contents: NDArray[np.uint64], sides: NDArray[np.uint8]) -> list[Finding]:
    """Return the share of test rows that stand among the train rows too, target included.

    Parameters
    ----------
    contents : (n_rows,) a hash of features and target of each row
    sides : (n_rows,) where it stands, see splitter.SIDES
    """
    tested, trained = np.sort(contents[sides == TEST]), np.sort(contents[sides == TRAIN])
    if not len(tested) or not len(trained):
        return []
    nearest = trained[np.minimum(np.searchsorted(trained, tested), len(trained) - 1)]
    twice = float((nearest == tested).mean())
    if not twice:
        return []
    share = f"{twice:.1%}" if twice >= 0.001 else "a few"
    return [
        Finding(
            "duplicate_rows",
            [],
            twice,
            f"{share} of the test rows stand among the train rows too",
            "split by content (split: hash), by group, or remove the duplicates",
        )
    ]
