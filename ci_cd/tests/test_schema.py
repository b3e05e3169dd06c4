"""The data contract: what is inferred from a file, what reading by it must keep, and that edits by hand win."""

import csv
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_runs import assert_refused, edit_schema, snapshot

from data_ingestion import csv_places, csv_reader, typed_blocks
from data_ingestion import schema as contracts
from data_ingestion.casting import cast_column
from data_ingestion.schema import Column

Load = Callable[..., "subprocess.CompletedProcess[str]"]
N = 40


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def load(call_stage, root: Path, tmp_path: Path) -> Load:
    """Load columns of texts beside a target `y` that counts; flags may name other sources and targets."""

    def run(columns: dict[str, list[str]], *flags: object, name: str = "my.csv") -> "subprocess.CompletedProcess[str]":
        count = len(next(iter(columns.values())))
        texts = {"x": [str(i % 7 + 0.5) for i in range(count)], **columns, "y": [str(3 * i) for i in range(count)]}
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(texts)
            writer.writerows(zip(*texts.values(), strict=True))
        return call_stage("load", root, "--source", tmp_path / name, "--target", "y", *flags)

    return run


def read_column(root: Path, name: str) -> tuple[Column, list[object]]:
    contract, _ = contracts.read_contract(root / "data" / "schema.yaml")
    return contract.columns[name], pq.read_table(root / "data" / "raw.parquet")[name].to_pylist()


def repeat(*values: str) -> list[str]:
    """N texts that go round the values."""
    return [values[i % len(values)] for i in range(N)]


KEPT = {
    "leading-zeros": (repeat("00123", "00045", "12345"), "category", repeat("00123", "00045", "12345")),
    "30-digit-ids": (repeat("1" * 30, "2" * 30), "category", repeat("1" * 30, "2" * 30)),
    "exponents-as-ids": (repeat("1e5", "2E7", "103"), "category", repeat("1e5", "2E7", "103")),
    "R-writes-1e+05": (repeat("1e+05", "99999", "2e+05"), "number", [1e5, 99999.0, 2e5] * 13 + [1e5]),
    "integers-with-missing": (repeat("1", "NA", "-3", "+4"), "integer", [1, None, -3, 4] * 10),
    "integers-of-18-digits": (repeat("9" * 18, "1"), "integer", [10**18 - 1, 1] * 20),
    "integers-written-with-point": (repeat("1.0", "2.5"), "number", [1.0, 2.5] * 20),
    "numbers": (repeat(".5", "-1.25", "1E-3", "7."), "number", [0.5, -1.25, 0.001, 7.0] * 10),
    "booleans-in-words": (repeat("yes", "No", "N/A", "YES"), "boolean", [True, False, None, True] * 10),
    "true-and-false": (repeat("True", "FALSE"), "boolean", [True, False] * 20),
    "dates": (repeat("2024-02-29", "", "1999-12-31"), "datetime", None),
    "category": (repeat("a", "b c", "?"), "category", ["a", "b c", None] * 13 + ["a"]),
    "numbers-beyond-float": (repeat("1e400", "a"), "category", repeat("1e400", "a")),
}


@pytest.mark.parametrize(("texts", "kind", "values"), KEPT.values(), ids=KEPT)
def test_inference_keeps_what_the_file_says(
    load: Load, root: Path, texts: list[str], kind: str, values: list[object] | None
) -> None:
    assert load({"c": texts}).returncode == 0
    column, found = read_column(root, "c")
    assert column.kind == kind
    if values is None:
        values = [datetime(2024, 2, 29), None, datetime(1999, 12, 31)] * 13 + [datetime(2024, 2, 29)]
    assert found == values
    assert column.nullable == (None in found)


def test_text_among_numbers_makes_texts_and_is_said_when_there_are_too_many(load: Load, root: Path) -> None:
    done = load({"c": repeat("1", "2", "many")})
    assert read_column(root, "c")[0].kind == "category"
    assert 'column "c": read as text: 13 of 40 values are no numbers' in done.stdout


