"""kill -9, a full disk and a failed rename at every write of every stage: each file stays whole, and a re-run mends."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, STAGES, clean_environment
from small_runs import assert_refused, build_columns, snapshot, write_csv

from data_ingestion import handoff

posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and signals, which Windows has not")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
FLAGS = {
    "load": ["--source", "data/old.csv", "--target", "target"],
    "preprocess": [],
    "train": ["--folds", "2", "--trials", "2"],
    "evaluate": ["--resamples", "100"],
}
# The same stage with flags that change what it writes.
CHANGED = {
    "load": ["--source", "data/new.csv", "--target", "target", "--seed", "1"],
    "preprocess": ["--seed", "1"],
    "train": ["--folds", "3", "--trials", "2", "--seed", "1"],
    "evaluate": ["--resamples", "120", "--seed", "1"],
}


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run a stage in a process that meets a fault; see fault_server.py."""
    log = tmp_path_factory.mktemp("log") / "calls"
    command = [sys.executable, str(Path(__file__).with_name("fault_server.py"))]
    environment = clean_environment() | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:

        def run(stage: str, root: Path, *flags: str, **fault: object) -> "subprocess.CompletedProcess[str]":
            log.unlink(missing_ok=True)
            request = {"stage": stage, "argv": ["--root", str(root), *flags], "log": str(log), **fault}
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            answer = json.loads(server.stdout.readline())
            calls = log.read_text(encoding="utf-8") if log.exists() else ""
            return subprocess.CompletedProcess(request["argv"], answer["code"], calls, answer["stderr"])

        yield run
        server.stdin.close()


