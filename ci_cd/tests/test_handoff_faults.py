"""Hand-offs that are missing, damaged, foreign or stale: the next stage refuses them and names the command to run."""

import json
import random
import shutil
from pathlib import Path

import joblib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_runs import assert_refused, snapshot

from data_ingestion import handoff

LOADER = "python data_ingestion/data_loader.py"
PREPROCESSOR = "python data_ingestion/data_preprocessor.py"
TRAINER = "python models/train_model.py"
FLIPS = 300


def flip_bit(content: bytes, bit: int) -> bytes:
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


@pytest.mark.parametrize(
    ("stage", "path", "repair"),
    [
        ("preprocess", "data/schema.yaml", LOADER),
        ("preprocess", "data/raw.parquet", LOADER),
        ("train", "data/raw.parquet", LOADER),
        ("train", "data/processed.parquet", PREPROCESSOR),
        ("train", "data/encoder.pkl", PREPROCESSOR),
        ("evaluate", "models/saved_model.json", "make run"),
        ("evaluate", "models/saved_model.pkl", TRAINER),
        ("evaluate", "models/metrics.json", TRAINER),
        ("evaluate", "data/processed.parquet", PREPROCESSOR),
    ],
)
def test_missing_input_names_the_command_that_makes_it(
    call_stage, run_copy: Path, stage: str, path: str, repair: str
) -> None:
    (run_copy / path).unlink()
    before = snapshot(run_copy)
    assert_refused(call_stage(stage, run_copy), repair)
    assert snapshot(run_copy) == before


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
@pytest.mark.parametrize(
    ("stage", "path", "repair"),
    [
        ("preprocess", "data/raw.parquet", LOADER),
        ("train", "data/processed.parquet", PREPROCESSOR),
        ("evaluate", "data/processed.parquet", PREPROCESSOR),
    ],
)
def test_parquet_that_was_cut_is_refused(
    call_stage, run_copy: Path, stage: str, path: str, repair: str, kept: float
) -> None:
    content = (run_copy / path).read_bytes()
    (run_copy / path).write_bytes(content[: int(kept * len(content)) if kept == 0.5 else int(kept)])
    before = snapshot(run_copy)
    assert_refused(call_stage(stage, run_copy), path.split("/")[1], "is damaged", repair)
    assert snapshot(run_copy) == before


@pytest.mark.parametrize("name", ["raw", "rejected", "processed"])
def test_every_flipped_bit_of_a_parquet_is_refused(finished_run: Path, tmp_path: Path, name: str) -> None:
    content = (finished_run / "data" / f"{name}.parquet").read_bytes()
    copy = tmp_path / "copy.parquet"
    rng = random.Random(38)
    accepted = []
    for bit in rng.sample(range(8 * len(content)), FLIPS):
        copy.write_bytes(flip_bit(content, bit))
        try:
            handoff.read_parquet(copy, LOADER)
        except handoff.PipelineError:
            continue
        accepted.append(bit)
    assert accepted == []


@pytest.mark.parametrize("name", ["models/saved_model.pkl", "data/encoder.pkl"])
def test_pickle_with_one_flipped_bit_is_never_opened(
    call_stage, run_copy: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(joblib, "load", opened.append)
    content = (run_copy / name).read_bytes()
    stage = "evaluate" if name.startswith("models") else "train"
    rng = random.Random(15)
    for bit in rng.sample(range(8 * len(content)), 10):
        (run_copy / name).write_bytes(flip_bit(content, bit))
        assert_refused(call_stage(stage, run_copy), Path(name).name, "is damaged or was exchanged")
    assert opened == []


def test_damaged_metrics_are_refused(call_stage, run_copy: Path) -> None:
    (run_copy / "models" / "metrics.json").write_text('{"model_version": ', encoding="utf-8")
    assert_refused(call_stage("evaluate", run_copy), "metrics.json is damaged", TRAINER)


@pytest.mark.parametrize("text", ["{", '{"model_version": "x"}', "[]"])
def test_damaged_manifest_is_refused(call_stage, run_copy: Path, text: str) -> None:
    (run_copy / "models" / "saved_model.json").write_text(text, encoding="utf-8")
    assert_refused(call_stage("evaluate", run_copy), "saved_model.json is damaged", TRAINER)


def test_up_to_date_does_not_mean_damaged(call_stage, run_copy: Path, finished_run: Path) -> None:
    """Otherwise --if-changed would refuse to mend what the next stage refuses to read."""
    for stage, path in (("load", "data/raw.parquet"), ("preprocess", "data/processed.parquet")):
        expected = (finished_run / path).read_bytes()
        (run_copy / path).write_bytes(flip_bit(expected, 800))
        assert call_stage(stage, run_copy, "--if-changed").returncode == 0
        assert (run_copy / path).read_bytes() == expected


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"__index_level_0__": [0, 1], "body_mass_g": [1, 2]}),
        pa.table({"row": [{"species": "Adelie"}, {"species": "Gentoo"}]}),
    ],
    ids=["pandas-index", "column-of-mappings"],
)
@pytest.mark.parametrize(
    ("stage", "name", "repair"), [("preprocess", "raw", LOADER), ("train", "processed", PREPROCESSOR)]
)
def test_parquet_that_somebody_else_wrote_is_refused(
    call_stage, run_copy: Path, table: pa.Table, stage: str, name: str, repair: str
) -> None:
    pq.write_table(table, run_copy / "data" / f"{name}.parquet")
    assert_refused(call_stage(stage, run_copy), f"{name}.parquet was not written by this pipeline", repair)


