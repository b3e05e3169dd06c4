"""Signs of leaks: found where they are planted, and none where there are none."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import RunStage
from small_tables import TableGroups

from data_ingestion.handoff import Workspace
from data_ingestion.leaks import Finding, find_duplicates, find_leaks
from data_ingestion.scan import scan_rows
from data_ingestion.schema import Column, Contract, Role, Task
from data_ingestion.splitter import SIDES, SplitRequest, plan_split

N_ROWS = 400


def make_contract(table: pd.DataFrame, task: Task, **roles: Role) -> Contract:
    def describe(name: str) -> Column:
        role = "target" if name == "y" else roles.get(name, "feature")
        kind = "category" if table[name].dtype == "str" else "number"
        kind = "integer" if pd.api.types.is_integer_dtype(table[name].dtype) else kind
        kind = "datetime" if pd.api.types.is_datetime64_any_dtype(table[name].dtype) else kind
        return Column(kind=kind, role=role)

    columns = {name: describe(name) for name in table.columns}
    return Contract(source="made.csv", target="y", task=task, columns=columns)


def audit(table: pd.DataFrame, task: Task = "regression", **roles: Role) -> list[Finding]:
    return find_leaks(table, make_contract(table, task, **roles), seed=0)


@pytest.fixture
def honest() -> pd.DataFrame:
    """Features that explain a good part of the target, with noise that no leak would leave."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, N_ROWS))
    group = rng.choice(["u", "v", "w"], N_ROWS)
    y = 3 * a + b + pd.Series(group).map({"u": 0, "v": 1, "w": 2}) + rng.normal(size=N_ROWS)
    return pd.DataFrame({"a": a, "b": b, "group": pd.Series(group, dtype="str"), "y": y})


def test_honest_features_raise_no_alarm(honest: pd.DataFrame) -> None:
    assert audit(honest) == []
    classes = honest.assign(y=pd.Series(np.where(honest["y"] > 1, "yes", "no"), dtype="str"))
    assert audit(classes, "binary") == []


def test_feature_that_is_the_target_in_other_units_is_found(honest: pd.DataFrame) -> None:
    (finding,) = audit(honest.assign(fahrenheit=honest["y"] * 1.8 + 32))
    assert (finding.kind, finding.columns) == ("predicts_alone", ["fahrenheit"])
    assert finding.figure > 0.99
    assert "role: ignored" in finding.action


def test_feature_that_gives_the_class_away_is_found(honest: pd.DataFrame) -> None:
    label = pd.Series(np.where(honest["y"] > 1, "yes", "no"), dtype="str")
    (finding,) = audit(honest.assign(y=label, cancelled_on=np.where(label == "yes", 7.0, 0.0)), "binary")
    assert (finding.kind, finding.columns, finding.figure) == ("predicts_alone", ["cancelled_on"], 1.0)


def test_feature_that_is_there_only_when_the_event_was_is_found(honest: pd.DataFrame) -> None:
    label = pd.Series(np.where(honest["y"] > 1, "yes", "no"), dtype="str")
    (finding,) = audit(honest.assign(y=label, refund=np.where(label == "yes", 1.0, np.nan)), "binary")
    assert (finding.kind, finding.columns, finding.figure) == ("predicts_alone", ["refund"], 1.0)


def test_target_that_is_a_sum_of_features_is_found_with_its_terms_alone(honest: pd.DataFrame) -> None:
    rng = np.random.default_rng(1)
    parts = {name: rng.exponential(scale, N_ROWS) for name, scale in (("fare", 10), ("tip", 3), ("tolls", 3))}
    (finding,) = audit(honest.assign(**parts, y=sum(parts.values())))
    assert finding.kind == "function_of_target"
    assert sorted(finding.columns) == ["fare", "tip", "tolls"]


def test_target_mean_made_before_the_split_is_found(honest: pd.DataFrame) -> None:
    (finding,) = audit(honest.assign(mean=honest.groupby("group")["y"].transform("mean")))
    assert (finding.kind, finding.columns) == ("encoded_target", ["mean"])


