"""What MLflow holds after a run, and what happens when its store is away."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import types
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import candidate_runs
import joblib
import mlflow_setup
import pandas as pd
import pytest
import run_logging
import stores
from conftest import SAMPLE, STAGES, RunStage, clean_environment, run_script

from data_ingestion.handoff import EXIT_UNAVAILABLE, PipelineError, Workspace, run_stage
from data_ingestion.schema import Column

LOADED_ELSEWHERE = """
import sys
import mlflow
import pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/body_mass_g@challenger")
table = pd.read_csv(sys.argv[2]).drop(columns="body_mass_g")
print(model.predict(table).tolist())
import data_ingestion
print(data_ingestion.__file__)
"""


@pytest.fixture(scope="module")
def tracked_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, recorded in its own store. Read it; copy it before changing anything."""
    root = tmp_path_factory.mktemp("tracked") / "root"
    shutil.copytree(finished_run, root)
    done = run_script(STAGES["track"], ["--root", root])
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def tracked_copy(tracked_run: Path, tmp_path: Path) -> Path:
    root = tmp_path / "root"
    shutil.copytree(tracked_run, root)
    return root


def track(root: Path, *flags: str) -> int:
    return run_stage(lambda: mlflow_setup.main(["--root", str(root), *flags]))


def open_client(root: Path):
    stores.configure_client()
    return stores.open_store(stores.local_uri(Workspace(root)))


def list_all_runs(client, name: str = "body_mass_g"):
    return client.search_runs([client.get_experiment_by_name(name).experiment_id])


def list_runs(client):
    """The runs of models."""
    return [run for run in list_all_runs(client) if "mlflow.parentRunId" not in run.data.tags]


def list_candidates(client, run):
    """The runs nested in a model's run, by name."""
    nested = [found for found in list_all_runs(client) if found.data.tags.get("mlflow.parentRunId") == run.info.run_id]
    assert len({found.info.run_name for found in nested}) == len(nested)
    return {found.info.run_name: found for found in nested}


def read_metrics(root: Path) -> dict[str, object]:
    return json.loads(Workspace(root).metrics.read_text(encoding="utf-8"))


def test_run_holds_parameters_figures_data_and_files(tracked_run: Path) -> None:
    client = open_client(tracked_run)
    (run,) = list_runs(client)
    metrics = read_metrics(tracked_run)

    assert run.info.status == "FINISHED"
    assert run.data.tags["complete"] == "true"
    assert run.data.tags["model_version"] == metrics["model_version"]
    assert (run.data.params["train.trials"], run.data.params["train.estimator"]) == ("12", "None")
    assert run.data.params["load.target"] == "body_mass_g"
    assert run.data.metrics["test_rmse"] == metrics["test"]["rmse"]
    assert run.data.metrics["test_r2_low"] == metrics["test"]["intervals"]["r2"][0]
    assert run.data.metrics["dummy_mae"] == metrics["test"]["dummy"]["mae"]
    assert {"cv_linear_rmse", "cv_boosting_rmse", "cv_dummy_rmse"} <= set(run.data.metrics)
    datasets = {found.tags[0].value: found.dataset for found in run.inputs.dataset_inputs}
    assert set(datasets) == {"training", "testing"}
    assert datasets["training"].digest == metrics["data"]["source_sha256"][:32]
    assert {found.path for found in client.list_artifacts(run.info.run_id)} == {
        "figures",
        "metrics.json",
        "report.html",
        "report.md",
        "saved_model.json",
        "saved_model.npz",
        "schema.yaml",
    }


def test_figures_and_verdict_of_every_kind_are_recorded(tracked_run: Path) -> None:
    (run,) = list_runs(open_client(tracked_run))
    metrics = read_metrics(tracked_run)
    assert run.data.tags["verdict"] == metrics["verdict"]["status"]
    assert run.data.metrics["train_rmse"] == metrics["test"]["train"]["rmse"]
    assert run.data.metrics["row_ms_p50"] == metrics["test"]["timing"]["row_ms"]["p50"]
    names = {found.path for found in open_client(tracked_run).list_artifacts(run.info.run_id, "figures")}
    assert {"figures/residuals.svg", "figures/permutation_importance.svg"} <= names


