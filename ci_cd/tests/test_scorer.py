"""The scorer answers as the fitted pipeline does, to the last bit, and needs numpy alone."""

import io
import json
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, clean_environment
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from small_models import build_contract, write_small_model

from data_ingestion.encoder import build_encoder
from data_ingestion.handoff import PipelineError, commit, sha256_bytes
from data_ingestion.schema import Contract
from models import artifact
from models.artifact import PICKLE, SCORER, SavedModel, ScorerModel, load_scorer_model
from models.boosting import BoostedRegressor
from models.candidates import Candidate, Problem, describe_problem, list_known_good
from models.compiling import compile_pipeline
from models.ensemble import WeightedClassifier, WeightedRegressor
from models.estimators import build_estimator
from models.packing import PackingError, read_packed, write_packed
from models.raw_values import Coded
from models.scorer import CompiledModel, NotCompilableError, Scorer, load_scorer
from models.tree_tables import Edges, Forest, TreeTables, cut_rows

TASKS = ("regression", "binary", "multiclass")
KINDS = {
    "gaps": "number",
    "wide": "number",
    "count": "integer",
    "yes": "boolean",
    "few": "category",
    "many": "category",
    "when": "datetime",
}
MISSING = ["", "NA"]
FEW = ["a", "b", "c", "d", "e"]
Row = Mapping[str, object]


def list_specs() -> list[dict[str, object]]:
    more = {"true_values": ["yes"], "false_values": ["no"], "format": "%d.%m.%Y", "categories": FEW, "missing": MISSING}
    return [{"name": name, "kind": kind, **more} for name, kind in KINDS.items()]


def make_table(n_rows: int, seed: int) -> pd.DataFrame:
    """Raw rows, (n_rows, 7), as a request sends them."""
    rng = np.random.default_rng(seed)
    days = pd.Timestamp("2019-12-30") + pd.to_timedelta(rng.integers(0, 900, n_rows), unit="D")
    columns = {
        "gaps": np.where(rng.random(n_rows) < 0.2, None, rng.normal(size=n_rows).round(1)),
        "wide": rng.standard_cauchy(n_rows) * 10.0 ** rng.integers(-5, 6, n_rows),
        "count": rng.integers(-3, 40, n_rows),
        "yes": rng.choice(["yes", "no"], n_rows),
        "few": rng.choice([*FEW, None], n_rows),
        "many": rng.choice([f"level {number}" for number in range(40)], n_rows),
        "when": np.where(rng.random(n_rows) < 0.1, None, days.strftime("%d.%m.%Y")),
    }
    return pd.DataFrame({name: pd.Series(list(values), dtype=object) for name, values in columns.items()})


def make_target(task: str, table: pd.DataFrame, n_classes: int = 3) -> pd.Series:
    score = table["gaps"].fillna(0).astype(float) + table["count"].astype(float) / 9 + (table["few"] == "b") * 2
    if task == "regression":
        return score
    return pd.qcut(score, 2 if task == "binary" else n_classes, labels=False).rename("y")


@cache
def fit_encoder(task: str) -> Pipeline:
    table = make_table(300, 0)
    encoder = build_encoder(list_specs(), ["many"], task, 3, 0)
    return encoder.fit(table, make_target(task, table))


class Case:
    """An estimator behind the encoder, and the scorer made of both, gone through a file."""

    def __init__(self, task: str, estimator: BaseEstimator) -> None:
        self.estimator = estimator
        self.pipeline = Pipeline([("encoder", fit_encoder(task)), ("estimator", estimator)])
        self.is_classification = task != "regression"
        self.compiled = compile_pipeline(self.pipeline, build_contract(task))
        self.scorer = load_scorer(pack(self.compiled))

    def ask(self, X: pd.DataFrame) -> np.ndarray:
        """What scikit-learn answers for encoded columns."""
        return self.estimator.predict_proba(X) if self.is_classification else self.estimator.predict(X)


def pack(compiled: object) -> bytes:
    file = io.BytesIO()
    write_packed(compiled, file)
    return file.getvalue()


def list_rows(table: pd.DataFrame) -> list[Row]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    different = np.flatnonzero(~((found == expected) | (np.isnan(found) & np.isnan(expected))))
    assert not len(different), f"{len(different)} of {found.size}: {found.flat[different[0]]!r}"


# Trees


