"""Who may import whom, read from the sources: imports run one way, the way the data does."""

import ast
import functools
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, STAGES, clean_environment

PACKAGES = ("data_ingestion", "models", "evaluation", "app")
OURS = (*PACKAGES, "mlflow", "ci_cd")
MAY_IMPORT = {
    "data_ingestion": ("data_ingestion",),
    "models": ("data_ingestion", "models"),
    "evaluation": ("data_ingestion", "models", "evaluation"),
    "mlflow": ("data_ingestion", "models"),
    "app": ("app", "data_ingestion.schema", "data_ingestion.handoff", "models.scorer", "models.artifact"),
}
# Scoring a whole file reads it with the loader's modules; nothing that the API starts with may.
SCORING = ("app/score_file.py", "app/scoring/*.py")
SCORING_MAY_IMPORT = tuple(
    f"data_ingestion.{name}"
    for name in (
        "casting",
        "csv_places",
        "csv_reader",
        "loading",
        "params",
        "progress",
        "source_reader",
        "sources",
        "typed_blocks",
        "validation",
    )
)
STAGE_MODULES = {script.removesuffix(".py").replace("/", ".") for script in STAGES.values()}
TRACKING_SCRIPTS = {path.stem for path in (REPOSITORY / "mlflow").glob("*.py")}


def list_sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def is_scoring(path: Path) -> bool:
    return any(path.relative_to(REPOSITORY).match(pattern) for pattern in SCORING)


def list_allowed(path: Path, folder: str) -> tuple[str, ...]:
    return MAY_IMPORT[folder] + (SCORING_MAY_IMPORT if is_scoring(path) else ())


def is_module(name: str) -> bool:
    path = REPOSITORY.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@functools.cache
def parse_source(path: Path) -> ast.Module:
    """Parse without garbage collection: what that ends may print a traceback, for which Python 3.11 parses in between.

    This parse then ends in a SystemError (python/cpython issue 106905).
    """
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.enable()


def list_imports(path: Path) -> set[str]:
    """Return the modules that a source imports anywhere, in functions and for type checking too."""
    found = set()
    for node in ast.walk(parse_source(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if is_module(name) else str(node.module) for name in whole}
    return found


def is_ours(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in PACKAGES


def is_below(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in allowed)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_run_the_way_the_data_does(folder: str) -> None:
    sources = list_sources(folder)
    assert sources
    wrong = {
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in sources
        for name in list_imports(path)
        if is_ours(name) and not is_below(name, list_allowed(path, folder))
    }
    assert wrong == set()


def test_only_scoring_imports_scoring() -> None:
    modules = {".".join(p.relative_to(REPOSITORY).with_suffix("").parts) for p in list_sources("app") if is_scoring(p)}
    assert len(modules) > 1
    wrong = {
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in list_sources(*PACKAGES)
        if not is_scoring(path)
        for name in list_imports(path)
        if name in modules
    }
    assert wrong == set()


def test_nobody_imports_a_stage_script() -> None:
    wrong = {
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in list_sources(*OURS)
        if "tests" not in path.parts
        for name in list_imports(path)
        if name in STAGE_MODULES or name == "mlflow_setup"
    }
    assert wrong == set()


def test_nobody_imports_the_folder_mlflow_by_a_dotted_name() -> None:
    dotted = {f"mlflow.{name}" for name in TRACKING_SCRIPTS}
    wrong = {
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in list_sources(*OURS)
        for name in list_imports(path)
        if is_below(name, tuple(dotted))
    }
    assert TRACKING_SCRIPTS
    assert wrong == set()


def test_folder_mlflow_is_no_package() -> None:
    """With an __init__.py, `import mlflow` would get the folder, and `mlflow server` would never come up."""
    assert not (REPOSITORY / "mlflow" / "__init__.py").exists()
    assert not list((REPOSITORY / "mlflow").glob("*/__init__.py"))


@pytest.mark.parametrize("path", [None, "."])
def test_import_mlflow_gets_the_library_in_the_repository_too(path: str | None) -> None:
    code = "import importlib.util; print(importlib.util.find_spec('mlflow').origin)"
    environment = clean_environment() | ({"PYTHONPATH": path} if path else {})
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).parts[-2:] == ("mlflow", "__init__.py")
    assert "site-packages" in done.stdout


def test_importing_a_module_does_nothing(tmp_path: Path) -> None:
    """No output, no file, no folder: not in the current folder, and not below the root."""
    modules = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for path in list_sources(*PACKAGES)
    ]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    environment = clean_environment() | {
        "PYTHONPATH": str(REPOSITORY),
        "PIPELINE_ROOT": str(tmp_path / "root"),
        "HOME": str(tmp_path),
        "MPLCONFIGDIR": os.path.join(os.path.dirname(tmp_path), "matplotlib"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *modules],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