@pytest.mark.parametrize(
    ("texts", "format", "first"),
    [
        (["2024-05-01T13:45:00.5"] * 2, "iso", datetime(2024, 5, 1, 13, 45, 0, 500_000)),
        (["2024-05-01 13:45+02:00"] * 2, "iso", datetime(2024, 5, 1, 11, 45)),
        (["2024/05/01"] * 2, "%Y/%m/%d", datetime(2024, 5, 1)),
        (["31.12.2024", "01.02.2024"], "%d.%m.%Y", datetime(2024, 12, 31)),
        (["12/31/2024", "01/02/2024"], "%m/%d/%Y", datetime(2024, 12, 31)),
        (["31/12/2024 10:30", "01/02/2024 11:00"], "%d/%m/%Y %H:%M", datetime(2024, 12, 31, 10, 30)),
    ],
)
def test_date_formats_are_told_apart(load: Load, root: Path, texts: list[str], format: str, first: datetime) -> None:
    later = texts[-1].replace("2024", "2023")
    load({"c": [*texts, *[later] * (N - 2)]})
    column, values = read_column(root, "c")
    assert (column.kind, column.format, values[0]) == ("datetime", format, first)


def test_date_that_fits_two_orders_stays_text(load: Load, root: Path) -> None:
    load({"c": repeat("03/04/2024", "05/06/2024")})
    assert read_column(root, "c")[0].kind == "category"


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([f"u-{i}" for i in range(N)], "every value is different, as in an id"),
        ([str(i) for i in range(N)], "every value is different, as in an id"),
        (["same"] * N, "every value is the same"),
        (["NA"] * N, "every value is missing"),
        ([f"{'word ' * 10} {i}" for i in range(N)], "free text is not encoded"),
    ],
    ids=["texts-as-id", "counter", "constant", "empty", "prose"],
)
def test_useless_column_is_ignored_and_said(load: Load, root: Path, texts: list[str], reason: str) -> None:
    done = load({"c": texts})
    assert f'ignored "c": {reason}' in done.stdout
    assert (read_column(root, "c")[0].role, read_column(root, "c")[0].reason) == ("ignored", reason)


@pytest.mark.parametrize(
    ("values", "flags", "task"),
    [
        ([str(i / 3) for i in range(N)], [], "regression"),
        ([str(i) for i in range(N)], [], "regression"),
        (repeat("0", "1"), [], "binary"),
        (repeat("0", "1"), ["--task", "regression"], "regression"),
        (repeat("yes", "no"), [], "binary"),
        (repeat("1", "2", "3"), [], "multiclass"),
        (repeat("a", "b", "c"), [], "multiclass"),
        ([str(i % 11) for i in range(N)], [], "regression"),
        ([str(i % 11) for i in range(N)], ["--task", "classification"], "multiclass"),
    ],
)
def test_task_follows_from_the_target(load: Load, root: Path, values: list[str], flags: list[str], task: str) -> None:
    assert load({"t": values}, "--target", "t", *flags).returncode == 0
    assert contracts.read_contract(root / "data" / "schema.yaml")[0].task == task


@pytest.mark.parametrize(
    ("values", "flags", "fragment"),
    [
        (["only"] * N, [], "every value is the same"),
        (["NA"] * N, [], "every value is missing"),
        ([f"id{i}" for i in range(N)], [], "40 different values in 40 rows are too many to be classes"),
        (repeat("a", "b"), ["--task", "regression"], "a regression needs numbers, got values of kind category"),
    ],
)
def test_target_that_allows_no_task_is_refused(load: Load, values: list[str], flags: list[str], fragment: str) -> None:
    assert_refused(load({"t": values}, "--target", "t", *flags), 'column "t" cannot be the target', fragment)


# Edits by hand


def test_na_is_a_category_when_the_contract_declares_it(load: Load, root: Path) -> None:
    columns = {"c": repeat("NA", "null", "EU", "")}
    load(columns)
    assert read_column(root, "c")[1][:4] == [None, None, "EU", None]
    edit_schema(root, "    kind: category\n", "    kind: category\n    missing: []\n")
    assert load(columns).returncode == 0
    assert read_column(root, "c")[1][:4] == ["NA", "null", "EU", None]


