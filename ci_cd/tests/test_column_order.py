"""Columns that come back in another order leave no root stuck, whatever was run or edited before."""

from pathlib import Path

import pytest
import yaml
from conftest import RunStage

ROWS = [["a", "b", "y"], *([str(i % 7), "xz"[i % 2], str(i * 3 % 50 + i / 10)] for i in range(60))]


def write_csv(path: Path, is_reversed: bool) -> None:
    path.write_text("".join(",".join(row[::-1] if is_reversed else row) + "\n" for row in ROWS))


@pytest.mark.parametrize("flags", [[], ["--infer"]])
def test_source_is_loaded_when_its_columns_are_reordered(
    call_stage: RunStage, tmp_path: Path, flags: list[str]
) -> None:
    source = tmp_path / "in.csv"
    load = ["load", tmp_path, "--source", source, "--target", "y", "--if-changed"]
    write_csv(source, is_reversed=False)
    assert call_stage(*load).returncode == 0
    write_csv(source, is_reversed=True)
    assert call_stage(*load, *flags).returncode == 0
    done = call_stage("preprocess", tmp_path, "--if-changed")
    assert done.returncode == 0, done.stderr


def test_rows_are_loaded_again_when_the_columns_of_the_contract_are_reordered(
    call_stage: RunStage, tmp_path: Path
) -> None:
    source, schema = tmp_path / "in.csv", tmp_path / "data" / "schema.yaml"
    load = ["load", tmp_path, "--source", source, "--target", "y", "--if-changed"]
    write_csv(source, is_reversed=False)
    assert call_stage(*load).returncode == 0
    content = yaml.safe_load(schema.read_text())
    content["columns"] = dict(reversed(content["columns"].items()))
    schema.write_text(yaml.safe_dump(content, sort_keys=False))
    assert "wrote" in call_stage(*load).stdout
    done = call_stage("preprocess", tmp_path, "--if-changed")
    assert done.returncode == 0, done.stderr
    assert "up to date" in call_stage(*load).stdout