@pytest.mark.parametrize("stage", ["preprocess", "train"])
def test_raw_of_an_older_schema_is_refused(call_stage, run_copy: Path, stage: str) -> None:
    path = run_copy / "data" / "schema.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("max: 59.6", "max: 60.0"), encoding="utf-8")
    before = snapshot(run_copy)
    assert_refused(call_stage(stage, run_copy), "raw.parquet is out of date", "loaded under schema", LOADER)
    assert snapshot(run_copy) == before


def test_schema_that_is_no_yaml_is_refused_with_its_line(call_stage, run_copy: Path) -> None:
    path = run_copy / "data" / "schema.yaml"
    path.write_text("source: data/sample.csv\ncolumns: [a, b\ntarget: x\n", encoding="utf-8")
    assert_refused(call_stage("load", run_copy), "schema.yaml is not valid YAML", "line 3", "Mend that line")


@pytest.mark.parametrize(
    ("old", "new", "fragments"),
    [
        ("kind: integer", "kind: whole", ["columns.flipper_length_mm.kind", "'integer'"]),
        ("role: target", "role: feature", ['target is "body_mass_g"']),
        ("max: 59.6", "max: wide", ["columns.bill_length_mm", "'wide' is no bound"]),
        ("nullable: true", "nullabel: true", ["columns.bill_length_mm.nullabel", "not permitted"]),
    ],
)
def test_schema_that_breaks_a_rule_is_refused_with_the_key(
    call_stage, run_copy: Path, old: str, new: str, fragments: list[str]
) -> None:
    path = run_copy / "data" / "schema.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    before = snapshot(run_copy)
    assert_refused(call_stage("load", run_copy), "schema.yaml", *fragments)
    assert snapshot(run_copy) == before


def test_training_refuses_a_split_of_other_data(call_stage, run_copy: Path, tmp_path: Path) -> None:
    rows = (run_copy.parent / "fewer.csv").absolute()
    sample = Path(handoff.REPOSITORY / "data" / "sample.csv").read_text(encoding="utf-8").splitlines()
    rows.write_text("\n".join(sample[:-9]) + "\n", encoding="utf-8")
    assert call_stage("load", run_copy, "--source", rows).returncode == 0
    call_stage("preprocess", run_copy)
    processed = (run_copy / "data" / "processed.parquet").read_bytes()
    assert call_stage("load", run_copy).returncode == 0
    assert (run_copy / "data" / "processed.parquet").read_bytes() == processed
    assert_refused(call_stage("train", run_copy), "processed.parquet is out of date", "raw.parquet has changed")


def test_evaluation_refuses_a_model_of_another_split(call_stage, run_copy: Path) -> None:
    call_stage("preprocess", run_copy, "--seed", 7)
    before = snapshot(run_copy)
    assert_refused(
        call_stage("evaluate", run_copy), "saved_model.pkl is out of date", "trained on another split", TRAINER
    )
    assert snapshot(run_copy) == before


def test_evaluation_refuses_metrics_of_another_model(call_stage, run_copy: Path) -> None:
    path = run_copy / "models" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"model_version": "feedbeef"}), encoding="utf-8")
    assert_refused(call_stage("evaluate", run_copy), "metrics.json is out of date", "it is of model feedbeef", TRAINER)


def test_exchanged_model_is_refused(call_stage, run_copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_copy, other)
    assert call_stage("preprocess", other, "--seed", 3).returncode == 0
    assert call_stage("train", other, "--folds", 2, "--trials", 2).returncode == 0
    shutil.copy(other / "models" / "saved_model.pkl", run_copy / "models" / "saved_model.pkl")
    assert_refused(call_stage("evaluate", run_copy), "saved_model.pkl is not the file that was written", "exchanged")


def test_model_of_another_scikit_learn_is_refused_with_both_versions(call_stage, run_copy: Path) -> None:
    path = run_copy / "models" / "saved_model.json"
    manifest = json.loads(path.read_bytes())
    manifest["libraries"]["scikit-learn"] = "0.24.2"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert_refused(call_stage("evaluate", run_copy), "was made with scikit-learn 0.24.2, and", "has 1.")