def fit_boosting(task: str, seed: int, n_leaves: int, n_classes: int, by_code: bool) -> tuple[Case, pd.DataFrame]:
    """Boosting on encoded columns with gaps, and the columns."""
    table = make_table(300, seed)
    X = fit_encoder(task).transform(table)
    rng = np.random.default_rng(seed)
    X = X.mask(rng.random(X.shape) < 0.05)
    X["number__count"] = 1.0  # a feature that says nothing
    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    boosting = kind(
        max_iter=int(rng.integers(1, 9)),
        max_leaf_nodes=n_leaves,
        min_samples_leaf=2,
        max_features=0.7,
        categorical_features=["category__few"] if by_code else None,
        early_stopping=False,
        random_state=0,
    )
    return Case(task, boosting.fit(X, make_target(task, table, n_classes))), X


def spoil(X: pd.DataFrame, case: Case, seed: int) -> pd.DataFrame:
    """Encoded rows full of what can go wrong: thresholds and their neighbours, zeros, the smallest, unknown codes."""
    rng = np.random.default_rng(seed)
    forest = case.compiled.forest
    assert forest is not None
    edges = forest.values[np.isfinite(forest.values)]
    odd = np.array([0.0, -0.0, 5e-324, -5e-324, 2.2e-308, 1e30, -1e30, np.nan, -1, -2, 77, 3])
    values = np.concatenate([odd, edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])
    spoilt = X.where(rng.random(X.shape) < 0.4, rng.choice(values, X.shape))
    for number, column in enumerate(forest.columns):  # thresholds where they belong
        end = sum(forest.n_values[: number + 1])
        own = forest.values[end - forest.n_values[number] : end]
        here = rng.random(len(X)) < 0.4
        spoilt.loc[here, X.columns[column]] = rng.choice(own[np.isfinite(own)], here.sum()) if len(own) > 1 else 0.0
    return spoilt


@pytest.mark.parametrize("task", TASKS)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_leaves=st.integers(2, 63),
    n_classes=st.integers(3, 9),
    by_code=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_any_boosted_trees_answer_to_the_last_bit(
    task: str, seed: int, n_leaves: int, n_classes: int, by_code: bool
) -> None:
    case, X = fit_boosting(task, seed, n_leaves, n_classes, by_code)
    for rows in (X, spoil(X, case, seed)):
        assert_same_bits(case.scorer.score_encoded(rows.to_numpy()), case.ask(rows))


def test_forest_by_hand() -> None:
    """One tree of three leaves: x <= 1.5 ? 10 : (code in {4, 7} ? 20 : 30), where NaN goes right, and unknown left."""
    forest = Forest(
        columns=(0, 1),
        is_coded=(False, True),
        values=np.array([1.5, np.inf, 2.0, 4.0, 7.0]),
        n_values=(2, 3),
        baselines=np.array([0.5]),
        sizes=(1,),
        n_leaves=np.array([3], dtype=np.uint8),
        leaves=np.array([10.0, 20.0, 30.0]),
        question=np.array([0, 1], dtype=np.uint16),
        place=np.array([0, 0], dtype=np.uint32),
        first=np.array([0, 1], dtype=np.uint8),
        count=np.array([1, 1], dtype=np.uint8),
        missing_right=np.array([1, 0], dtype=np.uint8),
        goes_right=np.packbits([[1, 0, 0, 0]], axis=1, bitorder="little"),
    )
    x = [1.5, 1.0, -np.inf, 1.6, np.nextafter(1.5, 2), np.nan, np.inf, 2, np.nan]
    code = [2, 4, 9, 4, 7, 2, 2, 5, np.nan]
    expected = [10.5, 10.5, 10.5, 20.5, 20.5, 30.5, 30.5, 20.5, 20.5]
    tables = TreeTables(forest)
    assert tables.add_up(np.array([x, code])).ravel().tolist() == expected
    assert [tables.add_up_one(list(row)).item() for row in zip(x, code, strict=True)] == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=40, unique=True), st.floats(1, 1e300))
@example([0.0, 5e-324, 1.0], 1.0)
@example([-1.7e308, 0.0, 1.7e308], 1.0)
@example([1.0, 1.0 + 2**-52, 1.0 + 2**-51, 1.0 + 2**-50, 1e9], 1.0)
@example([0.0, 1e9 - 1e-7, 1e9 - 2e-7, 1e9], 1.0)
@settings(deadline=None)
def test_thresholds_are_found_as_by_a_search(finite: list[float], scale: float) -> None:
    near = sorted({*finite, *(value / scale for value in finite)})
    edges = np.array([*near, np.inf])
    with np.errstate(over="ignore", under="ignore"):
        around = [np.nextafter(edges, -np.inf), edges, np.nextafter(edges, np.inf)]
    values = np.concatenate([*around, [-np.inf, -0.0, 0.0, np.nan]])
    assert Edges(edges).find(values).tolist() == np.searchsorted(edges, values).tolist()


