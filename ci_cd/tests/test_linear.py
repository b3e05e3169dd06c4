"""Linear estimators answer a row the same alone and among others, and otherwise as scikit-learn's own do."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeCV

from models.candidates import Candidate, describe_problem
from models.estimators import build_estimator
from models.linear import RowwiseLogisticRegression, RowwiseRidgeCV

TASKS = ("regression", "binary", "multiclass")


def make_data(task: str, n_features: int, seed: int, n_rows: int = 60) -> tuple[pd.DataFrame, pd.Series]:
    """Encoded columns, one of them a code, and a target that follows from them."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(scale=100, size=(n_rows, n_features))).add_prefix("number__")
    X["category__c"] = rng.integers(-2, 5, n_rows).astype(float)
    score = X.sum(axis=1) / 50 + X["category__c"]
    if task == "regression":
        return X, score
    return X, pd.Series(pd.qcut(score, 2 if task == "binary" else 3, labels=False).to_numpy())


def answer(estimator: object, X: object) -> np.ndarray:
    """The numbers behind the answers, (n_rows, n_numbers)."""
    parts = ["predict", *(["decision_function", "predict_proba"] if hasattr(estimator, "predict_proba") else [])]
    return np.column_stack([getattr(estimator, part)(X) for part in parts])


@pytest.mark.parametrize("task", TASKS)
@given(n_features=st.integers(1, 70), seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(max_examples=12, deadline=None)
def test_row_has_one_answer_alone_and_among_others(task: str, n_features: int, seed: int, data: st.DataObject) -> None:
    X, y = make_data(task, n_features, seed)
    linear = build_estimator(Candidate("linear", "linear"), describe_problem(task, X, y, 0)).fit(X, y)
    count = data.draw(st.integers(1, len(X)))
    rows = X.sample(count, random_state=seed % 1000)

    together = answer(linear, rows)
    alone = np.concatenate([answer(linear, rows.iloc[[place]]) for place in range(count)])

    assert together.tobytes() == alone.tobytes()


@pytest.mark.parametrize("task", TASKS)
def test_layout_in_memory_does_not_matter(task: str) -> None:
    X, y = make_data(task, 20, 1)
    values = X.to_numpy() / 100
    estimator = (RowwiseRidgeCV() if task == "regression" else RowwiseLogisticRegression()).fit(values, y)
    spread = np.zeros((2 * len(values), 3 * values.shape[1]))
    spread[::2, ::3] = values

    expected = answer(estimator, np.ascontiguousarray(values)).tobytes()

    assert answer(estimator, np.asfortranarray(values)).tobytes() == expected
    assert answer(estimator, spread[::2, ::3]).tobytes() == expected


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_those_of_scikit_learn_but_for_the_last_bits(task: str) -> None:
    X, y = make_data(task, 20, 1)
    own, other = (
        (RowwiseRidgeCV(alphas=[0.1, 10.0]), RidgeCV(alphas=[0.1, 10.0]))
        if task == "regression"
        else (RowwiseLogisticRegression(C=0.5), LogisticRegression(C=0.5))
    )
    X /= 100
    values = X.to_numpy()
    expected = answer(other.fit(values, y), values)
    assert answer(own.fit(values, y), values) == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert answer(own, csr_matrix(values)) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_several_targets_give_a_column_each() -> None:
    X, y = make_data("regression", 3, 1)
    both = np.column_stack([y, -y])
    own, other = RowwiseRidgeCV().fit(X, both), RidgeCV().fit(X, both)
    assert own.predict(X) == pytest.approx(other.predict(X), rel=1e-10)


@pytest.mark.parametrize("estimator", [RowwiseRidgeCV(alphas=(1.0, 2.0)), RowwiseLogisticRegression(C=3.0)])
def test_conventions_of_scikit_learn_are_kept(estimator: RidgeCV | LogisticRegression) -> None:
    X, y = make_data("binary", 2, 1)
    copy = clone(estimator)
    assert copy.get_params() == estimator.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(X)
    copy.fit(X, y)
    assert list(copy.feature_names_in_) == list(X.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        copy.predict(X.rename(columns={"category__c": "category__d"}))
    values = X.to_numpy()
    copy = clone(estimator).fit(values, y)
    with pytest.raises(ValueError, match=r"has 2 features, but Rowwise.* is expecting 3 features"):
        copy.predict(values[:, :2])
    with pytest.raises(ValueError, match="contains NaN"):
        copy.predict(np.where(values == values[0, 0], np.nan, values))
    assert pickle.loads(pickle.dumps(copy)).predict(values).tolist() == copy.predict(values).tolist()
