"""Encoding row group by row group gives what scikit-learn gives on the whole table, to the last bit."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import OrdinalEncoder, TargetEncoder
from small_tables import TableGroups, make_contract

from data_ingestion import handoff
from data_ingestion import scan as scanning
from data_ingestion.casting import arrow_type
from data_ingestion.data_preprocessor import PreprocessParams, describe_features, encode_groups, prepare_rows
from data_ingestion.encoder import build_encoder
from data_ingestion.learnt import EncodeRequest, Learnt, learn_encoder
from data_ingestion.lineage import Lineage
from data_ingestion.row_groups import RowGroups, map_groups
from data_ingestion.schema import Contract
from data_ingestion.sealed_parquet import ROWS_PER_GROUP
from data_ingestion.splitter import SplitRequest, plan_split
from data_ingestion.stream_encoder import StreamEncoder
from data_ingestion.target_means import cross_fit_means

KINDS = {
    "x": "number",
    "full": "number",
    "empty": "number",
    "k": "integer",
    "b": "boolean",
    "few": "category",
    "many": "category",
    "none": "category",
    "when": "datetime",
}
DATE = datetime(2021, 12, 30)
values_of = {
    "x": st.none() | st.floats(-1e9, 1e9),
    "full": st.floats(-1e9, 1e9),
    "empty": st.none(),
    "k": st.none() | st.integers(-(10**18), 10**18),
    "b": st.none() | st.booleans(),
    "few": st.none() | st.sampled_from(["a", "B", "ä", "rare", "rarer"]),
    "many": st.none() | st.integers(0, 30).map("level {}".format),
    "none": st.none(),
    "when": st.none() | st.datetimes(datetime(1890, 1, 1), datetime(2100, 1, 1)),
    "y": st.floats(-100, 100),
}
rows_of_all = st.lists(st.fixed_dictionaries(values_of), min_size=6, max_size=40)


def make_customers(n_rows: int = 300, task: str = "regression") -> tuple[Contract, pa.Table]:
    """Every kind of column, gaps, rare levels; the target follows from some of them."""
    target = {"y": "category" if task != "regression" else "number"}
    contract = make_contract("y", task, **KINDS, **target)
    rng = np.random.default_rng(0)

    def drop(values: list[object], share: float = 0.1) -> list[object]:
        return [None if rng.random() < share else value for value in values]

    y = np.round(rng.normal(size=n_rows), 3)
    columns = {
        "x": drop(rng.normal(size=n_rows).tolist()),
        "full": rng.normal(size=n_rows).tolist(),
        "empty": [None] * n_rows,
        "k": drop(rng.integers(0, 9, n_rows).tolist()),
        "b": drop([bool(b) for b in rng.integers(0, 2, n_rows)]),
        "few": drop([*["a", "b", "c"] * (n_rows // 3), "rare"][-n_rows:]),
        "many": drop([f"level {i}" for i in rng.integers(0, 40, n_rows)]),
        "none": [None] * n_rows,
        "when": drop([DATE + timedelta(hours=int(h)) for h in rng.integers(0, 90, n_rows)]),
        "y": y.tolist() if task == "regression" else [("low", "mid", "high")[int(v > 0) + int(v > 1)] for v in y],
    }
    if task == "binary":
        columns["y"] = ["low" if label == "low" else "high" for label in columns["y"]]
    return contract, make_table(contract, columns)


def make_table(contract: Contract, columns: dict[str, list[object]]) -> pa.Table:
    schema = pa.schema([(name, arrow_type(column)) for name, column in contract.columns.items()])
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)


def learn(contract: Contract, train: pa.Table, folds: np.ndarray | None = None, min_frequency: int = 3) -> Learnt:
    folds = np.arange(train.num_rows, dtype=np.uint8) % 5 if folds is None else folds
    request = EncodeRequest(describe_features(contract), contract.task, min_frequency, max_levels=8, seed=0)
    return learn_encoder(train, contract.target, folds, 5, request)


def stream(learnt: Learnt, table: pa.Table) -> pd.DataFrame:
    encoder = StreamEncoder(learnt.encoder, learnt.target_means)
    encoded = encoder.encode(table, np.full(table.num_rows, -1))
    return pd.DataFrame({name: np.asarray(values) for name, values in zip(encoder.names, encoded, strict=True)})


def assert_equal_bits(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(found.columns) == list(expected.columns)
    for name in expected.columns:
        assert found[name].to_numpy(dtype="float64").tobytes() == expected[name].to_numpy(dtype="float64").tobytes(), (
            name
        )


# Encoding


@settings(max_examples=60, deadline=None)
@given(rows_of_all, rows_of_all)
def test_streamed_rows_are_what_the_encoder_makes_of_them(
    train: list[dict[str, object]], rows: list[dict[str, object]]
) -> None:
    """Missing, rare and unseen values included, of rows that it learnt from and of others."""
    contract = make_contract(**KINDS)
    tables = [make_table(contract, {n: [row[n] for row in part] for n in contract.columns}) for part in (train, rows)]
    learnt = learn(contract, tables[0])
    for table in tables:
        assert_equal_bits(stream(learnt, table), learnt.encoder.transform(table.to_pandas()))


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_streamed_rows_equal_the_encoders_for_every_task(task: str) -> None:
    contract, table = make_customers(task=task)
    learnt = learn(contract, table.slice(0, 200))
    assert_equal_bits(stream(learnt, table), learnt.encoder.transform(table.to_pandas()))


def test_text_with_blanks_and_spellings_of_missing_are_read_as_the_encoder_reads_them() -> None:
    contract = make_contract(few="category", many="category")
    texts = [" a", "a ", "b", "NA", "", "?"] + [f"level {i}" for i in range(9)]
    table = make_table(contract, {"few": [*texts[:6], *"abababaca"], "many": texts, "y": [1.0] * 15})
    learnt = learn(contract, table, min_frequency=1)
    assert_equal_bits(stream(learnt, table), learnt.encoder.transform(table.to_pandas()))


# Learning


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_learnt_numbers_are_those_of_scikit_learns_own_fit(task: str) -> None:
    contract, table = make_customers(task=task)
    found = learn(contract, table).encoder.named_steps["encode"]
    X, y = table.select(list(contract.features)).to_pandas(), table["y"].to_pandas()
    means = ["many"]
    expected = build_encoder(describe_features(contract), means, task, 3, 0).fit(X, y).named_steps["encode"]
    assert list(found.get_feature_names_out()) == list(expected.get_feature_names_out())
    assert found.output_indices_ == expected.output_indices_

    numbers, others = found.named_transformers_["number"], expected.named_transformers_["number"]
    np.testing.assert_array_equal(numbers.statistics_, others.statistics_)
    np.testing.assert_array_equal(numbers.indicator_.features_, others.indicator_.features_)

    levels, others = found.named_transformers_["category"], expected.named_transformers_["category"]
    for mine, other in zip(levels.categories_, others.categories_, strict=True):
        np.testing.assert_array_equal(mine.astype(str), other.astype(str))
    for mine, other in zip(levels.infrequent_categories_, others.infrequent_categories_, strict=True):
        np.testing.assert_array_equal(mine, other)

    means_found, others = found.named_transformers_["mean"], expected.named_transformers_["mean"]
    np.testing.assert_array_equal(means_found.categories_[0].astype(str), others.categories_[0].astype(str))
    assert len(means_found.encodings_) == len(others.encodings_) == (3 if task == "multiclass" else 1)
    for mine, other in zip(means_found.encodings_, others.encodings_, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-13)  # a compiler may fuse a product into a sum
    np.testing.assert_allclose(means_found.target_mean_, others.target_mean_, rtol=1e-15)
    if task != "regression":
        assert means_found.classes_.tolist() == others.classes_.tolist()

    dates, others = found.named_transformers_["date"], expected.named_transformers_["date"]
    assert dates.moments_.tolist() == others.moments_.tolist()
    assert (dates.parts_, dates.has_missing_.tolist()) == (others.parts_, others.has_missing_.tolist())


def test_levels_are_those_of_scikit_learn_with_missing_always_among_them() -> None:
    X = pd.DataFrame({"c": ["b"] * 4 + ["a"] * 3 + ["rare"]})
    contract = make_contract(c="category")
    table = make_table(contract, {"c": X["c"].tolist(), "y": [0.0] * 8})
    found = learn(contract, table).encoder.named_steps["encode"].named_transformers_["category"]
    plain = OrdinalEncoder(min_frequency=3, handle_unknown="use_encoded_value", unknown_value=-1).fit(X.astype(object))
    assert found.categories_[0][:-1].tolist() == plain.categories_[0].tolist()
    assert np.isnan(found.categories_[0][-1])
    assert found.infrequent_categories_[0].tolist() == plain.infrequent_categories_[0].tolist() == ["rare"]


@pytest.mark.parametrize("is_class", [False, True])
def test_cross_fitted_means_are_those_of_scikit_learn(is_class: bool) -> None:
    rng = np.random.default_rng(3)
    places, folds = rng.integers(0, 12, 200), rng.integers(0, 4, 200).astype(np.uint8)
    y = rng.integers(0, 2, 200) if is_class else rng.normal(size=200) + places
    target_type = "binary" if is_class else "continuous"
    encoder = TargetEncoder(target_type=target_type, cv=PredefinedSplit(folds))
    expected = encoder.fit_transform(places.reshape(-1, 1), y)[:, 0]
    means = cross_fit_means(places, y, 12, folds, 4)
    np.testing.assert_allclose(means.table[folds, places], expected, rtol=1e-13)
    np.testing.assert_allclose(means.encodings, encoder.encodings_[0], rtol=1e-13)


# The whole stage


def encode(contract: Contract, groups: RowGroups, **flags: object) -> tuple[pa.Schema, list[pa.Table]]:
    params = PreprocessParams.model_construct(max_levels=8, min_frequency=3, **flags)
    schema, tables = encode_groups(groups, contract, prepare_rows(groups, contract, params))
    return schema, list(tables)


def prepare(contract: Contract, groups: RowGroups, **flags: object) -> pa.Table:
    _, tables = encode(contract, groups, **flags)
    plain = [pa.table({name: pa.array(np.asarray(table[name])) for name in table.column_names}) for table in tables]
    return pa.concat_tables(plain)


def write(path: Path, schema: pa.Schema, tables: list[pa.Table]) -> bytes:
    with handoff.commit() as commit, commit.open_parquet(path, schema) as sink:
        for table in tables:
            sink.write(table)
        sink.close(Lineage("preprocess", {}, {}, ""))
    return path.read_bytes()


@pytest.mark.parametrize("n_levels", [7_000, 14_000])
def test_means_of_many_levels_are_each_their_own(n_levels: int) -> None:
    """Six tables of so many means have more cells than 16 bits can number."""
    n_rows = 3 * n_levels
    levels = [f"level {i % n_levels}" for i in range(n_rows)]
    contract = make_contract("y", "regression", many="category", y="number")
    table = make_table(contract, {"many": levels, "y": [i % n_levels + i / n_rows for i in range(n_rows)]})
    groups = TableGroups(table, 10_000)
    params = PreprocessParams.model_construct(max_levels=8, min_frequency=1, split="hash", seed=1)
    prepared = prepare_rows(groups, contract, params)
    _, tables = encode_groups(groups, contract, prepared)
    found = pa.concat_tables([pa.table({n: pa.array(np.asarray(t[n])) for n in t.column_names}) for t in tables])
    is_test = np.asarray(found["split"].to_pylist()) == "test"
    expected = prepared.learnt.encoder.transform(table.select(["many"]).to_pandas())["mean__many"].to_numpy()
    assert np.array_equal(np.asarray(found["mean__many"])[is_test], expected[is_test])
    assert np.corrcoef(np.asarray(found["mean__many"])[~is_test], np.asarray(found["target"])[~is_test])[0, 1] > 0.5


@pytest.mark.parametrize("task", ["regression", "multiclass"])
@pytest.mark.parametrize("sample", [100, 1000], ids=["sampled", "exact"])
def test_result_does_not_depend_on_row_groups_or_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str, sample: int
) -> None:
    monkeypatch.setattr(scanning, "MAX_SAMPLE_ROWS", sample)
    contract, table = make_customers(task=task)
    expected = write(tmp_path / "expected.parquet", *encode(contract, TableGroups(table)))
    for size, threads in ((7, 1), (64, 4), (299, 2)):
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        found = write(tmp_path / "found.parquet", *encode(contract, TableGroups(table, size)))
        assert found == expected


def test_sample_is_stable_and_of_about_the_size_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_SAMPLE_ROWS", 500)
    contract, table = make_customers(3000)
    samples = []
    for size in (3000, 11):
        groups = TableGroups(table, size)
        samples.append(scanning.scan_rows(groups, contract, plan_split(groups, contract, SplitRequest()))[1])
    assert 400 < len(samples[0].places) < 600
    assert samples[0].places.tolist() == samples[1].places.tolist()
    assert samples[0].table.equals(samples[1].table)


def test_train_rows_get_the_target_means_of_other_folds_and_other_rows_those_of_all() -> None:
    contract, table = make_customers()
    groups = TableGroups(table)
    prepared = prepare_rows(groups, contract, PreprocessParams.model_construct(max_levels=8))
    encoded = prepare(contract, groups).to_pandas()
    whole = prepared.learnt.encoder.transform(table.to_pandas())["mean__many"]
    is_train = (encoded["split"] == "train").to_numpy()
    assert (encoded["mean__many"][~is_train] == whole[~is_train]).all()
    assert (encoded["mean__many"][is_train] != whole[is_train]).mean() > 0.9


def test_rows_of_many_row_groups_keep_their_places(tmp_path: Path) -> None:
    """A real file of three groups: each row stands at its place, with its number, its side and its target."""
    contract = make_contract(x="number")
    n_rows = 2 * ROWS_PER_GROUP + 1000
    values = pa.array(np.arange(n_rows, dtype=float))
    with (
        handoff.commit() as commit,
        commit.open_parquet(tmp_path / "raw.parquet", pa.schema({"x": "f8", "y": "f8"})) as sink,
    ):
        sink.write(pa.table({"x": values, "y": values}))
        sink.close(Lineage("load", {}, {}, ""))
    with handoff.open_parquet(tmp_path / "raw.parquet", "") as source:
        assert source.num_groups == 3
        found = prepare(contract, source)
    for name in ("row_id", "number__x", "target"):
        np.testing.assert_array_equal(found[name].to_numpy(), np.arange(n_rows))
    whole = TableGroups(pa.table({"x": values, "y": values}))
    assert found["split"].equals(prepare(contract, whole)["split"])


def test_error_in_one_row_group_ends_the_work() -> None:
    class Broken(TableGroups):
        def read_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
            if number == 3:
                raise handoff.PipelineError("group 3 is damaged")
            return super().read_group(number, columns)

    groups = Broken(pa.table({"x": list(range(100))}), size=5)
    with pytest.raises(handoff.PipelineError, match="group 3"):
        list(map_groups(groups, ["x"], lambda start, table: start, "reading", threads=4))
    assert list(map_groups(TableGroups(groups.table, 30), ["x"], lambda start, table: start, "", 2)) == [0, 30, 60, 90]
