"""Signs of leaks: found where they are planted, and none where there are none."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import RunStage

from data_ingestion.handoff import Workspace
from data_ingestion.leaks import Finding, find_leaks
from data_ingestion.schema import Column, Contract, Role, Task

N_ROWS = 400


def make_contract(table: pd.DataFrame, task: Task, **roles: Role) -> Contract:
    def describe(name: str) -> Column:
        role = "target" if name == "y" else roles.get(name, "feature")
        kind = "category" if table[name].dtype == "str" else "number"
        kind = "datetime" if pd.api.types.is_datetime64_any_dtype(table[name].dtype) else kind
        return Column(kind=kind, role=role)

    columns = {name: describe(name) for name in table.columns}
    return Contract(source="made.csv", target="y", task=task, columns=columns)


def audit(table: pd.DataFrame, task: Task = "regression", **roles: Role) -> list[Finding]:
    is_test = np.arange(len(table)) % 5 == 0
    return find_leaks(table, make_contract(table, task, **roles), is_test, seed=0)


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


def test_test_rows_that_stand_among_the_train_rows_are_counted(honest: pd.DataFrame) -> None:
    rows = np.arange(N_ROWS)
    repeated = honest.iloc[np.where(rows % 10 == 0, 1, rows)]  # half of the test rows become the train row 1
    (finding,) = audit(repeated.reset_index(drop=True))
    assert (finding.kind, finding.figure) == ("duplicate_rows", 0.5)


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