def test_each_candidate_is_a_run_within_the_run(tracked_run: Path) -> None:
    client = open_client(tracked_run)
    (run,) = list_runs(client)
    train = read_metrics(tracked_run)["train"]
    nested = list_candidates(client, run)
    assert set(nested) == {row["name"] for row in train["leaderboard"]}
    for row in train["leaderboard"]:
        candidate = nested[row["name"]]
        assert candidate.info.status == "FINISHED"
        assert candidate.data.metrics["cv_rmse"] == row["mean"]
        assert candidate.data.metrics["standard_error"] == row["standard_error"]
        assert "complete" not in candidate.data.tags, "or it would be taken for the run of the model"


def test_candidate_has_settings_score_times_and_size() -> None:
    row = {
        "name": "boosting 3",
        "mean": 0.85,
        "standard_error": 0.01,
        "folds": [0.84, 0.86, None],
        "fit_s": 1.5,
        "predict_us": 8.0,
        "n_trees": 300,
        "weight": None,
        "settings": {"learning_rate": 0.05, "monotone(up)": ["a"] * 200},
    }
    measured = list(candidate_runs.list_candidate_metrics(row, "roc_auc"))
    assert measured[:2] == [("cv_roc_auc", 0.85, 0), ("standard_error", 0.01, 0)]
    assert measured[2:5] == [("fit_s", 1.5, 0), ("predict_us", 8.0, 0), ("n_trees", 300.0, 0)]
    assert measured[5:] == [("fold_roc_auc", 0.84, 0), ("fold_roc_auc", 0.86, 1)]
    settings = dict(candidate_runs.list_settings(row))
    assert settings["learning_rate"] == "0.05"
    assert len(settings["monotone_up_"]) == 500


def test_model_is_registered_as_challenger_with_signature_and_example(tracked_run: Path) -> None:
    import mlflow

    client = open_client(tracked_run)
    version = client.get_model_version_by_alias("body_mass_g", "challenger")
    info = mlflow.models.get_model_info("models:/body_mass_g@challenger")

    assert version.tags["model_version"] == read_metrics(tracked_run)["model_version"]
    assert info.signature.inputs.input_names() == [n for n in pd.read_csv(SAMPLE).columns if n != "body_mass_g"]
    types = {column.name: (column.type.name, column.required) for column in info.signature.inputs}
    assert types["species"] == ("string", True)
    assert types["bill_length_mm"] == ("double", False)
    assert types["flipper_length_mm"] == ("double", False)  # integers among missing values
    assert types["year"] == ("long", True)
    assert info.saved_input_example_info is not None