@given(st.integers(1, 500), st.integers(1, 120), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_sums_go_from_left_to_right(n_rows: int, n_trees: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    leaves = rng.normal(size=(n_trees, 2)) * 10.0 ** rng.integers(-9, 9, (n_trees, 2))
    is_left = rng.random((n_rows, n_trees)) < 0.5
    expected = []
    for row in is_left.tolist():
        total = 0.1
        for (left, right), goes_left in zip(leaves.tolist(), row, strict=True):
            total += left if goes_left else right
        expected.append(total)
    ones = np.ones(n_trees, dtype=np.uint8)
    forest = Forest(
        columns=tuple(range(n_trees)),
        is_coded=(False,) * n_trees,
        values=np.tile([0.5, np.inf], n_trees),
        n_values=(2,) * n_trees,
        baselines=np.array([0.1]),
        sizes=(n_trees,),
        n_leaves=2 * ones,
        leaves=leaves.ravel(),
        question=np.arange(n_trees, dtype=np.uint16),
        place=np.zeros(n_trees, dtype=np.uint32),
        first=0 * ones,
        count=ones,
        missing_right=0 * ones,
        goes_right=np.empty((0, 0), dtype=np.uint8),
    )
    assert TreeTables(forest).add_up(np.where(is_left, 0.0, 1.0).T).ravel().tolist() == expected


def test_no_row_is_cut_off_alone() -> None:
    assert cut_rows(9, 4) == [(0, 4), (4, 9)]
    assert cut_rows(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert (cut_rows(0, 4), cut_rows(1, 4), cut_rows(5, 4)) == ([], [(0, 1)], [(0, 5)])


# All that training can choose


def pose_problem(task: str) -> tuple[pd.DataFrame, pd.Series, Problem]:
    table = make_table(300, 0)
    X, y = fit_encoder(task).transform(table), make_target(task, table)
    strongest = ("number__gaps", "number__wide", "number__count")
    return X, y, describe_problem(task, X, y, 0, strongest=strongest, switches=("number__yes",))


@cache
def fit_members(task: str) -> dict[str, BaseEstimator]:
    """Return what training tries, fitted, by name."""
    X, y, problem = pose_problem(task)
    if task == "regression":
        y = np.exp(y)
    members = {c.name: build_estimator(c, problem, 8).fit(X, y) for c in list_known_good(problem)}
    if task == "regression":
        boosting = HistGradientBoostingRegressor(max_iter=8, max_leaf_nodes=50, early_stopping=False)
        members["log"] = BoostedRegressor(boosting, log_target=True).fit(X, y)
    return members


@cache
def build_ensemble(task: str) -> BaseEstimator:
    members = list(fit_members(task).values())
    weights = np.arange(1, len(members) + 1) / (len(members) * (len(members) + 1) / 2)
    if task == "regression":
        return WeightedRegressor(members, weights.tolist())
    X, y, problem = pose_problem(task)
    few = y != y.max() if task == "multiclass" else y >= 0
    members[0] = HistGradientBoostingClassifier(max_iter=5, max_leaf_nodes=12).fit(X[few], y[few])
    n_classes = len(problem.classes)
    calibration = (1.2, (0.0, *[0.3] * (n_classes - 1)))
    threshold = 0.45 if task == "binary" else None
    return WeightedClassifier(members, weights.tolist(), list(problem.classes), threshold, calibration)


@pytest.mark.parametrize("task", TASKS)
def test_all_that_training_tries_answers_to_the_last_bit(task: str) -> None:
    table = make_table(600, 1)
    rows, X = list_rows(table), fit_encoder(task).transform(table)
    for estimator in (*fit_members(task).values(), build_ensemble(task)):
        case = Case(task, estimator)
        expected = case.ask(X)
        assert_same_bits(case.scorer.score_rows(rows), expected)
        assert_same_bits(case.scorer.score_encoded(X.to_numpy()), expected)


@pytest.mark.parametrize("task", TASKS)
def test_row_has_one_answer_alone_and_in_blocks_of_any_size(task: str) -> None:
    table = make_table(520, 2)
    rows, scorer = list_rows(table), Case(task, build_ensemble(task)).scorer
    together = scorer.score_rows(rows)
    assert_same_bits(np.concatenate([scorer.score_row(row) for row in rows]), together)
    for size in (0, 1, 2, 15, 16, 17, 255, 256, 257):
        assert_same_bits(scorer.score_rows(rows[:size]), together[:size])


@pytest.mark.parametrize("integer_bytes", [2**24, 0])
@pytest.mark.parametrize("chunk_bytes", [1, 8, 40, 100])
def test_trees_cut_into_chunks_add_up_alike(
    monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, integer_bytes: int
) -> None:
    table = make_table(300, 4)
    case = Case("multiclass", build_ensemble("multiclass"))
    expected = case.ask(fit_encoder("multiclass").transform(table))
    monkeypatch.setattr("models.tree_tables.CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr("models.tree_tables.INTEGER_BYTES", integer_bytes)
    scorer = Scorer(case.compiled)
    assert_same_bits(scorer.score_rows(list_rows(table)), expected)
    assert_same_bits(np.concatenate([scorer.score_row(row) for row in list_rows(table)]), expected)


@pytest.mark.parametrize("integer_bytes", [2**24, 0])
def test_trees_that_ask_nothing_answer_every_row(monkeypatch: pytest.MonkeyPatch, integer_bytes: int) -> None:
    monkeypatch.setattr("models.tree_tables.INTEGER_BYTES", integer_bytes)
    X = fit_encoder("regression").transform(make_table(40, 2)) * 0.0
    trees = HistGradientBoostingRegressor(max_iter=3).fit(X, make_target("regression", make_table(40, 2)))
    case = Case("regression", trees)
    for _ in range(2):
        assert_same_bits(case.scorer.score_row({}), case.ask(X[:1]))
        assert_same_bits(case.scorer.score_encoded(X.to_numpy()), case.ask(X))


def test_threshold_decides() -> None:
    ensemble = build_ensemble("binary")
    table = make_table(400, 3)
    scorer = Case("binary", ensemble).scorer
    answers = scorer.score_rows(list_rows(table))
    expected = ensemble.predict(fit_encoder("binary").transform(table))
    assert scorer.choose_places(answers).tolist() == expected.tolist()
    assert (answers.argmax(axis=1) != expected).any()  # it is not 0.5


def test_many_classes_add_up_within_four_ulp_of_one_row_alone() -> None:
    """Of one row alone scikit-learn adds up eight and more classes in pairs, and of many in order."""
    case, X = fit_boosting("multiclass", 5, 31, 9, by_code=True)
    found = case.scorer.score_encoded(X.to_numpy())
    alone = np.concatenate([case.ask(X.iloc[[place]]) for place in range(40)])
    assert_same_bits(found, case.ask(X))
    assert (np.abs(found[:40] - alone) <= 4 * np.spacing(alone)).all()


@pytest.mark.parametrize("task", TASKS)
def test_dummies_answer_alike(task: str) -> None:
    X, y, problem = pose_problem(task)
    case = Case(task, build_estimator(Candidate("dummy", "dummy"), problem).fit(X, y))
    assert_same_bits(case.scorer.score_encoded(X.to_numpy()), case.ask(X))
    assert_same_bits(case.scorer.score_row({}), case.ask(X[:1]))


# Raw values


def values_of(kind: str) -> st.SearchStrategy[object]:
    none = st.sampled_from([None, "NA", "", "  NA ", float("nan")])
    moments = st.datetimes(min_value=pd.Timestamp("1700-01-01"), max_value=pd.Timestamp("2250-01-01"))
    texts = {
        "number": st.floats(-1e30, 1e30)
        | st.integers(-(2**53), 2**53)
        | st.sampled_from(["1.5", " -2e3 ", "+.5", True]),
        "integer": st.integers(-(10**17), 10**17) | st.sampled_from([2.0, "17", " 3.0", False]),
        "boolean": st.sampled_from(["yes", "no", "YES ", " No", True, False]),
        "category": st.sampled_from([*FEW, " b ", "z", "level 3", "Ä", "level 3 "]),
        "datetime": moments
        | moments.map(lambda m: m.isoformat())
        | st.sampled_from(["29.02.2024", "2024-02-29T23:59:59+14:00"]),
    }
    return none | texts[kind]


raw_rows = st.fixed_dictionaries({}, optional={name: values_of(kind) for name, kind in KINDS.items()})


@given(st.lists(raw_rows, min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_raw_values_are_encoded_as_the_encoder_does(rows: Sequence[Row]) -> None:
    scorer = scorer_of_encoder()
    expected = encode_raw(rows)
    assert_same_bits(scorer.encode_rows(rows), expected)
    assert_same_bits(np.array([scorer.encode_row(row) for row in rows]), expected)


@cache
def scorer_of_encoder() -> Scorer:
    return Case("regression", fit_members("regression")["linear"]).scorer


def encode_raw(rows: Sequence[Row]) -> np.ndarray:
    """What the encoder makes of requests."""
    table = pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in KINDS})
    return fit_encoder("regression").transform(table).to_numpy()


def test_typed_columns_are_read_as_the_encoder_reads_a_typed_table() -> None:
    table = make_table(300, 6)
    dates = pd.to_datetime(table["when"], format="%d.%m.%Y").astype("datetime64[us]")
    typed = table.assign(
        gaps=table["gaps"].astype(float), count=table["count"].astype(np.int32), yes=table["yes"] == "yes", when=dates
    )
    case = Case("regression", build_ensemble("regression"))
    expected = case.pipeline.predict(typed)
    columns = {name: typed[name].to_numpy() for name in typed}
    assert_same_bits(case.scorer.score_columns(columns, len(typed)), expected)
    assert_same_bits(case.scorer.score_rows(list_rows(table)), expected)
    del columns["when"]
    without = case.pipeline.predict(typed.assign(when=pd.NaT))
    assert_same_bits(case.scorer.score_columns(columns, len(typed)), without)


def test_coded_columns_are_read_as_their_rows() -> None:
    table = make_table(300, 7)
    scorer = Case("regression", build_ensemble("regression")).scorer
    columns = {}
    for name in table:
        levels = list(dict.fromkeys(table[name]))
        columns[name] = Coded(np.array([levels.index(value) for value in table[name]]), [*levels, None])
    assert_same_bits(scorer.score_columns(columns, len(table)), scorer.score_rows(list_rows(table)))
    del columns["few"]
    without = [{**row, "few": None} for row in list_rows(table)]
    assert_same_bits(scorer.score_columns(columns, len(table)), scorer.score_rows(without))


@pytest.mark.parametrize(
    ("name", "values"), [("wide", [1.0, 1e31]), ("count", [1, 1.5]), ("wide", [np.inf]), ("yes", [1, 2])]
)
def test_typed_value_of_another_kind_is_refused(name: str, values: list[object]) -> None:
    with pytest.raises(ValueError, match=f'column "{name}": expects'):
        scorer_of_encoder().score_columns({name: np.array(values)}, len(values))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("wide", value) for value in ("x", "1,5", 1e31, float("inf"), "nan", "1_0", [], "١")],
        *[("count", value) for value in (1.5, "1e3", "1.5", 10**31, "x")],
        *[("yes", value) for value in ("maybe", 1, 2.5)],
        *[("when", value) for value in ("2024-02-29", "30.02.2024", 7, "x")],
    ],
)
def test_value_of_another_kind_is_refused_as_the_encoder_does(name: str, value: object) -> None:
    row = {name: value}
    with pytest.raises((ValueError, TypeError)):
        encode_raw([row])
    for encode in (lambda: scorer_of_encoder().encode_rows([row, {}]), lambda: scorer_of_encoder().encode_row(row)):
        with pytest.raises(ValueError, match=f'column "{name}": expects'):
            encode()


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"decimal": ","}, ["1.234,5", "-7,25", "3"]),
        ({"thousands": ","}, ["1,234.5", "12", "-1,000,000"]),
        ({"currency": "$"}, ["$ 1.5", "-$2", "3 $"]),
    ],
)
def test_numbers_are_read_as_the_contract_writes_them(change: dict[str, object], texts: list[str]) -> None:
    table = pd.DataFrame({"x": pd.Series(texts, dtype=object)})
    encoder = build_encoder([{"name": "x", "kind": "number", "missing": [], **change}], [], "regression", 1, 0).fit(
        table
    )
    X = encoder.transform(table)
    pipeline = Pipeline([("encoder", encoder), ("estimator", HistGradientBoostingRegressor().fit(X, [1, 2, 3]))])
    scorer = Scorer(compile_pipeline(pipeline, build_contract()))
    assert_same_bits(scorer.encode_rows([{"x": text} for text in texts]), X.to_numpy())


