"""The whole pipeline on a file with a bit of everything, as processes in odd places; its flags and parameters."""

import json
import subprocess
import sys
from pathlib import Path

import joblib
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, SAMPLE, STAGES, clean_environment
from small_runs import PIPELINE, QUICK, assert_refused, build_columns, run_stages, snapshot, without_times, write_csv

ROWS = 800


def build_customers(n_rows: int = ROWS) -> dict[str, list[object]]:
    """Ids, dates, a category of 80 levels, gaps, booleans in words; `spend` follows from them, `churned` from it."""
    cities = [f"city {i * 7 % 80:02}" for i in range(n_rows)]
    plans = [("basic", "plus", "pro")[i * i % 3] for i in range(n_rows)]
    income = [round(1000 + i * 613 % 977 * 3.7, 2) for i in range(n_rows)]
    active = [("yes", "no")[i * 11 % 7 > 3] for i in range(n_rows)]
    spend = [
        round(income[i] / 50 + 40 * (plans[i] == "pro") + int(cities[i][-2:]) + 30 * (active[i] == "yes") + i % 5, 2)
        for i in range(n_rows)
    ]
    return {
        "customer_id": [f"{i:05}" for i in range(n_rows)],
        "signed up": [f"20{10 + i % 13}-{1 + i * 5 % 12:02}-{1 + i % 28:02}" for i in range(n_rows)],
        "city": list(cities),
        "plan": ["NA" if i % 41 == 0 else plan for i, plan in enumerate(plans)],
        "income": ["" if i % 19 == 0 else value for i, value in enumerate(income)],
        "visits": ["?" if i % 23 == 0 else i * 17 % 31 for i in range(n_rows)],
        "active": [word.upper() if i % 9 == 0 else word for i, word in enumerate(active)],
        "spend": ["" if i == 5 else value for i, value in enumerate(spend)],
        "churned": ["stays" if value > 120 else "leaves" for value in spend],
    }