def test_logged_model_predicts_the_same_without_the_repository(tracked_run: Path, tmp_path: Path) -> None:
    code = [sys.executable, "-I", "-c", LOADED_ELSEWHERE, stores.local_uri(Workspace(tracked_run)), str(SAMPLE)]
    done = subprocess.run(
        code, capture_output=True, text=True, cwd=tmp_path, env=clean_environment(), timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    predictions, loaded_from = done.stdout.splitlines()[-2:]
    pipeline = joblib.load(Workspace(tracked_run).models / "saved_model.pkl")
    assert json.loads(predictions) == pipeline.predict(pd.read_csv(SAMPLE)).tolist()
    assert Path(loaded_from).is_relative_to(tracked_run)


def test_same_model_version_makes_no_second_run(tracked_copy: Path) -> None:
    before = len(list_all_runs(open_client(tracked_copy)))
    assert track(tracked_copy) == 0
    client = open_client(tracked_copy)
    assert len(list_runs(client)) == 1
    assert len(list_all_runs(client)) == before
    assert len(client.search_model_versions("name='body_mass_g'")) == 1


def test_new_evaluation_of_the_same_model_updates_its_run(tracked_copy: Path, run_stage: RunStage) -> None:
    assert run_stage("evaluate", tracked_copy, "--resamples", 101).returncode == 0
    assert track(tracked_copy) == 0

    (run,) = list_runs(open_client(tracked_copy))
    assert run.data.tags["evaluate.resamples"] == "101"
    assert run.data.metrics["test_rmse_low"] == read_metrics(tracked_copy)["test"]["intervals"]["rmse"][0]


def test_unfinished_run_of_an_earlier_process_ends_as_killed(tracked_copy: Path) -> None:
    client = open_client(tracked_copy)
    experiment = client.get_experiment_by_name("body_mass_g").experiment_id
    mine = client.create_run(experiment, tags={run_logging.ROOT_TAG: run_logging.name_root(tracked_copy.resolve())})
    other = client.create_run(experiment, tags={run_logging.ROOT_TAG: "another root"})

    assert track(tracked_copy) == 0

    assert client.get_run(mine.info.run_id).info.status == "KILLED"
    assert client.get_run(other.info.run_id).info.status == "RUNNING"


def test_nothing_is_loaded_when_nothing_changed(tracked_run: Path) -> None:
    script = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: print('exit', end.code, 'mlflow.tracking' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, STAGES["track"], "--root", str(tracked_run), "--if-changed"],
        capture_output=True,
        text=True,
        cwd=Path(mlflow_setup.__file__).parents[1],
        env=clean_environment(),
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == ["the MLflow run is up to date with models/metrics.json", "exit 0 False"]


def test_two_first_runs_on_one_database_both_succeed(finished_run: Path, tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        shutil.copytree(finished_run, root)
    uri = f"sqlite:///{(tmp_path / 'shared.db').as_posix()}"
    done = []

    def run(root: Path) -> None:
        done.append(run_script(STAGES["track"], ["--root", root, "--tracking-uri", uri]))

    threads = [threading.Thread(target=run, args=(root,)) for root in roots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [process.returncode for process in done] == [0, 0], [process.stderr for process in done]
    found = list_all_runs(stores.open_store(uri))
    assert {run.info.status for run in found} == {"FINISHED"}


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_server_that_never_answers_costs_no_result(
    tracked_copy: Path, silent_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert track(tracked_copy, "--tracking-uri", silent_server) == 0

    out, err = capsys.readouterr()
    assert f"warning: the MLflow server {silent_server} does not answer" in err
    assert f"mlflow_setup.py --tracking-uri {silent_server} --sync" in out
    (pending,) = mlflow_setup.list_pending(Workspace(tracked_copy))
    assert read_metrics(pending) == read_metrics(tracked_copy)


def test_run_kept_while_the_server_was_away_is_sent_later(
    tracked_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = find_free_port()
    uri, workspace = f"http://127.0.0.1:{port}", Workspace(tracked_copy)
    assert track(tracked_copy, "--tracking-uri", uri) == 0
    assert track(tracked_copy, "--tracking-uri", uri, "--sync") == EXIT_UNAVAILABLE
    assert "Nothing was lost" in capsys.readouterr().err
    assert mlflow_setup.list_pending(workspace)

    with running_server(port, tmp_path / "server"):
        assert track(tracked_copy, "--tracking-uri", uri, "--sync") == 0
        (run,) = list_runs(stores.open_store(uri))
        candidates = list_candidates(stores.open_store(uri), run)
        files = {found.path for found in stores.open_store(uri).list_artifacts(run.info.run_id)}

    assert run.data.tags["complete"] == "true"
    assert run.data.metrics["test_rmse"] == read_metrics(tracked_copy)["test"]["rmse"]
    assert {"report.html", "report.md"} <= files
    assert set(candidates) == {row["name"] for row in read_metrics(tracked_copy)["train"]["leaderboard"]}
    assert not mlflow_setup.list_pending(workspace)


class running_server:  # noqa: N801
    """A real MLflow server on a port, for the length of a block."""

    def __init__(self, port: int, folder: Path) -> None:
        folder.mkdir()
        self.url = f"http://127.0.0.1:{port}/health"
        store = ["--backend-store-uri", f"sqlite:///{(folder / 'mlflow.db').as_posix()}"]
        artifacts = ["--artifacts-destination", str(folder / "artifacts")]
        self.command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
        self.command += store + artifacts
        self.folder = folder

    def __enter__(self) -> None:
        environment = clean_environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.log = (self.folder / "log").open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, env=environment, stdout=self.log, stderr=subprocess.STDOUT
        )
        for _ in range(600):
            assert self.process.poll() is None, (self.folder / "log").read_text(encoding="utf-8")
            try:
                with urllib.request.urlopen(self.url, timeout=5):
                    return
            except OSError:
                threading.Event().wait(0.2)
        raise TimeoutError((self.folder / "log").read_text(encoding="utf-8"))

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


KILLED_AT = """
import os, pathlib, runpy, signal, sys
count = int(sys.argv.pop(1))
def count_down(rename):
    def renamed(*places):
        global count
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(*places)
    return renamed
os.replace = count_down(os.replace)
pathlib.Path.replace = count_down(pathlib.Path.replace)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("away", [False, True], ids=["store answers", "server away"])
def test_kill_while_recording_loses_nothing_and_doubles_nothing(finished_run: Path, tmp_path: Path, away: bool) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished_run, root)
    uri = f"http://127.0.0.1:{find_free_port()}" if away else stores.local_uri(Workspace(root))
    script = str(Path(mlflow_setup.__file__))
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT, "1", script, "--root", str(root), "--tracking-uri", uri],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not mlflow_setup.list_pending(Workspace(root))

    assert track(root, "--tracking-uri", uri) == 0

    runs = list_runs(open_client(root))
    assert [run.info.status for run in runs if run.data.tags["complete"] == "true"] == ["FINISHED"]
    assert {run.info.status for run in list_all_runs(open_client(root))} <= {"FINISHED", "KILLED"}
    assert len(mlflow_setup.list_pending(Workspace(root))) == away
    assert not list(Workspace(root).tracking.rglob("*.tmp"))


def test_stale_metrics_are_not_recorded(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = read_metrics(run_copy)
    Workspace(run_copy).metrics.write_text(json.dumps(metrics | {"model_version": "0" * 12}), encoding="utf-8")
    assert track(run_copy) == 2
    assert "does not hold the evaluation of model" in capsys.readouterr().err


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    with pytest.raises(PipelineError, match="the library mlflow is not installed"):
        stores.configure_client()


@pytest.mark.parametrize(
    ("column", "name"),
    [
        (Column(kind="number"), "double"),
        (Column(kind="integer", nullable=False), "long"),
        (Column(kind="integer", nullable=True), "double"),
        (Column(kind="boolean", nullable=False, true_values=["True"], false_values=["False"]), "boolean"),
        (Column(kind="boolean", nullable=False, true_values=["yes"], false_values=["no"]), "string"),
        (Column(kind="datetime", nullable=False), "string"),
        (Column(kind="category"), "string"),
    ],
)
def test_signature_has_the_types_that_pandas_reads(column: Column, name: str) -> None:
    assert run_logging.name_type(column) == name


def test_challenger_follows_the_saved_model_back_to_an_earlier_version(
    tracked_copy: Path, tmp_path: Path, run_stage: RunStage
) -> None:
    first = read_metrics(tracked_copy)["model_version"]
    for name in ("models", "evaluation"):
        shutil.copytree(tracked_copy / name, tmp_path / "first" / name)
    assert run_stage("train", tracked_copy, "--trials", 2, "--folds", 3).returncode == 0
    assert run_stage("evaluate", tracked_copy, "--resamples", 100).returncode == 0
    assert track(tracked_copy) == 0
    assert read_metrics(tracked_copy)["model_version"] != first
    shutil.copytree(tmp_path / "first", tracked_copy, dirs_exist_ok=True)
    assert track(tracked_copy) == 0
    client = open_client(tracked_copy)
    assert client.get_model_version_by_alias("body_mass_g", "challenger").tags["model_version"] == first
    assert len(client.search_model_versions("name='body_mass_g'")) == 2


def test_recorded_run_is_registered_under_another_name_too(tracked_copy: Path) -> None:
    assert track(tracked_copy, "--registered-model", "penguins") == 0
    version = open_client(tracked_copy).get_model_version_by_alias("penguins", "challenger")
    assert version.tags["model_version"] == read_metrics(tracked_copy)["model_version"]


@pytest.mark.parametrize("lost", ["mlflow.db", "tracked.json"])
def test_store_or_marker_that_is_lost_is_made_again(tracked_copy: Path, lost: str) -> None:
    path = Workspace(tracked_copy).tracking / lost
    path.unlink() if lost == "mlflow.db" else path.write_text("{", encoding="utf-8")
    assert track(tracked_copy, "--if-changed") == 0
    assert [run.info.status for run in list_runs(open_client(tracked_copy))] == ["FINISHED"]


def test_figures_and_schema_of_another_model_are_left_out(tracked_copy: Path) -> None:
    workspace = Workspace(tracked_copy)
    (workspace.figures / "roc_curve.svg").write_bytes(b"of an earlier classification")
    text = workspace.schema.read_text(encoding="utf-8")
    workspace.schema.write_text(text.replace("max: 59.6", "max: 70.0"), encoding="utf-8")
    names = {path.name for path in run_logging.read_run_files(workspace).paths}
    assert "residuals.svg" in names
    assert not names & {"roc_curve.svg", "schema.yaml"}