def test_edits_win_and_the_file_stays_as_written_comments_included(load: Load, root: Path) -> None:
    columns = {"c": repeat("1", "2", "3")}
    load(columns)
    edit_schema(root, "  c:\n    kind: integer", "  # codes, not counts\n  c:\n    kind: category")
    edit_schema(root, "    min: 1\n    max: 3\n    out_of_range: warn\n    example: 1\n", "")
    written = (root / "data" / "schema.yaml").read_bytes()
    done = load(columns)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'edited by hand: "c"' in done.stdout
    assert (root / "data" / "schema.yaml").read_bytes() == written
    assert read_column(root, "c")[1][:3] == ["1", "2", "3"]


def test_comment_alone_is_no_edit(load: Load, root: Path) -> None:
    load({"c": repeat("a", "b")})
    edit_schema(root, "columns:\n", "# mine\ncolumns:\n")
    written = (root / "data" / "schema.yaml").read_bytes()
    assert "edited by hand" not in load({"c": repeat("a", "b")}).stdout
    assert (root / "data" / "schema.yaml").read_bytes() == written


def test_other_source_infers_anew_while_nothing_is_edited(load: Load, root: Path) -> None:
    load({"c": repeat("1", "2")})
    assert load({"c": repeat("a", "b")}, name="other.csv").returncode == 0
    assert read_column(root, "c")[0].categories == ["a", "b"]


def test_other_target_infers_anew_while_nothing_is_edited(load: Load, root: Path) -> None:
    columns = {"c": repeat("1.5", "2.5", "3")}
    load(columns)
    assert load(columns, "--target", "c").returncode == 0
    contract, _ = contracts.read_contract(root / "data" / "schema.yaml")
    assert (contract.target, contract.columns["y"].role) == ("c", "feature")


@pytest.mark.parametrize("switch", [{"name": "other.csv"}, {"flags": ["--target", "c"]}], ids=["source", "target"])
def test_switch_under_an_edited_contract_is_refused_until_infer(load: Load, root: Path, switch) -> None:
    columns = {"c": repeat("1.5", "2.5", "3"), "d": repeat("a", "b")}
    flags, name = switch.get("flags", []), switch.get("name", "my.csv")
    load(columns)
    edit_schema(root, "    categories: [a, b]\n    unseen: warn", "    categories: [a, b]\n    unseen: refuse")
    before = snapshot(root)
    done = load(columns, *flags, name=name)
    assert_refused(done, 'schema.yaml was edited by hand ("d")', "--infer", "--root")
    assert snapshot(root) == before

    done = load(columns, *flags, "--infer", name=name)
    assert done.returncode == 0, done.stderr
    assert 'kept as edited by hand: "d"' in done.stdout
    assert read_column(root, "d")[0].unseen == "refuse"
    assert load(columns, *flags, name=name).returncode == 0, "the edit is still known as one"


def test_infer_takes_up_new_values_of_unedited_columns_only(load: Load, root: Path) -> None:
    load({"c": repeat("1", "2"), "d": repeat("a", "b")})
    edit_schema(root, "categories: [a, b]", "categories: [a, b, z]")
    grown = {"c": repeat("1", "9"), "d": repeat("a", "new")}
    done = load(grown)
    assert 'column "c": 20 values outside 1 to 2' in done.stdout
    load(grown, "--infer")
    assert read_column(root, "c")[0].max == 9
    assert read_column(root, "d")[0].categories == ["a", "b", "z"]


def test_nullable_false_sets_rows_without_a_value_aside(load: Load, root: Path) -> None:
    load({"c": [str(i % 5) for i in range(200)]})
    done = load({"c": ["NA", *(str(i % 5) for i in range(199))]})
    assert done.returncode == 0, done.stderr
    (row,) = pq.read_table(root / "data" / "rejected.parquet").to_pylist()
    assert (row["line"], row["reason"]) == (2, 'column "c" expects a value (nullable: false), got "NA"')