@pytest.fixture(scope="module")
def customers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which the pipeline ran on the customers, to predict what they spend."""
    root = tmp_path_factory.mktemp("customers") / "root"
    (root / "data").mkdir(parents=True)
    columns = build_customers()
    del columns["churned"]
    run_stages(root, write_csv(root / "data" / "customers.csv", columns), "spend")
    return root


def read_metrics(root: Path) -> dict[str, dict[str, object]]:
    return json.loads((root / "models" / "metrics.json").read_bytes())


def test_every_kind_of_column_is_found_and_encoded(customers: Path) -> None:
    contract = yaml.safe_load((customers / "data" / "schema.yaml").read_text(encoding="utf-8"))
    columns = {name: (column["kind"], column["role"]) for name, column in contract["columns"].items()}
    assert columns == {
        "customer_id": ("category", "ignored"),
        "signed up": ("datetime", "feature"),
        "city": ("category", "feature"),
        "plan": ("category", "feature"),
        "income": ("number", "feature"),
        "visits": ("integer", "feature"),
        "active": ("boolean", "feature"),
        "spend": ("number", "target"),
    }
    processed = pd.read_parquet(customers / "data" / "processed.parquet")
    assert {
        "mean__city",
        "category__plan",
        "number__income",
        "number__missingindicator_income",
        "number__missingindicator_visits",
        "number__active",
        "date__signed up_month",
    } <= set(processed.columns)
    assert len(processed) == ROWS - 1
    assert processed.notna().all(axis=None)
    assert processed["row_id"].tolist() == list(range(ROWS - 1))


def test_regression_finds_what_the_target_follows_from(customers: Path) -> None:
    metrics = read_metrics(customers)
    assert (metrics["task"], metrics["rows"]["rejected"]) == ("regression", 1)
    assert metrics["rows"]["train"] + metrics["rows"]["test"] == metrics["rows"]["kept"] == ROWS - 1
    assert metrics["test"]["r2"] > 0.8
    assert metrics["test"]["parity"]["different"] == 0


def test_classification_of_the_same_customers(tmp_path: Path) -> None:
    columns = build_customers()
    del columns["spend"]
    run_stages(tmp_path / "root", write_csv(tmp_path / "customers.csv", columns), "churned")
    metrics = read_metrics(tmp_path / "root")
    assert metrics["task"] == "binary"
    assert metrics["test"]["roc_auc"] > 0.9
    assert metrics["test"]["dummy"]["roc_auc"] == 0.5


def test_processes_in_odd_places_write_the_same_bytes(run_stage, customers: Path, tmp_path: Path) -> None:
    """Another folder, a root with a blank and a letter outside ASCII, another locale, time zone and hash seed."""
    root, elsewhere = tmp_path / "mein Ordner ä", tmp_path / "elsewhere"
    (root / "data").mkdir(parents=True)
    elsewhere.mkdir()
    (root / "data" / "customers.csv").write_bytes((customers / "data" / "customers.csv").read_bytes())
    odd = {"LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    for stage in PIPELINE:
        flags = ["--source", "data/customers.csv", "--target", "spend"] if stage == "load" else QUICK.get(stage, [])
        done = run_stage(stage, root, *flags, env=odd, cwd=elsewhere)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1].startswith("wrote ")
    assert without_times(snapshot(root)) == without_times(snapshot(customers))
    assert list(elsewhere.iterdir()) == []


def test_reordered_columns_give_the_same_rows_bit_for_bit(call_stage, customers: Path, tmp_path: Path) -> None:
    """Under the contract that is there; a contract inferred anew keeps the order of the file it is inferred from."""
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    (root / "data" / "schema.yaml").write_bytes((customers / "data" / "schema.yaml").read_bytes())
    columns = pd.read_csv(customers / "data" / "customers.csv", dtype=str, keep_default_na=False)
    columns[columns.columns[::-1]].to_csv(root / "data" / "customers.csv", index=False)
    for stage in ("load", "preprocess"):
        flags = ["--source", "data/customers.csv", "--target", "spend"] if stage == "load" else []
        assert call_stage(stage, root, *flags).returncode == 0
    for name in ("raw", "processed"):
        expected, found = (pd.read_parquet(place / "data" / f"{name}.parquet") for place in (customers, root))
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_saved_model_takes_the_file_as_pandas_reads_it(customers: Path) -> None:
    frame = pd.read_csv(customers / "data" / "customers.csv").dropna(subset="spend")
    answers = joblib.load(customers / "models" / "saved_model.pkl").predict(frame)
    assert 1 - ((frame["spend"] - answers) ** 2).mean() / frame["spend"].var() > 0.8


def test_two_lines_of_a_data_scientist_work_from_the_repository(finished_run: Path) -> None:
    code = (
        "import sys, joblib, pandas as pd\n"
        'print(joblib.load(sys.argv[1]).predict(pd.read_csv("data/sample.csv")).tolist())'
    )
    done = subprocess.run(
        [sys.executable, "-c", code, finished_run / "models" / "saved_model.pkl"],
        cwd=REPOSITORY,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers, truth = pd.Series(json.loads(done.stdout)), pd.read_csv(SAMPLE)["body_mass_g"]
    assert len(answers) == len(truth) == 344
    assert (answers - truth).abs().mean() < 300


# Flags and parameters


@pytest.mark.parametrize("stage", STAGES)
def test_help_names_every_parameter_and_imports_nothing_heavy(stage: str) -> None:
    code = (
        "import runpy, sys\n"
        "script = sys.argv.pop(1)\n"
        "try: runpy.run_path(script, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'pandas', 'sklearn', 'pyarrow', 'matplotlib', 'joblib', 'scipy'} & set(sys.modules)\n"
        "heavy |= {name for name in ('mlflow.tracking',) if name in sys.modules}\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, REPOSITORY / STAGES[stage], "--help"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("heavy: []\n")
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))[stage]
    for name in [*params, "root", "if_changed", "seed"]:
        assert f"--{name.replace('_', '-')}" in done.stdout
    assert f"python {STAGES[stage]}" in done.stdout


def write_params(root: Path, text: str) -> None:
    root.mkdir(exist_ok=True)
    (root / "params.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "fragments"),
    [
        (["--tagret", "x"], ['unknown flag "--tagret"', 'Did you mean "--target"?', "--help"]),
        (["--tagret=x"], ['unknown flag "--tagret=x"', 'Did you mean "--target"?']),
        (["data/sample.csv"], ['unknown flag "data/sample.csv"']),
        (["--targ", "x"], ['unknown flag "--targ"']),
        (["--target"], ["expected one argument"]),
        (["--min-rows", "many"], ["--min-rows", "valid integer", "got 'many'"]),
        (["--min-rows", "2"], ["--min-rows", "greater than or equal to 5", "got '2'"]),
        (["--task", "clustering"], ["--task", "'auto', 'regression' or 'classification'", "got 'clustering'"]),
    ],
)
def test_flag_that_cannot_be_is_refused(call_stage, tmp_path: Path, flags: list[str], fragments: list[str]) -> None:
    assert_refused(call_stage("load", tmp_path / "root", *flags), *fragments)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("laod: {}", ['unknown key "laod"', 'Did you mean "load"?']),
        ("load: {tagret: x}", ['unknown key "load.tagret"', 'Did you mean "target"?']),
        ("load: {root: /}", ['unknown key "load.root"']),
        ("load: {min_rows: many}", ["load.min_rows: ", "valid integer", "got 'many'"]),
        ("seed: -1", ["seed: ", "greater than or equal to 0"]),
        ("load: [target]", ["load must hold keys and values, got list"]),
        ("load: 3", ["load must hold keys and values, got int"]),
        ("- load", ["must hold blocks"]),
        ("load: {target: [", ["cannot be read as YAML", "line 1"]),
    ],
)
def test_params_file_that_cannot_be_is_refused(call_stage, tmp_path: Path, text: str, fragments: list[str]) -> None:
    write_params(tmp_path, text)
    assert_refused(call_stage("load", tmp_path), str(tmp_path / "params.yaml"), *fragments)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_flag_wins_over_environment_and_environment_over_file(
    call_stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_csv(tmp_path / "my.csv", build_columns("regression") | {"other": list(range(0, 240, 2))})

    def load(*flags: str) -> str:
        done = call_stage("load", tmp_path, "--infer", *flags)
        assert done.returncode == 0, done.stderr
        return yaml.safe_load((tmp_path / "data" / "schema.yaml").read_text(encoding="utf-8"))["target"]

    write_params(tmp_path, f"load: {{source: '{source.as_posix()}', target: width}}")
    assert load() == "width"
    monkeypatch.setenv("PIPELINE_TARGET", "other")
    assert load() == "other"
    assert load("--target", "target") == "target"
    monkeypatch.setenv("PIPELINE_MIN_ROWS", "lots")
    assert_refused(call_stage("load", tmp_path), "environment variable PIPELINE_MIN_ROWS", "got 'lots'")


def test_root_may_come_from_the_environment(run_stage, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "my.csv", build_columns("regression"))
    script = [sys.executable, REPOSITORY / STAGES["load"], "--source", source, "--target", "target"]
    environment = clean_environment() | {"PIPELINE_ROOT": str(tmp_path / "root")}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "root" / "data" / "raw.parquet").exists()


def test_parameters_travel_into_the_metrics(customers: Path) -> None:
    params = read_metrics(customers)["params"]
    assert params["load"]["target"] == "spend"
    assert (params["preprocess"]["split"], params["train"]["folds"], params["train"]["seed"]) == ("hash", 3, 42)
