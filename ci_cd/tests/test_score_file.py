"""Scoring a whole file: the answers of the API bit for bit, every column kept, nothing lost when it is cut short."""

import csv
import gzip
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, clean_environment, run_script
from small_runs import assert_refused
from trained_models import train

from app import score_file
from app.batches.answering import Limits, answer_batch
from app.batches.formats import BOTH_JSON
from app.errors import ApiError, ErrorList
from app.metrics.counters import Metrics
from app.model_host import Served, load_served
from app.predictions import predict_one
from app.scoring import blocks, run
from app.scoring.blocks import describe_warnings
from app.scoring.work import Work, lock_output
from data_ingestion import csv_reader, handoff

Score = Callable[..., "subprocess.CompletedProcess[str]"]
HEADER = ["row id", "class", "floor area", "rooms", "has lift", "_built", "note", "price", "new"]
ROW = ["1", "b", "41.5", "2", "Yes", "17.05.2001", "hi", "300.5", "x"]
LATER = ["2", "", "99.5", "3", "No", "17.05.2031", '"a, b"', "", ""]
MODELS = {
    "regression-linear": ("regression", "linear"),
    "regression-boosting": ("regression", "boosting"),
    "multiclass-linear": ("multiclass", "linear"),
    "binary-boosting": ("binary", "boosting"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of four models."""
    folder = tmp_path_factory.mktemp("models")
    return {name: train(folder / name, *kind) for name, kind in MODELS.items()}


@pytest.fixture
def model(models: dict[str, Path]) -> Path:
    """The folder of a linear regression."""
    return models["regression-linear"]


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str]) -> Score:
    """Score inside this process: score(model, source, output, "--separator", ";")."""

    def run(model: Path, source: Path, output: Path, *flags: object) -> "subprocess.CompletedProcess[str]":
        argv = [str(word) for word in ("--model-dir", model, "--input", source, "--output", output, *flags)]
        capsys.readouterr()
        code = handoff.run_stage(lambda: score_file.main(argv))
        return subprocess.CompletedProcess(argv, code, *capsys.readouterr())

    return run


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 2 kB."""
    monkeypatch.setattr(csv_reader, "BLOCK_BYTES", 2_000)


def write_rows(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> Path:
    """Write fields as they are, quotes included."""
    path.write_text("".join(",".join(row) + "\n" for row in (header, *rows)), encoding="utf-8")
    return path


def draw_rows(count: int, faults: bool = False) -> list[list[str]]:
    """Rows of all kinds of values, missing and unexpected ones among them; with faults also such as are rejected."""
    draw = random.Random(count)
    rows = []
    for number in range(count):
        rooms = ["1", "5", "9", "3.0", " 2 ", "-7", "900719925474099123"]
        area = ["", "NA", "20.5", "1e2", "+33.125", " 41.5", "-1", f"{draw.uniform(0, 99)!r}", "0.1", "1e30"]
        lift = ["Yes", "no", " NO ", "YES"]
        built = ["", "17.05.2001", "01.01.1970", "31.12.2030", " 29.02.2000 "]
        if faults and number % 5 == 2:
            rooms, area, lift, built = (
                [*rooms, "", "2.5"],
                [*area, "1e31", "inf"],
                [*lift, "maybe", "", "NA"],
                [*built, "1"],
            )
        rows.append(
            [
                str(number),
                draw.choice(["a", "b", " c", "d", "", "NA", "é"]),
                draw.choice(area),
                draw.choice(rooms),
                draw.choice(lift),
                draw.choice(built),
                draw.choice(["", "words", '"two, ""words"""', '"a\nline"', " blanks "]),
                draw.choice(["", "7", "none of your business"]),
                draw.choice(["", "NA", "0x1F", "é"]),
            ]
        )
    return rows


def to_request(row: Sequence[str]) -> dict[str, object]:
    """A row of a CSV as a client of the API would send it."""
    texts = {name: text.strip() for name, text in zip(HEADER, row, strict=True)}
    is_missing = {name: texts[name] in ("", "NA") for name in texts}

    def number(name: str) -> float | str | None:
        try:
            return None if is_missing[name] else float(texts[name])
        except ValueError:
            return texts[name]

    rooms = texts["rooms"]
    return {
        "class": texts["class"],
        "floor area": number("floor area"),
        "rooms": int(rooms) if rooms.lstrip("-").isdigit() else number("rooms"),
        "has lift": texts["has lift"],
        "_built": texts["_built"],
    }


def read_rows(path: Path) -> list[dict[str, object]]:
    """The rows of an output, whatever its form; missing is None in tables and the empty text in a CSV."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all().to_pylist()


def list_hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


# The answers of the API


def ask_each(served: Served, row: dict[str, object]) -> dict[str, object] | None:
    try:
        return predict_one(served, row, Metrics())
    except ApiError:
        return None


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("small_blocks")
def test_every_row_has_the_answer_of_the_api_bit_for_bit(
    models: dict[str, Path], tmp_path: Path, score: Score, name: str
) -> None:
    rows = draw_rows(150, faults=True)
    served = load_served(models[name])
    content = json.dumps([to_request(row) for row in rows]).encode()
    batch = json.loads(b"".join(answer_batch(served, content, BOTH_JSON, Limits(1000, 2**20), Metrics())))
    expected = {answer["index"]: answer for answer in batch["predictions"]}

    done = score(models[name], write_rows(tmp_path / "in.csv", rows), tmp_path / "out.parquet")

    assert done.returncode == 0, done.stderr
    found = {int(row["row id"]): row for row in read_rows(tmp_path / "out.parquet")}
    assert 100 < len(found) < 150
    assert found.keys() == expected.keys()
    for index, row in found.items():
        answer = expected[index]
        shares = {name.removeprefix("probability_"): row[name] for name in row if name.startswith("probability_")}
        assert (row["prediction"], shares or None) == (answer["prediction"], answer.get("probabilities"))
        assert row["warnings"] == ("; ".join(answer["warnings"]) or None)
        assert row["model_version"] == batch["model_version"]
    for index in list(found)[::8]:
        alone = ask_each(served, to_request(rows[index]))
        assert alone is not None
        assert alone["prediction"] == found[index]["prediction"]
        assert alone.get("probabilities") == expected[index].get("probabilities")


@pytest.mark.parametrize("name", ["regression-boosting", "multiclass-linear"])
def test_model_that_is_not_compiled_answers_from_its_pickle(
    models: dict[str, Path], tmp_path: Path, score: Score, name: str
) -> None:
    shutil.copytree(models[name], tmp_path / "pickled")
    manifest = json.loads((tmp_path / "pickled/saved_model.json").read_text())
    manifest["scorer"] = {"compiled": False, "reason": "to be tried"}
    (tmp_path / "pickled/saved_model.json").write_text(json.dumps(manifest))
    source = write_rows(tmp_path / "in.csv", draw_rows(80, faults=True))
    found = []
    for model in (models[name], tmp_path / "pickled"):
        assert score(model, source, tmp_path / "out.parquet").returncode == 0
        found.append(pq.read_table(tmp_path / "out.parquet").drop_columns("scored_at"))
    assert found[0].equals(found[1])


def test_compiled_model_scores_without_scikit_learn(model: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.csv", [ROW, LATER])
    code = "import sys; from app import score_file; score_file.main(sys.argv[1:])\n"
    code += "print([m for m in ('sklearn', 'joblib') if m in sys.modules])"
    flags = ["--model-dir", model, "--input", source, "--output", tmp_path / "out.parquet"]
    argv = [sys.executable, "-c", code, *map(str, flags)]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_numbers_of_a_csv_read_back_as_the_same_numbers(models: dict[str, Path], tmp_path: Path, score: Score) -> None:
    source = write_rows(tmp_path / "in.csv", draw_rows(100))
    for ending in ("csv", "parquet"):
        assert score(models["multiclass-linear"], source, tmp_path / f"out.{ending}").returncode == 0
    text, table = (read_rows(tmp_path / f"out.{ending}") for ending in ("csv", "parquet"))
    for name in ("probability_A", "probability_B", "probability_C"):
        assert [float(row[name]) for row in text] == [row[name] for row in table]
    assert [row["prediction"] for row in text] == [row["prediction"] for row in table]
    assert [row["warnings"] or None for row in text] == [row["warnings"] for row in table]


def test_warnings_are_those_of_the_api(model: Path) -> None:
    served = load_served(model)
    moment = datetime(2001, 5, 17)
    rows = [
        {"class": "b", "floor area": 41.5, "rooms": 2, "has lift": True, "_built": moment},
        {"class": None, "floor area": None, "rooms": 2, "has lift": False, "_built": None},
        {"class": "z", "floor area": 20.5, "rooms": 0, "has lift": True, "_built": datetime(1999, 12, 31)},
        {"class": "a", "floor area": 78.5000001, "rooms": 6, "has lift": True, "_built": datetime(2002, 6, 6, 0, 0, 1)},
    ]
    types = {"class": pa.string(), "floor area": pa.float64(), "rooms": pa.int64(), "has lift": pa.bool_()}
    table = pa.table({n: pa.array([row[n] for row in rows], types.get(n, pa.timestamp("us"))) for n in rows[0]})
    sent = [{n: v.isoformat() if isinstance(v, datetime) else v for n, v in row.items()} for row in rows]
    read = [served.reader.read(row, ErrorList()) for row in sent]
    expected = ["; ".join(row_and_warnings[1]) or None for row_and_warnings in read if row_and_warnings]
    assert describe_warnings(table, served.contract).to_pylist() == expected
    coded = table.set_column(0, "class", table["class"].dictionary_encode())
    assert describe_warnings(coded, served.contract).to_pylist() == expected
    assert expected[0] is None
    assert expected[2].count("; ") == 2


def test_what_the_api_refuses_is_rejected(tmp_path: Path, score: Score) -> None:
    model = train(
        tmp_path / "model",
        "regression",
        "linear",
        **{"class": {"unseen": "refuse"}, "floor_area": {"out_of_range": "refuse"}},
        **{"built": {"nullable": False}, "has_lift": {"nullable": True}},
    )
    rows = draw_rows(120, faults=True)
    served = load_served(model)
    answers = [ask_each(served, to_request(row)) for row in rows]
    expected = [(number, answer["prediction"]) for number, answer in enumerate(answers) if answer]
    done = score(model, write_rows(tmp_path / "in.csv", rows), tmp_path / "out.parquet")
    found = read_rows(tmp_path / "out.parquet")
    assert [(row["row id"], row["prediction"]) for row in found] == expected
    assert any(row["has lift"] is None for row in found)
    assert f"rejected {120 - len(expected)} of 120 rows" in done.stdout
    assert 0 < len(expected) < 110


@pytest.mark.parametrize("name", ["regression-linear", "binary-boosting"])
def test_columns_without_a_single_value_are_imputed(
    models: dict[str, Path], tmp_path: Path, score: Score, name: str
) -> None:
    row = ["1", "", "", "2", "Yes", "", "", "", ""]
    done = score(models[name], write_rows(tmp_path / "in.csv", [row] * 3), tmp_path / "out.parquet")
    assert done.returncode == 0
    answer = predict_one(load_served(models[name]), {"rooms": 2, "has lift": True}, Metrics())
    assert {r["prediction"] for r in read_rows(tmp_path / "out.parquet")} == {answer["prediction"]}
    assert {r["warnings"] for r in read_rows(tmp_path / "out.parquet")} == {"; ".join(answer["warnings"])}


def test_row_without_a_finite_answer_is_rejected_as_by_the_api(
    models: dict[str, Path], tmp_path: Path, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = blocks.predict_block

    def overflow(table: pa.Table, model: object) -> object:
        predictions = answer(table, model)
        if predictions.probabilities is None:
            predictions.values[1] = float("inf")
        else:
            predictions.probabilities[1, 0] = float("nan")
        return predictions

    monkeypatch.setattr(blocks, "predict_block", overflow)
    rows = [ROW, LATER, [*ROW[:3], "", *ROW[4:]], ROW]
    for name in ("regression-linear", "multiclass-linear"):
        done = score(models[name], write_rows(tmp_path / "in.csv", rows), tmp_path / "out.csv")
        assert done.returncode == 0
        assert len(read_rows(tmp_path / "out.csv")) == 2
        rejects = read_rows(tmp_path / "out.rejected.csv")
        assert [(row["line"], row["column"]) for row in rejects] == [("3", ""), ("4", "rooms")]
        assert rejects[0]["reason"] == "the model has no finite answer for these values"
        assert rejects[0]["text"] == ",".join(LATER)


# What is kept, and in what form


def test_csv_keeps_every_field_as_it_was_written(model: Path, tmp_path: Path, score: Score) -> None:
    rows = [ROW, LATER, [*ROW[:6], '"two ""lines""\nof text"', *ROW[7:]]]
    done = score(model, write_rows(tmp_path / "in.csv", rows), tmp_path / "out.csv")
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / 'out.csv'} (3 rows), model 0123456789ab"
    text = (tmp_path / "out.csv").read_text(encoding="utf-8")
    added = ["prediction", "model_version", "scored_at", "warnings"]
    assert text.startswith(",".join(HEADER + added) + "\n")
    for row in rows:
        assert ",".join(row) + "," in text
    found = read_rows(tmp_path / "out.csv")
    assert [row["row id"] for row in found] == ["1", "2", "1"]
    assert found[1]["warnings"] == (
        "class: missing, imputed; floor area: outside the range 20.5 to 78.5; "
        "_built: outside the range 2000-01-01T00:00:00 to 2002-06-06T00:00:00"
    )
    assert list_hidden(tmp_path) == []
    assert (tmp_path / "out.rejected.csv").read_text() == "file,line,column,reason,text\n"


def test_csv_keeps_separator_and_ends_of_lines_are_line_feeds(model: Path, tmp_path: Path, score: Score) -> None:
    text = "\r\n".join(";".join(row) for row in (HEADER, ROW, [*ROW[:6], "ü;".replace(";", ""), *ROW[7:]])) + "\r\n\r\n"
    (tmp_path / "in.csv").write_bytes(text.encode("latin-1"))
    done = score(model, tmp_path / "in.csv", tmp_path / "out.csv", "--encoding", "latin-1")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out.csv").read_bytes().decode().split("\n")
    assert lines[0] == ";".join([*HEADER, "prediction", "model_version", "scored_at", "warnings"])
    assert lines[2].startswith("1;b;41.5;2;Yes;17.05.2001;ü;300.5;x;")
    assert len(lines) == 4


def test_table_has_the_types_of_the_contract_and_texts_for_the_rest(model: Path, tmp_path: Path, score: Score) -> None:
    source = write_rows(tmp_path / "in.csv", [ROW, LATER])
    done = score(model, source, tmp_path / "out.parquet")
    assert done.returncode == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "row id": "int64",
        "class": "string",
        "floor area": "double",
        "rooms": "int64",
        "has lift": "bool",
        "_built": "timestamp[us]",
        "note": "string",
        "price": "double",
        "new": "string",
        "prediction": "double",
        "model_version": "string",
        "scored_at": "timestamp[us, tz=UTC]",
        "warnings": "string",
    }
    first, second = table.to_pylist()
    assert (first["_built"], first["new"], second["note"], second["new"]) == (datetime(2001, 5, 17), "x", "a, b", None)
    assert second["price"] is None, "a missing target is no fault"


def test_target_ids_and_ignored_columns_may_be_absent(model: Path, tmp_path: Path, score: Score) -> None:
    features = HEADER[1:6]
    source = write_rows(tmp_path / "in.csv", [ROW[1:6][::-1]], features[::-1])
    assert score(model, source, tmp_path / "out.parquet").returncode == 0
    assert pq.read_schema(tmp_path / "out.parquet").names[:5] == features[::-1]


def test_values_that_cannot_be_typed_are_counted(model: Path, tmp_path: Path, score: Score) -> None:
    source = write_rows(tmp_path / "in.csv", [["A-1", *ROW[1:]], ["2", *ROW[1:7], "much", ""]])
    done = score(model, source, tmp_path / "out.parquet")
    assert 'left empty, for they are not of their column\'s kind: "row id" 1, "price" 1' in done.stdout
    done = score(model, source, tmp_path / "out.csv")
    assert "left empty" not in done.stdout
    assert read_rows(tmp_path / "out.csv")[0]["row id"] == "A-1"


@pytest.mark.parametrize("form", ["gz", "parquet", "arrow"])
@pytest.mark.parametrize("ending", ["parquet", "feather", "csv"])
def test_every_form_goes_into_every_form(
    models: dict[str, Path], tmp_path: Path, score: Score, form: str, ending: str
) -> None:
    rows = draw_rows(60)
    for row in rows:
        row[6:] = ["words", "", ""]
    plain = write_rows(tmp_path / "in.csv", rows)
    model = models["binary-boosting"]
    assert score(model, plain, tmp_path / "plain.parquet").returncode == 0
    expected = read_rows(tmp_path / "plain.parquet")
    source = tmp_path / f"in.{form}"
    if form == "gz":
        source.write_bytes(gzip.compress(plain.read_bytes()))
    else:  # typed: booleans and dates are not spelled as in the CSV of the contract
        table = pq.read_table(tmp_path / "plain.parquet").select(HEADER)
        if form == "parquet":
            pq.write_table(table, source)
        else:
            with pa.ipc.new_file(str(source), table.schema) as writer:
                writer.write_table(table)

    done = score(model, source, tmp_path / f"out.{ending}")

    assert done.returncode == 0, done.stderr
    found = read_rows(tmp_path / f"out.{ending}")
    assert [row["prediction"] for row in found] == [row["prediction"] for row in expected]
    assert [float(row["probability_cheap"]) for row in found] == [row["probability_cheap"] for row in expected]
    assert [row["warnings"] or None for row in found] == [row["warnings"] for row in expected]
    if ending != "csv":
        assert [row["_built"] for row in found] == [row["_built"] for row in expected]


# What is refused


def test_rejected_rows_stand_aside_with_their_reason(model: Path, tmp_path: Path, score: Score) -> None:
    bad = ["7", "a", "wide", "2", "Yes", "", "", "", ""]
    rows = [ROW, bad, LATER, [*ROW, "more"], *[bad] * 5]
    done = score(model, write_rows(tmp_path / "in.csv", rows), tmp_path / "out.csv")
    assert done.returncode == 0
    assert [row["row id"] for row in read_rows(tmp_path / "out.csv")] == ["1", "2"]
    (said,) = (line for line in done.stdout.splitlines() if line.startswith("rejected"))
    assert said.startswith(f"rejected 7 of 9 rows, see {tmp_path / 'out.rejected.csv'}: line 3: ")
    assert said.endswith(" (+2 more)")
    rejects = read_rows(tmp_path / "out.rejected.csv")
    assert list(rejects[0]) == ["file", "line", "column", "reason", "text"]
    assert [(row["line"], row["column"]) for row in rejects[:2]] == [("3", "floor area"), ("5", "")]
    assert rejects[0]["reason"] == 'column "floor area" expects a finite number of at most 1e30, got "wide"'
    assert (rejects[0]["text"], rejects[1]["text"]) == (",".join(bad), ",".join([*ROW, "more"]))


def test_nothing_is_written_when_all_rows_are_rejected(model: Path, tmp_path: Path, score: Score) -> None:
    source = write_rows(tmp_path / "in.csv", [[*ROW[:3], "", *ROW[4:]]] * 3)
    done = score(model, source, tmp_path / "out.csv")
    assert_refused(done, "all 3 rows were refused, and nothing was written. line 2: ", "expects a value")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_missing_feature_is_named_with_the_nearest_column(model: Path, tmp_path: Path, score: Score) -> None:
    source = write_rows(tmp_path / "in.csv", [ROW], ["row id", "class", "floor_area", *HEADER[3:]])
    done = score(model, source, tmp_path / "out.csv")
    assert_refused(done, 'the model needs "floor area"', 'For "floor area": Did you mean "floor_area"?')
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("name", ["prediction", "probability_A", "model_version", "scored_at", "warnings"])
def test_column_with_the_name_of_an_answer_is_refused(
    models: dict[str, Path], tmp_path: Path, score: Score, name: str
) -> None:
    source = write_rows(tmp_path / "in.csv", [ROW], [*HEADER[:-1], name])
    done = score(models["multiclass-linear"], source, tmp_path / "out.csv")
    assert_refused(done, f'column "{name}" has the name of a column that scoring adds')


def test_wrong_flags_and_files_are_refused_in_one_line(model: Path, tmp_path: Path, score: Score) -> None:
    source = write_rows(tmp_path / "in.csv", [ROW])
    assert_refused(score(model, source, tmp_path / "out.xlsx"), '".xlsx", expected one of .csv, .parquet, .arrow')
    assert_refused(score(model, source, source), "would replace the input")
    (tmp_path / "folder.csv").mkdir()
    assert_refused(score(model, source, tmp_path / "folder.csv"), "is a folder")
    (tmp_path / "folder.csv").rmdir()
    assert_refused(score(model, source, tmp_path / "o.csv", "--seperator", ";"), 'Did you mean "--separator"?')
    assert_refused(score(model, source, tmp_path / "o.csv", "--separator", ";;"), "expects one character")
    assert_refused(score(model, tmp_path / "no.csv", tmp_path / "o.csv"), "no.csv does not exist", "--input path")
    assert_refused(score(model, "-", tmp_path / "o.csv"), "Save it as a file")
    assert_refused(score(tmp_path / "none", source, tmp_path / "o.csv"), "there is no model in")
    (tmp_path / "more.csv").write_bytes(source.read_bytes())
    assert_refused(score(model, tmp_path / "*.csv", tmp_path / "o.csv"), "is 2 files, expected one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "more.csv"]


def test_model_folder_is_the_one_of_the_flag_else_of_the_environment_else_of_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*flags: object) -> Path:
        return score_file.parse_flags(["--input", "a", "--output", "b", *map(str, flags)]).model_dir

    assert find() == REPOSITORY / "models"
    assert find("--root", tmp_path) == tmp_path / "models"
    monkeypatch.setenv("PIPELINE_ROOT", str(tmp_path / "other"))
    assert find() == tmp_path / "other" / "models"
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "served"))
    assert find() == tmp_path / "served"
    assert find("--model-dir", tmp_path / "mine") == tmp_path / "mine"


def test_help_answers_without_the_heavy_libraries() -> None:
    code = "import sys; from app import score_file; score_file.parse_flags(['--input', 'a', '--output', 'b'])\n"
    code += "print([m for m in ('pandas', 'pyarrow', 'sklearn', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "--output FILE" in run_script("app/score_file.py", ["--help"]).stdout


# Cut short and taken up again

SLOW = """
import sys
from data_ingestion import csv_reader, handoff
csv_reader.BLOCK_BYTES = 2_000
from app import score_file
from app.scoring import run
run.sha256_code = lambda *_: "the sources may be edited while the tests run"
sys.exit(handoff.run_stage(lambda: score_file.main(sys.argv[1:])))
"""


def start_scoring(model: Path, source: Path, output: Path) -> "subprocess.Popen[str]":
    """Score in small blocks as a process of its own."""
    argv = [sys.executable, "-c", SLOW, "--model-dir", model, "--input", source, "--output", output]
    environment = clean_environment() | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        list(map(str, argv)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_killed_run_goes_on_where_it_stopped_to_the_same_bytes(model: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.csv", draw_rows(2_500, faults=True))
    output = tmp_path / "cut" / "out.parquet"
    work = output.with_name(".out.parquet.scoring")
    with start_scoring(model, source, output) as process:
        deadline = time.monotonic() + 60
        while not (work / "000004.part").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    finished = len(list(work.glob("*.part")))
    (tmp_path / "whole" / work.name).mkdir(parents=True)
    shutil.copy(work / "state.json", tmp_path / "whole" / work.name)  # for the same moment of scoring

    with (
        start_scoring(model, source, output) as again,
        start_scoring(model, source, tmp_path / "whole" / output.name) as whole,
    ):
        said, undisturbed = again.communicate(timeout=120), whole.communicate(timeout=120)

    assert (again.returncode, whole.returncode) == (0, 0), said[1] + undisturbed[1]
    assert f"went on after {finished} blocks of an earlier run" in said[0]
    assert "went on" not in undisturbed[0]
    for name in ("out.parquet", "out.rejected.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.parquet", "out.rejected.csv"]
    assert pq.ParquetFile(output).metadata.num_rows + len(read_rows(tmp_path / "cut" / "out.rejected.csv")) == 2_500


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Break off after so many blocks, as Ctrl-C does; 0 ends that."""
    keep = Work.keep

    def set_limit(count: int) -> None:
        def keep_some(work: Work, *facts: object) -> None:
            keep(work, *facts)  # type: ignore[arg-type]
            if work.finished == count:
                raise KeyboardInterrupt

        monkeypatch.setattr(Work, "keep", keep_some)

    return set_limit


@pytest.mark.parametrize("ending", ["csv", "arrow"])
@pytest.mark.usefixtures("small_blocks")
def test_interrupted_run_ends_in_the_same_bytes(
    model: Path, tmp_path: Path, score: Score, interrupt: Callable[[int], None], ending: str
) -> None:
    source, output = write_rows(tmp_path / "in.csv", draw_rows(400, faults=True)), tmp_path / f"out.{ending}"
    interrupt(3)
    assert score(model, source, output).returncode == 130
    assert not output.exists()
    state = tmp_path / f".out.{ending}.scoring" / "state.json"
    moment = json.loads(state.read_bytes())["scored_at"]
    (tmp_path / "whole" / state.parent.name).mkdir(parents=True)
    shutil.copy(state, tmp_path / "whole" / state.parent.name)
    (tmp_path / f".{output.name}.77.tmp").write_text("left over by a kill while joining")
    interrupt(0)

    assert "went on after 3 blocks" in score(model, source, output).stdout
    assert score(model, source, tmp_path / "whole" / output.name).returncode == 0

    assert output.read_bytes() == (tmp_path / "whole" / output.name).read_bytes()
    scored_at = {str(row["scored_at"]).replace("Z", "+00:00").replace(" ", "T") for row in read_rows(output)}
    assert scored_at == {moment}
    assert list_hidden(tmp_path) == []


@pytest.mark.parametrize("change", ["input", "model", "flags"])
@pytest.mark.usefixtures("small_blocks")
def test_another_input_model_or_flag_starts_anew(
    models: dict[str, Path], tmp_path: Path, score: Score, interrupt: Callable[[int], None], change: str
) -> None:
    source, output = write_rows(tmp_path / "in.csv", draw_rows(200)), tmp_path / "out.csv"
    interrupt(2)
    assert score(models["regression-linear"], source, output).returncode == 130
    interrupt(0)
    if change == "input":
        write_rows(source, draw_rows(201))
    name = "regression-boosting" if change == "model" else "regression-linear"
    done = score(models[name], source, output, *(["--separator", ","] if change == "flags" else []))
    assert done.returncode == 0
    assert "went on" not in done.stdout
    assert len(read_rows(output)) == (201 if change == "input" else 200)


def test_earlier_output_stays_until_the_new_one_is_whole(
    model: Path, tmp_path: Path, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = write_rows(tmp_path / "in.csv", [ROW]), tmp_path / "out.csv"
    output.write_text("earlier")

    def fill_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run, "join_parts", fill_disk)
        assert_refused(score(model, source, output), "the disk is full", code=74)
    assert output.read_text() == "earlier"
    assert not (tmp_path / "out.rejected.csv").exists()
    assert "went on after 1 block of" in score(model, source, output).stdout
    assert len(read_rows(output)) == 1


def test_second_run_on_the_same_output_is_refused(model: Path, tmp_path: Path, score: Score) -> None:
    source, output = write_rows(tmp_path / "in.csv", [ROW]), tmp_path / "out.csv"
    with lock_output(output):
        done = score(model, source, output)
        assert score(model, source, tmp_path / "other.csv").returncode == 0
    assert_refused(done, "is being written by another run", code=75)
    assert score(model, source, output).returncode == 0


@pytest.mark.usefixtures("small_blocks")
def test_input_that_is_damaged_further_on_leaves_no_output(model: Path, tmp_path: Path, score: Score) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([HEADER, *[ROW] * 200])
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text.getvalue().encode())[:-20])
    done = score(model, tmp_path / "in.csv.gz", tmp_path / "out.csv")
    assert_refused(done, "is cut short or damaged")
    assert not (tmp_path / "out.csv").exists()
