"""bench_models.py, as far as that needs no clock, no network and no other tools."""

import json
import re
import sys
from dataclasses import asdict, replace
from importlib import import_module
from math import log, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, SAMPLE, run_script

SCRIPT = "ci_cd/benchmarks/bench_models.py"
sys.path.append(str(REPOSITORY / "ci_cd/benchmarks"))
bench = import_module("bench_models")
processes = import_module("processes")
report = import_module("model_report")
standings = import_module("model_standings")
tables = import_module("model_tables")
tools = import_module("model_tools")

FIRST = standings.Result(
    table="houses:price",
    source="abc",
    seed=1,
    tool="ours",
    code="def",
    budget_s=30,
    task="regression",
    n_train=80,
    n_test=20,
    version="1.0",
    error=100.0,
    fit_s=31.0,
    predict_s=0.1,
)


def write_table(folder: Path, task: str, train: pd.DataFrame, test: pd.DataFrame) -> None:
    """Write what model_tools.py reads."""
    train.to_parquet(folder / "train.parquet", index=False)
    test.to_parquet(folder / "test.parquet", index=False)
    (folder / "table.json").write_text(json.dumps({"task": task, "target": "y"}), encoding="utf-8")


# The score


def test_regression_is_scored_by_the_root_of_the_mean_square():
    answers = pd.DataFrame({"prediction": [1.0, 2.0, 6.0]})
    assert standings.score_answers("regression", pd.Series([1.0, 4.0, 5.0]), answers) == (
        pytest.approx(sqrt(5 / 3)),
        None,
    )


def test_two_classes_are_scored_by_the_pairs_in_the_wrong_order():
    y = pd.Series(["no", "yes", "no", "yes"])
    answers = pd.DataFrame({"yes": [0.1, 0.9, 0.4, 0.3], "no": [0.9, 0.1, 0.6, 0.7]})  # one pair of four: 0.3 < 0.4
    assert standings.score_answers("binary", y, answers) == (pytest.approx(0.25), 0.75)


def test_more_classes_are_scored_by_log_loss_whatever_the_order_of_the_columns():
    answers = pd.DataFrame({"c": [0.25, 0.5], "a": [0.5, 0.25], "b": [0.25, 0.25]})
    error, accuracy = standings.score_answers("multiclass", pd.Series(["a", "b"]), answers)
    assert error == pytest.approx(-(log(0.5) + log(0.25)) / 2)
    assert accuracy == 0.5


def test_an_answer_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="no finite number"):
        standings.score_answers("regression", pd.Series([1.0]), pd.DataFrame({"prediction": [np.nan]}))


# The standings


def test_equals_share_the_mean_of_their_ranks():
    assert standings.rank_tools({"a": 2.0, "b": 1.0, "c": 2.0, "d": 3.0}) == {"a": 2.5, "b": 1.0, "c": 2.5, "d": 4.0}


def test_standings_are_those_of_the_mean_errors():
    errors = {"ours": (90.0, 110.0), "flaml": (105.0, 105.0), "hgb": (80.0, 180.0)}
    results = [
        replace(FIRST, tool=tool, seed=seed, error=error)
        for tool, some in errors.items()
        for seed, error in enumerate(some)
    ]
    found = standings.compare_on_table(results)
    assert {tool: standing.rank for tool, standing in found.items()} == {"ours": 1, "flaml": 2, "hgb": 3}
    assert [found[tool].regret for tool in errors] == pytest.approx([0.0, 0.05, 0.3])
    assert found["ours"].spread == pytest.approx(sqrt(200))


def test_who_takes_too_long_has_no_rank_in_the_budget():
    slow = replace(FIRST, tool="autogluon", error=90.0, fit_s=37.6)
    found = standings.compare_on_table([FIRST, slow])
    assert (found["autogluon"].rank, found["autogluon"].rank_in_budget, found["autogluon"].is_over) == (1, None, True)
    assert (found["ours"].rank, found["ours"].rank_in_budget, found["ours"].is_over) == (2, 1, False)


def test_who_failed_once_has_no_standing():
    failed = replace(FIRST, tool="flaml", seed=2, error=None, note="exit code 1: no memory")
    found = standings.compare_on_table([FIRST, replace(FIRST, tool="flaml", error=1.0), failed])
    assert list(found) == ["ours"]


