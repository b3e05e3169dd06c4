"""What the tests share: the folders on the path, stages as processes, and one finished run to copy from."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "data" / "sample.csv"
STAGES = {
    "load": "data_ingestion/data_loader.py",
    "preprocess": "data_ingestion/data_preprocessor.py",
    "train": "models/train_model.py",
    "evaluate": "evaluation/evaluate_model.py",
    "track": "mlflow/mlflow_setup.py",
}
# The tests' models are small: a second thread only waits for the first, longest on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "mlflow")]

RunStage = Callable[..., "subprocess.CompletedProcess[str]"]


def clean_environment() -> dict[str, str]:
    """Return the environment without what would steer the pipeline from outside the test."""
    steering = ("PIPELINE_", "MLFLOW_", "MODEL_DIR", "API_KEYS", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(steering)}


def run_script(script: str, flags: Sequence[object] = (), **options: object) -> "subprocess.CompletedProcess[str]":
    """Run a script of the repository as a process of its own."""
    environment = clean_environment() | options.pop("env", {})  # type: ignore[call-overload]
    return subprocess.run(
        [sys.executable, str(REPOSITORY / script), *map(str, flags)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=180,
        env=environment,
        check=False,
        **options,  # type: ignore[call-overload]
    )


@pytest.fixture(autouse=True)
def _no_steering(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)


@pytest.fixture
def run_stage() -> RunStage:
    """Run a stage by its short name as a process: run_stage("load", root, "--source", path)."""

    def run(stage: str, root: Path, *flags: object, **options: object) -> "subprocess.CompletedProcess[str]":
        return run_script(STAGES[stage], ["--root", root, *flags], **options)

    return run


@pytest.fixture
def call_stage(capsys: pytest.CaptureFixture[str]) -> RunStage:
    """Run a stage inside this process, where a process of its own would add nothing but time."""
    from data_ingestion import handoff

    def call(stage: str, root: Path, *flags: object) -> "subprocess.CompletedProcess[str]":
        module = importlib.import_module(STAGES[stage].removesuffix(".py").replace("/", "."))
        argv = ["--root", str(root), *map(str, flags)]
        capsys.readouterr()
        code = handoff.run_stage(lambda: module.main(argv))
        return subprocess.CompletedProcess(argv, code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run of the first four stages on the sample. Read it; copy it before changing anything."""
    root = tmp_path_factory.mktemp("finished") / "root"
    flags = {"train": ["--trials", 12], "evaluate": ["--resamples", 100]}  # what fits into the budget of a fast machine
    for stage in ("load", "preprocess", "train", "evaluate"):
        done = run_script(STAGES[stage], ["--root", root, *flags.get(stage, [])])
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to break."""
    root = tmp_path / "root"
    shutil.copytree(finished_run, root)
    return root