# What cannot be compiled


def test_what_is_not_known_to_answer_the_same_is_refused() -> None:
    X, y, _ = pose_problem("regression")
    positive = np.exp(y)
    forest = ExtraTreesRegressor(n_estimators=2).fit(X, y)
    refused = {
        "ExtraTreesRegressor is not one": forest,
        "LinearRegression is not one": LinearRegression().fit(X, y),
        "its loss poisson has a scale": HistGradientBoostingRegressor(loss="poisson", max_iter=2).fit(X, positive),
        "a tree has 100 leaves, more than 64": HistGradientBoostingRegressor(
            max_iter=1, max_leaf_nodes=100, min_samples_leaf=1
        ).fit(X, y),
        "ExtraTreesRegressor is": WeightedRegressor([forest], [1.0]),
    }
    for reason, estimator in refused.items():
        with pytest.raises(NotCompilableError, match=reason):
            Case("regression", estimator)


# The file


def test_file_is_smaller_than_the_pickle_and_the_same_each_time(tmp_path: Path) -> None:
    from data_ingestion.pickling import dump_pickle

    case = Case("regression", build_ensemble("regression"))
    pickled = io.BytesIO()
    dump_pickle(case.pipeline, pickled)
    packed = pack(case.compiled)
    assert len(packed) < len(pickled.getvalue()) / 2
    assert packed == pack(compile_pipeline(case.pipeline, build_contract()))