def test_id_column_stays_in_the_table_and_out_of_the_features(load: Load, root: Path) -> None:
    load({"c": repeat("a", "b", "c")})
    edit_schema(root, "  c:\n    kind: category\n    role: feature", "  c:\n    kind: category\n    role: id")
    load({"c": repeat("a", "b", "c")})
    contract, _ = contracts.read_contract(root / "data" / "schema.yaml")
    assert list(contract.features) == ["x"]
    assert read_column(root, "c")[1][:3] == ["a", "b", "c"]


# Properties

# What a cell may hold without being trimmed or unreadable by design: no NUL, no blanks at the ends.
cells = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12).map(
    lambda text: text.strip("".join(map(chr, range(33)))).strip()
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6), st.sampled_from([",", ";", "\t", "|"]))
def test_csv_keeps_every_text(rows: list[tuple[str, str]], separator: str) -> None:
    lines = ["first" + separator + "second"]
    lines += [separator.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    content = "\r\n".join(lines).encode()
    pieces = [content[place : place + 7] for place in range(0, len(content), 7)]
    found = []
    for block in csv_reader.read_blocks(pieces, separator, "my.csv", size=20):
        texts = typed_blocks.read_texts(block, block.header)
        found += zip(*(column.to_pylist() for column in texts.values()), strict=True)
    assert found == rows


def test_blocks_are_the_same_in_buffers_that_are_written_over() -> None:
    content = b"a,b\n" + b"".join(b"%d,%d\n" % (row, row * row) for row in range(60_000))
    spare: list[bytearray] = []
    found, used = b"", set()
    for block in csv_reader.read_blocks([content], ",", "my.csv", 100_000, spare):
        found += block.content
        used.add(id(block.view.obj))
        csv_reader.recycle(block, spare)
    assert found == content.removeprefix(b"a,b\n")
    assert len(used) == 1


def test_record_longer_than_a_block_makes_a_longer_block() -> None:
    records = [b"1,2\n", b"3,%s\n" % (b"x" * 1_000_000), b"5,6\n"] * 3
    spare: list[bytearray] = []
    found = []
    for block in csv_reader.read_blocks([b"a,b\n", *records], ",", "my.csv", 100_000, spare):
        found.append(block.content)
        csv_reader.recycle(block, spare)
    assert b"".join(found) == b"".join(records)


@quick
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6))
@example([("a\nb", "\n"), ("", "c\r\rd")])
def test_rows_are_found_on_the_lines_where_they_stand(rows: list[tuple[str, str]]) -> None:
    records = ["a,b", *(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)]
    content = "\n".join(records).encode()
    starts, stops, lines = csv_places.locate_records(content, ",")
    assert [content[a:b].decode() for a, b in zip(starts, stops, strict=True)] == records
    before = [content[:start].replace(b"\r\n", b"\n").replace(b"\r", b"\n") for start in starts]
    assert lines.tolist() == [text.count(b"\n") + 1 for text in before]


def cast(texts: list[str], column: Column) -> list[object]:
    return cast_column(pa.array(texts, pa.string()), column, ["", "NA"]).values.to_pylist()


@quick
@given(st.lists(st.floats(-1e30, 1e30)))
def test_numbers_survive_as_they_are_written(values: list[float]) -> None:
    assert cast([repr(value) for value in values], Column(kind="number")) == values


@quick
@given(st.lists(st.integers(-(10**18) + 1, 10**18 - 1)))
def test_integers_survive_as_they_are_written(values: list[int]) -> None:
    assert cast([str(value) for value in values], Column(kind="integer")) == values


@quick
@given(st.lists(st.datetimes(min_value=datetime(1000, 1, 1))))
def test_dates_survive_as_they_are_written(values: list[datetime]) -> None:
    assert cast([value.isoformat() for value in values], Column(kind="datetime")) == values


@quick
@given(st.lists(st.sampled_from(["Ja", "NEIN", "ja", ""])))
def test_booleans_survive_in_the_declared_words(texts: list[str]) -> None:
    column = Column(kind="boolean", true_values=["ja"], false_values=["nein"])
    assert cast(texts, column) == [{"j": True, "n": False}.get(text[:1].lower()) for text in texts]


# Edits of a kind, as people make them