@pytest.fixture(scope="module")
def finished(ask: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which all stages have run."""
    root = tmp_path_factory.mktemp("finished")
    (root / "data").mkdir()
    a, b = ([i * step % 97 / 97 for i in range(80)] for step in (37, 61))
    target = [10 * ((x > 0.5) != (y > 0.5)) + i % 7 / 10 for i, (x, y) in enumerate(zip(a, b, strict=True))]
    write_csv(root / "data" / "old.csv", {"a": a, "b": b, "target": ["NA", *target[1:]]})
    write_csv(root / "data" / "new.csv", {"a": a, "b": target, "target": [*b[:-2], "NA", "NA"]})
    for stage, flags in FLAGS.items():
        done = ask(stage, root, *flags)
        assert done.returncode == 0, done.stderr
    return root


def copy_to(source: Path, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(source, root)


def visible(root: Path) -> dict[str, bytes]:
    return {name: content for name, content in snapshot(root).items() if not Path(name).name.startswith(".")}


def leftovers(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*.tmp")]


@posix
@pytest.mark.parametrize("fault", ["kill", "error"])
@pytest.mark.parametrize("stage", ["first-load", *FLAGS])
def test_every_write_of_every_stage_may_fail(ask: Run, finished: Path, tmp_path: Path, stage: str, fault: str) -> None:
    root, start = tmp_path / "root", finished
    if stage == "first-load":
        stage, start = "load", tmp_path / "start"
        (start / "data").mkdir(parents=True)
        shutil.copy(finished / "data" / "new.csv", start / "data")
    flags = CHANGED[stage]
    copy_to(start, root)
    old, undisturbed = visible(root), ask(stage, root, *flags)
    assert undisturbed.returncode == 0, undisturbed.stderr
    new, calls = visible(root), undisturbed.stdout.splitlines()
    changed = [name for name in new if old.get(name) != new[name]]
    assert len(changed) >= {"load": 3, "preprocess": 2, "train": 3, "evaluate": 4}[stage]
    first_rename = next(at for at, call in enumerate(calls, 1) if call.startswith("rename"))

    for at in range(1, len(calls) + 1):
        copy_to(start, root)
        done = ask(stage, root, *flags, fault=fault, at=at)
        place = f"{fault} at {at}, {calls[at - 1]}"
        if fault == "kill":
            assert done.returncode == -9, place
        else:
            assert_refused(done, "cannot write", str(root), code=74)
            assert leftovers(root) == [], place
        found = visible(root)
        for name in {*old, *new}:
            assert found.get(name) in (old.get(name), new.get(name)), f"{name} is torn: {place}"
        if at <= first_rename:
            assert found == old, place
        if fault == "error":  # the same files as after a kill at this place
            continue
        done = ask(stage, root, *flags, "--if-changed")
        assert done.returncode == 0, f"{place}: {done.stderr}"
        assert visible(root) == new, place
        assert leftovers(root) == [], place


@posix
@pytest.mark.parametrize("stage", FLAGS)
def test_full_disk_tears_no_file(ask: Run, finished: Path, tmp_path: Path, stage: str) -> None:
    """The kernel cuts every file at a length, from the lock's note to the last output."""
    root = tmp_path / "root"
    outcomes = []
    for limit in (0, 1, 64, 500, 3_000, 1_000_000):
        copy_to(finished, root)
        old = visible(root)
        done = ask(stage, root, *CHANGED[stage], limit=limit)
        outcomes.append(done.returncode)
        if done.returncode:
            assert_refused(done, "the disk is full", "bytes free", "Every earlier file is still whole", code=74)
            assert visible(root) == old
            assert leftovers(root) == []
    assert outcomes[:4] == [74] * 4
    assert outcomes[-1] == 0


@posix
@pytest.mark.parametrize("stage", FLAGS)
def test_files_are_on_the_disk_before_the_first_appears_and_folders_before_success(
    ask: Run, finished: Path, tmp_path: Path, stage: str
) -> None:
    root = tmp_path / "root"
    copy_to(finished, root)
    calls = [call.split()[0:2] for call in ask(stage, root, *CHANGED[stage]).stdout.splitlines()]
    names = [" ".join(call) if call[0] == "sync" else "rename" for call in calls]
    renames = names.count("rename")
    folders = len(names) - 2 * renames
    assert names == ["sync file"] * renames + ["rename"] * renames + ["sync folder"] * folders
    assert folders >= 1


@posix
@pytest.mark.parametrize("last", ["models/saved_model.json", "models/metrics.json"])
def test_next_stage_notices_a_half_published_model(ask: Run, finished: Path, tmp_path: Path, last: str) -> None:
    """Killed just before `last` was renamed: what stands beside it is of another model."""
    root = tmp_path / "root"
    copy_to(finished, root)
    calls = ask("train", root, *CHANGED["train"]).stdout.splitlines()
    copy_to(finished, root)
    ask("train", root, *CHANGED["train"], fault="kill", at=1 + calls.index(f"rename {Path(last).name}"))
    assert_refused(ask("evaluate", root, *FLAGS["evaluate"]), "python models/train_model.py")


# Folders and locks


@pytest.mark.parametrize("folder", ["data", "models", "evaluation", "mlflow"])
def test_folder_that_cannot_be_is_said_before_any_work(call_stage, tmp_path: Path, folder: str) -> None:
    source = write_csv(tmp_path / "my.csv", build_columns("regression", 40))
    root = tmp_path / "root"
    root.mkdir()
    (root / folder).write_text("a file where the folder should be", encoding="utf-8")
    done = call_stage("load", root, "--source", source, "--target", "target")
    assert_refused(done, "cannot write", f"Make {root / folder}", code=74)
    assert not (root / "data" / "raw.parquet").exists()


@posix
def list_words_without_rights() -> list[str]:
    """Return what to put before a command so that permissions count for it, even for root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("permissions mean nothing to root, and there is no setpriv to give its rights away")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@posix
@pytest.mark.parametrize("folder", ["data", "models"])
def test_read_only_folder_is_said_before_training(run_copy: Path, folder: str) -> None:
    command = [*list_words_without_rights(), sys.executable, str(REPOSITORY / STAGES["train"]), "--root", str(run_copy)]
    before = snapshot(run_copy)
    (run_copy / folder).chmod(0o555)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment(), check=False)
    finally:
        (run_copy / folder).chmod(0o755)
    assert_refused(done, "cannot write", "Permission denied", str(run_copy / folder), code=74)
    assert snapshot(run_copy) == before


def test_second_run_in_the_same_root_is_told_who_holds_it(run_stage, run_copy: Path) -> None:
    with handoff.open_workspace(run_copy):
        before = snapshot(run_copy)
        done = run_stage("load", run_copy)
        assert_refused(done, str(run_copy), f"is in use: pid {os.getpid()} has been running since 20", code=75)
        assert {**snapshot(run_copy), "data/.lock": b""} == {**before, "data/.lock": b""}
    assert run_stage("load", run_copy).returncode == 0


@posix
def test_lock_of_a_killed_run_holds_nobody_up(ask: Run, finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    copy_to(finished, root)
    assert ask("load", root, *CHANGED["load"], fault="kill", at=1).returncode == -9
    assert (root / "data" / ".lock.holder").exists()
    assert ask("load", root, *CHANGED["load"]).returncode == 0


def test_only_own_leftovers_are_swept(call_stage, run_copy: Path) -> None:
    kept = [run_copy / "data" / name for name in ("mine.tmp", ".notes.tmp", "my.csv.1.tmp")]
    for path in kept:
        path.write_text("mine", encoding="utf-8")
    (run_copy / "data" / ".raw.parquet.4711.tmp").write_text("torn", encoding="utf-8")
    assert call_stage("load", run_copy, "--if-changed").returncode == 0
    assert all(path.exists() for path in kept)
    assert not (run_copy / "data" / ".raw.parquet.4711.tmp").exists()