def test_mean_ratio_is_the_geometric_one_over_the_tables():
    other = replace(FIRST, table="cars:price", error=50.0)
    results = [FIRST, other, replace(FIRST, tool="flaml", error=400.0), replace(other, tool="flaml", error=50.0)]
    assert standings.find_mean_ratio(results, "flaml") == pytest.approx(0.5)
    assert standings.find_mean_ratio(results, "autogluon") is None


def test_errors_of_a_classification_that_nobody_can_tell_apart_have_the_ratio_one():
    assert standings.divide_errors(0.0, 0.0005, "binary") == 1
    assert standings.divide_errors(0.002, 0.0, "multiclass") == pytest.approx(2)
    assert standings.divide_errors(0.0002, 0.0001, "regression") == pytest.approx(2)


# The page


def test_page_holds_every_tool_and_marks_the_best_and_the_slow():
    best = replace(FIRST, tool="autogluon", version="1.6.3", error=98.0, fit_s=40.0)
    failed = replace(FIRST, tool="flaml", error=None, note="stopped after 450 s", others=0.5)
    page = report.format_page([FIRST, best, failed], "--seeds 1")
    assert "| `houses:price` | RMSE | 100 | failed | **98** † | 2.0% |" in page
    assert "| ours | 2.00 | 1.00 | 2.0% | 2.0% |  | 31.0 s | 31.0 s |" in page
    assert "| AutoGluon medium | 1.00 | † | 0.0% | 0.0% | 1.020 | 40.0 s | 40.0 s |" in page
    assert "FLAML, seed 1: failed, stopped after 450 s." in page
    assert "bench_models.py --seeds 1`" in page
    assert "others kept 0.50 cores busy" in page


@pytest.mark.parametrize(("error", "text"), [(44418.2, "44,418"), (302.716, "302.7"), (0.069187, "0.06919")])
def test_errors_have_four_digits_that_tell_something(error, text):
    assert report.format_error(error) == text


# What a tool gets


def test_tools_get_categories_and_parts_of_dates_where_they_do_not_take_them_as_they_are(tmp_path):
    dates = pd.to_datetime(["2024-02-29 13:45", "2024-03-01 00:00", None])
    train = pd.DataFrame(
        {"a[1]": ["x", "y", None], "day": dates, "is": [True, None, False], "n": [1, 2, 3], "y": [1.0] * 3}
    )
    test = train.assign(**{"a[1]": ["y", "new", "x"]})
    write_table(tmp_path, "regression", train, test)
    X, y, X_test = tools.read_rows(tmp_path, "lightgbm", "y")
    parts = [f"f1_{part}" for part in ("year", "month", "day", "day_of_week", "hour", "minute")]
    assert list(X.columns) == ["f0", "f2", "f3", *parts]
    assert X[parts].iloc[0].tolist() == [2024, 2, 29, 3, 13, 45]
    assert X[parts].iloc[2].isna().all()
    assert X["f0"].cat.codes.tolist() == [0, 1, -1]
    assert X_test["f0"].cat.codes.tolist() == [1, -1, 0]
    assert X["f2"].fillna(-1).tolist() == [1, -1, 0]
    assert y.tolist() == [1.0] * 3
    assert tools.read_rows(tmp_path, "flaml", "y")[0]["f1"].tolist()[0] == dates[0]
    assert tools.read_rows(tmp_path, "autogluon", "y")[0]["f0"].tolist()[:2] == ["x", "y"]
    assert list(tools.read_rows(tmp_path, "ours", "y")[0].columns) == ["a[1]", "day", "is", "n"]