@pytest.mark.parametrize("spoil", [lambda b: b[:-30], lambda b: b"", lambda b: b.replace(b'"format":1', b'"format":2')])
def test_file_that_is_none_is_refused(spoil) -> None:
    with pytest.raises(PackingError):
        load_scorer(spoil(pack(scorer_of_encoder().compiled)))


def test_file_never_holds_objects() -> None:
    with pytest.raises(TypeError, match="objects"):
        pack(CompiledModel((), 0, (), None, np.array([object()]), None, False))  # type: ignore[arg-type]
    file = io.BytesIO()
    np.savez(file, plan=np.array([{}], dtype=object))
    with pytest.raises(PackingError, match="cannot be read"):
        read_packed(file.getvalue(), {})


# The model folder


def write_compiled_model(folder: Path, task: str = "binary", estimator: BaseEstimator | None = None) -> Contract:
    """A model folder as training writes it."""
    columns = {name: {"kind": kind, "missing": MISSING} for name, kind in KINDS.items()}
    columns["when"]["format"] = "%d.%m.%Y"
    columns["yes"] |= {"true_values": ["yes"], "false_values": ["no"]}
    columns["few"]["categories"] = FEW
    target = {"kind": "number" if task == "regression" else "category", "role": "target"}
    contract = artifact.parse_contract(
        {"source": "x.csv", "target": "y", "task": task, "columns": {**columns, "y": target}}, "test"
    )
    estimator = build_ensemble(task) if estimator is None else estimator
    pipeline = Pipeline([("encoder", fit_encoder(task)), ("estimator", estimator)])
    rows = list_rows(make_table(5, 9).astype({"count": int}).astype(object))
    answers = artifact.predict_rows(pipeline, contract, rows)
    probabilities = None if answers.probabilities is None else answers.probabilities.tolist()
    describe = {
        "model_version": "0123456789ab",
        "task": task,
        "target": "y",
        "classes": None if task == "regression" else [int(label) for label in estimator.classes_],
        "estimator": type(estimator).__name__,
        "feature_names": list(fit_encoder(task).get_feature_names_out()),
        "libraries": artifact.list_libraries(),
        "contract": contract.to_dict(),
        "lineage": {},
        "golden": {"rows": rows, "predictions": answers.values, "probabilities": probabilities},
    }
    with commit() as files:
        artifact.write_model(files, folder, pipeline, describe)
    return contract


