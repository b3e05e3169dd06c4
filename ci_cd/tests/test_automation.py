"""The Makefile, .ci/run, the workflows, the image and the lock files: everything that runs the project for somebody."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from ci_cd.check_locks import check_root

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
INPUTS = ["requirements.in", "requirements-serve.in"]
LOCKS = ["requirements.txt", "requirements-serve.txt"]


def find_tool(name):
    """Return the path of a command, from this environment first; skip the test where there is none."""
    if name in ("make", "bash") and os.name != "posix":
        pytest.skip(f"{name} is for POSIX systems here; README.md has the plain commands")
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on this machine")
    return found


def run(*command, cwd=ROOT, env=None):
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")} | (env or {})
    command = [str(word) for word in command]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False
    )


def assert_clean(result):
    assert result.returncode == 0, result.stdout + result.stderr


# Workflows


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        *(("vendor.github-workflows", path.relative_to(ROOT).as_posix()) for path in WORKFLOWS),
        ("vendor.dependabot", ".github/dependabot.yml"),
        ("vendor.gitlab-ci", "ci_cd/pipeline.yml"),
    ],
)
def test_workflow_fits_its_schema(schema, path):
    transform = ["--data-transform", "gitlab-ci"] if "gitlab" in schema else []
    assert_clean(run(find_tool("check-jsonschema"), "--builtin-schema", schema, *transform, path))


def test_zizmor_finds_nothing_in_the_workflows():
    assert_clean(run(find_tool("zizmor"), "--offline", "--no-progress", ".github"))


def test_hadolint_finds_nothing_in_the_dockerfile():
    assert_clean(run(find_tool("hadolint"), "Dockerfile"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit_with_its_version_beside_it(path):
    uses = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert uses
    assert [line for line in uses if not re.fullmatch(r"- uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_has_a_time_limit_and_may_only_read(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in workflow["jobs"].items() if "timeout-minutes" not in job] == []


@pytest.mark.parametrize("path", [".github/workflows/ci.yml", "ci_cd/pipeline.yml", ".ci/run"])
def test_every_make_target_that_ci_runs_exists(path):
    called = re.findall(r"^[\s-]*(?:run: )?make (\w+)", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    assert called
    assert set(called) <= set(list_targets())


def test_ci_run_is_valid_bash():
    assert_clean(run(find_tool("bash"), "-n", ".ci/run"))


@pytest.mark.skipif(os.name != "posix", reason="this system has no file modes")
def test_ci_run_is_executable():
    assert os.access(ROOT / ".ci/run", os.X_OK)


# The Makefile, on the repository


def list_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()


def find_line(text, part):
    lines = [line for line in text.splitlines() if part in line]
    assert len(lines) == 1, text
    return lines[0]


def test_bare_make_lists_every_target_in_a_line_each():
    result = run(find_tool("make"))
    assert_clean(result)
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["make", name] for name in list_targets()]
    assert all(len(line.split()) > 3 for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    "value", ["plain.csv", "a  b.csv", "it's.csv", 'x"y.csv', "$HOME;`id`.csv", "a#b\\c.csv", "ä*.csv"]
)
def test_make_run_hands_any_name_to_the_stages_unchanged(value):
    result = run(find_tool("make"), "-n", "run", f"DATA={value}", f"TARGET={value}", f"ROOT={value}")
    assert_clean(result)
    loader = shlex.split(find_line(result.stdout, "data_loader.py"))
    assert loader[2:] == ["--if-changed", "--root", value, "--source", value, "--target", value]
    for stage in ["data_preprocessor.py", "train_model.py", "evaluate_model.py", "mlflow_setup.py"]:
        assert shlex.split(find_line(result.stdout, stage))[2:5] == ["--if-changed", "--root", value]


def test_make_run_takes_its_settings_from_the_command_line_alone():
    noise = {"DATA": "x.csv", "TARGET": "x", "ROOT": "/x", "HOST": "x", "PORT": "1"}
    result = run(find_tool("make"), "-n", "run", "serve", env=noise)
    assert find_line(result.stdout, "data_loader.py").split()[2:] == ["--if-changed"]
    assert "--host 127.0.0.1 --port 8000" in find_line(result.stdout, "uvicorn")


def test_make_runs_the_stages_in_the_order_of_the_data():
    result = run(find_tool("make"), "-n", "run")
    stages = re.findall(r"(\w+/\w+\.py)", result.stdout)
    assert stages == [
        "data_ingestion/data_loader.py",
        "data_ingestion/data_preprocessor.py",
        "models/train_model.py",
        "evaluation/evaluate_model.py",
        "mlflow/mlflow_setup.py",
        "evaluation/summary.py",
    ]


def test_make_unsets_what_makes_imports_slow(tmp_path):
    (tmp_path / "show.mk").write_text("show:\n\t@echo [$$PYTHONDONTWRITEBYTECODE]\n")
    files = ["-f", ROOT / "Makefile", "-f", tmp_path / "show.mk"]
    result = run(find_tool("make"), *files, "show", env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert result.stdout == "[]\n"


# The Makefile, in a folder of its own with a Python and tools that only say what they were asked


def write_script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def project(tmp_path):
    """A folder with our Makefile; tools/ comes first on the PATH, calls.txt says what was run."""
    find_tool("make")
    calls = tmp_path / "calls.txt"
    calls.touch()
    folder = tmp_path / "my project"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.txt").write_text("numpy==1\n")
    write_script(
        tmp_path / "tools/good-python",
        f'echo "python $*" >> {calls}; if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi',
    )
    for name in ["uv", "docker", "podman", "buildah"]:
        write_script(tmp_path / "tools" / name, "exit 1")
    return folder


def make(project, *words):
    env = {"PATH": f"{project.parent / 'tools'}{os.pathsep}{os.environ['PATH']}"}
    return run("make", *words, cwd=project, env=env)


def count_calls(project, part):
    return (project.parent / "calls.txt").read_text().count(part)


def test_setup_installs_again_only_when_the_lock_file_has_another_content(project):
    assert_clean(make(project, "bench", "PYTHON=good-python"))
    assert count_calls(project, "-m venv") == 1
    assert count_calls(project, "pip install") == 1
    assert count_calls(project, "--require-hashes -r requirements.txt") == 1
    later = (project / ".venv/requirements.txt").stat().st_mtime + 10
    os.utime(project / "requirements.txt", (later, later))
    assert_clean(make(project, "bench", "PYTHON=good-python"))
    assert count_calls(project, "pip install") == 1
    (project / "requirements.txt").write_text("numpy==2\n")
    os.utime(project / "requirements.txt", (later + 10, later + 10))
    assert_clean(make(project, "bench", "PYTHON=good-python"))
    assert count_calls(project, "pip install") == 2
    assert count_calls(project, "-m venv") == 1


def test_setup_uses_uv_where_it_is(project):
    calls = project.parent / "calls.txt"
    write_script(project.parent / "tools/uv", f'echo "uv $*" >> {calls}; test "$1" != venv || mkdir -p .venv')
    assert_clean(make(project, "bench", "BENCH=", "PYTHON=good-python"))
    assert count_calls(project, "uv venv") == 1
    assert count_calls(project, "uv pip install") == 1
    assert count_calls(project, "python -m pip") == 0


def test_setup_without_a_new_enough_python_says_so_and_leaves_nothing(project):
    for name in ["python3.11", "python3.12", "python3.13", "python3"]:
        write_script(project.parent / "tools" / name, "exit 1")
    result = make(project, "bench")
    assert result.returncode != 0
    assert result.stderr.startswith("error: found no Python 3.11 or later. Install one")
    assert not (project / ".venv").exists()


def test_setup_that_fails_half_way_is_not_taken_for_done(project):
    write_script(project.parent / "tools/bad-python", 'test "$1" = -c || { mkdir -p .venv/bin; exit 1; }')
    assert make(project, "bench", "PYTHON=bad-python").returncode != 0
    assert not (project / ".venv").exists()
    assert_clean(make(project, "bench", "PYTHON=good-python"))


def test_make_clean_removes_what_run_can_make_again_and_nothing_else(project):
    made = [
        *("data/raw.parquet", "data/rejected.parquet", "data/processed.parquet", "data/encoder.pkl"),
        *("data/encoding.json", "data/leaks.json"),
        *("models/saved_model.pkl", "models/saved_model.json", "models/metrics.json"),
        *("evaluation/report.html", "evaluation/figures/roc.png", "app/__pycache__/main.pyc", ".ruff_cache/x"),
    ]
    kept = [
        *("data/sample.csv", "data/README.md", "data/my.csv", "data/schema.yaml", "data/own.parquet"),
        *("models/train_model.py", "models/champion/saved_model.pkl", "mlflow/mlflow.db", "mlflow/mlflow_setup.py"),
        *(".venv/bin/python", ".venv/lib/__pycache__/x.pyc", "evaluation/evaluate_model.py", "requirements.txt"),
    ]
    for name in made + kept:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    assert_clean(make(project, "clean"))
    assert [name for name in made if (project / name).exists()] == []
    assert [name for name in kept if not (project / name).exists()] == []


def test_make_clean_works_on_another_root(project):
    for folder in [project, project.parent / "other root"]:
        (folder / "data").mkdir(parents=True)
        (folder / "data/raw.parquet").touch()
    assert_clean(make(project, "clean", f"ROOT={project.parent / 'other root'}"))
    assert (project / "data/raw.parquet").exists()
    assert not (project.parent / "other root/data/raw.parquet").exists()


def test_make_ui_without_a_tracked_run_names_the_command_to_type(project):
    result = make(project, "ui", "PYTHON=good-python")
    assert result.returncode != 0
    assert result.stderr.startswith("error: nothing is tracked yet. Run: make run\n")


def test_make_image_takes_the_first_tool_that_answers(project):
    write_script(project.parent / "tools/buildah", f'echo "buildah $*" >> {project.parent / "calls.txt"}')
    assert_clean(make(project, "image", "BASE=my base", "IMAGE=x"))
    assert count_calls(project, "buildah build --format docker --build-arg BASE=my base -t x .\n") == 1


def test_make_image_without_a_tool_says_so(project):
    result = make(project, "image")
    assert result.returncode != 0
    assert result.stderr.startswith("error: found no docker, podman or buildah that answers.")


# The lock files


def test_lock_files_are_in_step_with_their_inputs():
    assert check_root(ROOT) == []


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "fault"),
    [
        ("requirements.in", r"\Z", "left-pad  # why\n", "requirements.txt: left-pad is asked for and not locked"),
        ("requirements.in", r"(?m)^filelock .*\n", "", "requirements.txt: filelock is locked and no longer asked for"),
        ("requirements.in", r"(?m)^rich ", "rich<1 ", r"rich is locked at [\d.]+, and <1 is asked for"),
        ("requirements-serve.in", r"(?m)^uvicorn\[standard\]", "fastapi[standard]", "fastapi needs .*not locked"),
        ("requirements.txt", r"(?m)^rich==.* \\\n( +--hash.*\n)+", "rich==99\n", "rich has no sha256 sum"),
        ("requirements.txt", r"(?m)^rich==\S+", "rich", "rich has no exact version"),
        ("requirements.txt", r"(?m)^h11==.* \\\n( +.*\n)+", "", "uvicorn needs h11.*, which is not locked"),
        ("requirements.txt", r"(?m)^httpcore==.* \\\n( +.*\n)+", "", "h11 is locked for httpcore, which is not locked"),
        ("requirements-serve.txt", r"(?m)^h11==\S+", "h11==99", "h11 is locked at 99, in requirements.txt at "),
    ],
)
def test_lock_files_out_of_step_are_found(tmp_path, file, pattern, replacement, fault):
    for name in INPUTS + LOCKS:
        shutil.copy(ROOT / name, tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    changed = re.sub(pattern, replacement, text, count=1)
    assert changed != text
    (tmp_path / file).write_text(changed, encoding="utf-8")
    assert re.search(fault, "\n".join(check_root(tmp_path)))


def test_check_locks_ends_with_one_line():
    result = run(sys.executable, ROOT / "ci_cd/check_locks.py")
    assert (result.returncode, result.stdout) == (0, "lock files are in step with their .in files\n")


@pytest.mark.parametrize("name", INPUTS)
def test_every_requirement_says_why_it_is_there(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    asked = [line for line in lines if line and not line.startswith(("#", "-r "))]
    assert asked
    assert [line for line in asked if not re.search(r"\S +# \w.{3,}", line)] == []