def test_integer_column_made_a_category_by_its_kind_alone_is_loaded_as_texts(load: Load, root: Path) -> None:
    load({"zip": repeat("1001", "1002"), "b": repeat("x", "y", "z")})
    edit_schema(root, "zip:\n    kind: integer", "zip:\n    kind: category")
    done = load({"zip": repeat("1001", "1002"), "b": repeat("x", "y", "z")})
    assert done.returncode == 0, done.stderr
    column, values = read_column(root, "zip")
    assert (column.kind, column.example, column.min, column.max) == ("category", "1001", None, None)
    assert set(values) == {"1001", "1002"}


def test_refusing_unseen_categories_needs_their_list(load: Load, root: Path) -> None:
    load({"zip": repeat("1001", "1002"), "b": repeat("x", "y", "z")})
    edit_schema(root, "zip:\n    kind: integer", "zip:\n    kind: category\n    unseen: refuse")
    assert_refused(
        load({"zip": repeat("1001", "1002"), "b": repeat("x", "y", "z")}), "needs the list of the categories"
    )


def test_categories_written_as_numbers_are_the_texts_of_the_file(load: Load, root: Path) -> None:
    load({"zip": repeat("1001", "1002"), "b": repeat("x", "y", "z")})
    edit_schema(root, "zip:\n    kind: integer", "zip:\n    kind: category\n    categories: [1001, 1002]")
    assert load({"zip": repeat("1001", "1002"), "b": repeat("x", "y", "z")}).returncode == 0
    assert read_column(root, "zip")[0].categories == ["1001", "1002"]


def test_text_that_yaml_takes_for_a_boolean_is_named(load: Load, root: Path) -> None:
    load({"c": repeat("a", "b"), "d": repeat("1", "2", "3")})
    edit_schema(root, "categories: [a, b]", "categories: [a, no]")
    assert_refused(load({"c": repeat("a", "b"), "d": repeat("1", "2", "3")}), "got False; put it in quotes")


# Numbers as they are written elsewhere


@pytest.mark.parametrize(
    ("texts", "kind", "words"),
    [
        (["12,5", "-3,25", "1.234,5", "7"], "number", "read as numbers with a decimal comma"),
        (["1,234", "5,678", "9,012"], "category", "its commas may set off thousands or decimals"),
        (["03/04/2021", "05/06/2021", "01/02/2021"], "category", "its dates may begin with the day or the month"),
        (["$1.50", "$2", "$3.25"], "category", "they look like numbers with a sign of their unit"),
        (["None", "1", "2"], "integer", '"None" means missing, as in "c"'),
    ],
)
def test_doubtful_texts_are_named(load: Load, root: Path, texts: list[str], kind: str, words: str) -> None:
    done = load({"c": repeat(*texts), "d": repeat("1", "2", "3")})
    assert words in done.stdout
    assert read_column(root, "c")[0].kind == kind


def test_decimal_commas_are_read_as_the_numbers_they_are(load: Load, root: Path) -> None:
    load({"c": repeat("12,5", "-3,25", "1.234,5", "7"), "d": repeat("1", "2", "3")})
    column, values = read_column(root, "c")
    assert column.decimal == ","
    assert set(values) == {12.5, -3.25, 1234.5, 7.0}


def test_blank_lines_before_the_header_are_no_header(call_stage, root: Path, tmp_path: Path) -> None:
    rows = "".join(f"{i % 7 + 0.5},{i}\n" for i in range(40))
    (tmp_path / "my.csv").write_text(f"\n\r\nx,y\n{rows}oops,1\n", encoding="utf-8", newline="")
    done = call_stage("load", root, "--source", tmp_path / "my.csv", "--target", "y", "--max-rejected", 0.1)
    assert done.returncode == 0, done.stderr
    assert 'line 44: column "x" expects a finite number' in done.stdout


def test_id_with_a_repeated_row_is_still_an_id(load: Load, root: Path) -> None:
    done = load({"customer_id": [str(1000 + 3 * i) for i in range(39)] + ["1000"]})
    assert 'ignored "customer_id": almost every value is different (39 of 40), as in an id' in done.stdout