def test_large_categories_become_numbers_and_missing_stays_missing():
    levels = [f"{number:03}" for number in range(256)]
    X = pd.DataFrame({"large": pd.Categorical([None, *levels]), "small": pd.Categorical([None, *(["a"] * 256)])})
    capped = tools.cap_levels(X)
    assert np.isnan(capped["large"][0])
    assert capped["large"].tolist()[1:] == list(range(256))
    assert capped["small"].dtype == "category"


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_a_tool_answers_the_test_rows_in_a_process_of_its_own(tmp_path, task):
    X = pd.DataFrame({"n": np.arange(60.0), "c": ["a", "b", "c"] * 20})
    y = X["n"] * 2 if task == "regression" else X["c"].map({"a": 7, "b": 8, "c": 9})
    write_table(tmp_path, task, X.assign(y=y), X.assign(y=y))
    flags = ["--tool", "hgb", "--folder", tmp_path, "--budget-s", 1, "--seed", 0]
    done = run_script("ci_cd/benchmarks/model_tools.py", flags)
    assert (done.returncode, done.stderr) == (0, "")
    answers = pd.read_parquet(tmp_path / "predictions.parquet")
    assert list(answers.columns) == (["prediction"] if task == "regression" else ["7", "8", "9"])
    assert len(answers) == 60
    run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert sorted(run) == ["fit_s", "predict_s", "version"]


# The race


def test_rows_are_those_of_our_split(tmp_path):
    about = tables.split_table(tables.Table(SAMPLE, "species"), 7, tmp_path)
    train, test = (pd.read_parquet(tmp_path / f"{side}.parquet") for side in ("train", "test"))
    assert about == {"task": "multiclass", "n_train": len(train), "n_test": len(test)}
    sides = pd.read_parquet(tmp_path / "root/data/processed.parquet").set_index("row_id")["split"]
    raw = pd.read_parquet(tmp_path / "root/data/raw.parquet")
    for side, rows in (("train", train), ("test", test)):
        same = raw.loc[sides.index[sides == side], rows.columns].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, same, check_dtype=False)  # integers are floats where one is missing


def test_what_is_known_is_not_run_again_and_what_failed_is(tmp_path):
    done = replace(FIRST, table="sample:species", source=tables.digest_file(SAMPLE), seed=42)
    done = replace(done, code=bench.digest_tool("flaml"), tool="flaml")
    failed = replace(done, tool="hgb", error=None, note="no memory")
    lines = [json.dumps(asdict(result)) for result in (done, failed)]
    (tmp_path / "results.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert list(bench.read_results(tmp_path / "results.jsonl").values()) == [done]
    args = bench.parse_args(["--data", f"{SAMPLE}:species", "--tools", "flaml", "--folder", str(tmp_path)])
    assert bench.run_split(args.tables[0], 42, args, {}) == [done]


def test_a_command_that_fails_says_its_last_line(tmp_path):
    command = [sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"]
    with pytest.raises(processes.BenchError, match="exit code 3: why"):
        processes.run_bounded(command, tmp_path, 60)


def test_a_command_that_takes_too_long_is_stopped(tmp_path):
    with pytest.raises(processes.BenchError, match="stopped after 0 s"):
        processes.run_bounded([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 0.2)


def test_others_are_what_works_and_is_not_ours():
    assert processes.find_others((100.0, 10.0), (160.0, 40.0), 20.0) == pytest.approx(1.5)
    assert processes.find_others((100.0, 10.0), (129.9, 40.0), 20.0) == 0
    assert processes.find_others(None, None, 20.0) is None


def test_datasets_chooses_among_given_and_packaged_tables():
    args = bench.parse_args(["--data", f"{SAMPLE}:species", "--datasets", "sample,diamonds"])
    assert [table.name for table in args.tables] == ["sample:species"]
    assert args.packaged == ["diamonds"]
    assert bench.describe_flags(args) == (
        "--data sample.csv:species --datasets sample,diamonds --seeds 42,43,44 --budget-s 30"
    )


def test_bench_models_help_names_its_flags():
    done = run_script(SCRIPT, ["--help"])
    assert (done.returncode, done.stderr) == (0, "")
    flags = re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE)
    assert flags == ["--data", "--datasets", "--seeds", "--tools", "--budget-s", "--folder", "--page"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "houses.csv"], "--data: expects FILE:TARGET, got 'houses.csv'"),
        (["--data", "no.csv:price"], "--data: no.csv does not exist"),
        (["--datasets", "houses"], "--datasets: expects some of diamonds, flights, got houses"),
        (["--tools", "ours,spark"], "--tools: expects some of ours, flaml, .*, got spark"),
        (["--seeds", "a"], "--seeds: expects numbers with commas between, got 'a'"),
        (["--budget-s", "0"], "--budget-s: expects more than 0, got 0"),
    ],
)
def test_bench_models_refuses_what_it_cannot_run(flags, message):
    done = run_script(SCRIPT, flags)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
