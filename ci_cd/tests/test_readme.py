"""README.md tells the truth: its commands exist, its flags are known, and its requests are answered as printed."""

import json
import math
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import REPOSITORY, clean_environment, run_script

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [
    line.split("  #")[0].split(";")[0].strip()
    for kind, block in BLOCKS
    if kind in ("sh", "bash", "")
    for line in block.splitlines()
]
INLINE = re.findall(r"`((?:make|python) [^`]+)`", README)
EXCHANGES = re.findall(r"^\$ (curl (?:[^\n]|\n )*')\n(\{[^\n]*\})$", README, flags=re.MULTILINE)
CHANGES_EVERY_TIME = ("model_version", "prediction_id")


def find_commands(start: str) -> list[list[str]]:
    words = [shlex.split(line) for line in [*COMMANDS, *INLINE] if line.startswith(start)]
    assert words
    return words


def test_scripts_and_flags_of_the_readme_exist() -> None:
    for _, script, *rest in find_commands("python "):
        if not script.endswith(".py"):
            continue
        text = run_script(script, ["--help"]).stdout
        assert text, script
        for flag in (word for word in rest if word.startswith("--")):
            assert f"{flag} " in text, f"{script} {flag}"


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    assert {words[1] for words in find_commands("make ")} <= targets


def test_files_and_links_of_the_readme_exist() -> None:
    links = re.findall(r"\]\((?!http|#)([^)]+)\)", README)
    assert links
    assert not [link for link in links if not (REPOSITORY / link).exists()]
    anchors = re.findall(r"\]\(#([^)]+)\)", README)
    headings = {
        re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in re.findall(r"^#+ (.*)$", README, re.M)
    }
    assert set(anchors) <= headings


def test_plain_commands_are_the_five_stages_in_order() -> None:
    scripts = [words[1] for words in find_commands("python ") if words[1].endswith(".py")]
    stages = [
        "data_ingestion/data_loader.py",
        "data_ingestion/data_preprocessor.py",
        "models/train_model.py",
        "evaluation/evaluate_model.py",
        "mlflow/mlflow_setup.py",
    ]
    assert stages in [scripts[place : place + len(stages)] for place in range(len(scripts))]


@pytest.fixture(scope="module")
def server(finished_run: Path) -> Iterator[str]:
    """The address of a real server with the sample's model."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--log-level", "warning"]
    environment = clean_environment() | {"PIPELINE_ROOT": str(finished_run)}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment) as process:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            assert process.poll() is None
            try:
                httpx.get(f"{address}/ready").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield address
        process.terminate()


def is_same(found: object, printed: object) -> bool:
    """Return whether two answers agree: another processor adds up, and so weighs the models, a bit otherwise."""
    if isinstance(found, dict) and isinstance(printed, dict):
        return found.keys() == printed.keys() and all(
            name in CHANGES_EVERY_TIME or is_same(found[name], printed[name]) for name in found
        )
    if isinstance(found, list) and isinstance(printed, list):
        return len(found) == len(printed) and all(map(is_same, found, printed))
    if isinstance(found, float) and isinstance(printed, float):
        return math.isclose(found, printed, rel_tol=0.01)
    return found == printed


def test_readme_shows_a_row_a_batch_and_a_refusal() -> None:
    assert len(EXCHANGES) == 3


@pytest.mark.parametrize(("command", "printed"), EXCHANGES, ids=["row", "batch", "refusal"])
def test_requests_of_the_readme_are_answered_as_printed(server: str, command: str, printed: str) -> None:
    words = shlex.split(command)
    url = next(word for word in words if word.startswith("http"))
    body = words[words.index("-d") + 1]
    path = re.sub(r"^http://[^/]+", "", url)
    answer = httpx.post(server + path, content=body, headers={"Content-Type": "application/json"})
    assert is_same(answer.json(), json.loads(printed)), answer.text