@pytest.mark.parametrize("task", TASKS)
def test_scorer_of_a_folder_answers_as_its_pickle_does(tmp_path: Path, task: str) -> None:
    write_compiled_model(tmp_path, task)
    rows = list_rows(make_table(50, 10))
    expected = artifact.load_model(tmp_path).predict(rows)
    (tmp_path / PICKLE).unlink()  # nobody looks at it
    model = load_scorer_model(tmp_path)
    assert isinstance(model, ScorerModel)
    found = model.predict(rows)
    assert found.values == expected.values
    assert [type(value) for value in found.values] == [type(value) for value in expected.values]
    if expected.probabilities is not None:
        assert_same_bits(found.probabilities, expected.probabilities)


def test_model_that_cannot_be_compiled_comes_from_its_pickle(tmp_path: Path) -> None:
    manifest = write_small_model(tmp_path)
    assert (manifest.scorer.compiled, manifest.scorer.reason) == (
        False,
        "LinearRegression is not one of the estimators that can be compiled",
    )
    assert list(manifest.files) == [PICKLE]
    assert isinstance(load_scorer_model(tmp_path), SavedModel)


def test_scorer_that_answers_golden_rows_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scorer, "score_rows", lambda scorer, rows: np.full((len(rows), 2), 0.5))
    write_compiled_model(tmp_path)
    manifest = artifact.read_manifest(tmp_path)
    assert manifest.scorer.reason == "compiled, it answers its golden rows otherwise"
    assert not (tmp_path / SCORER).exists()