def test_date_later_than_the_row_is_found(honest: pd.DataFrame) -> None:
    time = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(N_ROWS), unit="h")
    late = pd.Series(time).where(np.arange(N_ROWS) % 4 > 0, pd.Timestamp("2030-01-01"))
    (finding,) = audit(honest.assign(time=time, closed=late), time="time")
    assert (finding.kind, finding.columns, finding.figure) == ("later_than_target", ["closed"], 0.25)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ticket", pd.Series([f"T{i * 7919 % N_ROWS:05}" for i in range(N_ROWS)], dtype="str")),
        ("number", pd.Series(range(1000, 1000 + N_ROWS))),
        ("customer_id", pd.Series(np.random.default_rng(2).permutation(N_ROWS))),
    ],
)
def test_id_among_the_features_is_found(honest: pd.DataFrame, name: str, values: pd.Series) -> None:
    (finding,) = audit(honest.assign(**{name: values}))
    assert (finding.kind, finding.columns, finding.figure) == ("id_as_feature", [name], 1.0)
    assert "role: id" in finding.action


def test_measurement_that_differs_in_every_row_is_no_id(honest: pd.DataFrame) -> None:
    weighed = pd.Series(np.random.default_rng(2).permutation(N_ROWS) * 13)
    assert audit(honest.assign(weight_g=weighed, width=weighed * 1.5, humid=weighed)) == []


def test_column_without_a_value_raises_no_alarm(honest: pd.DataFrame) -> None:
    assert audit(honest.assign(empty=np.nan, never=pd.Series([pd.NaT] * N_ROWS))) == []


def test_test_rows_that_stand_among_the_train_rows_are_counted() -> None:
    contents = np.array([1, 2, 3, 2, 4, 9, 9], dtype=np.uint64)
    sides = np.array([SIDES.index(s) for s in ("train", "train", "train", "test", "test", "test", "validation")])
    (finding,) = find_duplicates(contents, sides)
    assert (finding.kind, finding.figure) == ("duplicate_rows", 1 / 3)
    assert find_duplicates(contents[:3], sides[:3]) == []


@pytest.mark.parametrize(("role", "share"), [("id", 1.0), ("ignored", None)])
def test_duplicates_across_the_split_are_counted_over_all_rows(role: Role, share: float | None) -> None:
    """By id, two rows that are equal but for it stand where their ids do; by content they stand together."""
    contract = make_contract(pd.DataFrame({"a": [0.5], "key": ["x"], "y": [1.0]}), "regression", key=role)
    rows = pa.table({"a": [0.5] * 200, "key": [f"k{i}" for i in range(200)], "y": [1.0] * 200})
    if share is None:
        rows = rows.set_column(0, "a", pa.array(np.arange(200.0) // 2))
    groups = TableGroups(rows, 30)
    scan, _ = scan_rows(groups, contract, plan_split(groups, contract, SplitRequest()))
    assert [finding.figure for finding in find_duplicates(scan.contents, scan.content_sides)] == (
        [share] if share else []
    )


def test_strict_stops_and_writes_nothing(tmp_path: Path, honest: pd.DataFrame, run_stage: RunStage) -> None:
    source = tmp_path / "leaky.csv"
    honest.assign(twice=honest["y"] * 2).to_csv(source, index=False)
    assert run_stage("load", tmp_path, "--source", source, "--target", "y").returncode == 0

    strict = run_stage("preprocess", tmp_path, "--strict")
    assert strict.returncode == 2
    assert strict.stderr.startswith('error: --strict stops at a sign of a leak: "twice" alone predicts "y"')
    assert not Workspace(tmp_path).processed.exists()

    done = run_stage("preprocess", tmp_path)
    assert 'leak? "twice" alone predicts "y" with R²' in done.stdout
    written = json.loads(Workspace(tmp_path).leaks.read_text(encoding="utf-8"))
    assert [finding["columns"] for finding in written["findings"]] == [["twice"]]