def flip_bit(folder: Path) -> None:
    content = bytearray((folder / SCORER).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / SCORER).write_bytes(content)


def remove_scorer(folder: Path) -> None:
    (folder / SCORER).unlink()


def name_other_features(folder: Path) -> None:
    manifest = json.loads((folder / artifact.MANIFEST).read_text(encoding="utf-8"))
    manifest["contract"]["columns"]["storey"] = manifest["contract"]["columns"].pop("wide")
    (folder / artifact.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def name_other_answers(folder: Path) -> None:
    manifest = json.loads((folder / artifact.MANIFEST).read_text(encoding="utf-8"))
    manifest["golden"]["probabilities"][0] = [0.25, 0.75]
    (folder / artifact.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def vouch_for_rubbish(folder: Path) -> None:
    (folder / SCORER).write_bytes((folder / SCORER).read_bytes()[:500])
    manifest = json.loads((folder / artifact.MANIFEST).read_text(encoding="utf-8"))
    manifest["files"][SCORER] = sha256_bytes((folder / SCORER).read_bytes())
    (folder / artifact.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_bit, "not the file that"),
        (remove_scorer, "Run"),
        (name_other_features, 'disagree on the features "storey", "wide"'),
        (name_other_answers, "golden rows"),
        (vouch_for_rubbish, "cannot be read"),
    ],
)
def test_damaged_scorer_is_refused(tmp_path: Path, damage, reason: str) -> None:
    write_compiled_model(tmp_path)
    damage(tmp_path)
    with pytest.raises(PipelineError, match=reason):
        load_scorer_model(tmp_path)


SERVER = """
import sys
import uvicorn
from app.main import app
app.fastapi.add_api_route("/modules", lambda: sorted(sys.modules))
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
"""


def test_server_of_a_compiled_model_opens_neither_scikit_learn_nor_the_pickle(tmp_path: Path) -> None:
    write_compiled_model(tmp_path)
    row = {"gaps": 1.5, "wide": -3, "count": 4, "yes": "yes", "few": "b", "many": "level 3", "when": "17.05.2020"}
    expected = artifact.load_model(tmp_path).predict([row])
    (tmp_path / PICKLE).write_bytes(b"nobody looks at it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = clean_environment() | {"MODEL_DIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port)], cwd=REPOSITORY, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=9)) as client:
            answers = client.post("/predict/batch", json=[row, row]).json()["predictions"]
            modules = {name.partition(".")[0] for name in client.get("/modules").json()}
    finally:
        process.kill()
        process.wait()
    assert [answer["prediction"] for answer in answers] == expected.values * 2
    assert list(answers[0]["probabilities"].values()) == expected.probabilities.tolist()[0]
    assert "numpy" in modules
    assert not {"pandas", "sklearn", "scipy", "pyarrow", "joblib", "mlflow"} & modules


def test_scorer_needs_numpy_alone(tmp_path: Path) -> None:
    write_compiled_model(tmp_path)
    code = """
import sys
from pathlib import Path
from models.artifact import load_scorer_model
model = load_scorer_model(Path(sys.argv[1]))
print(len(model.predict([{}, {"gaps": 1.5}]).values), *sorted({name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    count, *modules = done.stdout.split()
    assert count == "2"
    assert not {"pandas", "sklearn", "scipy", "pyarrow", "joblib"} & set(modules)
