"""Loading block by block: the whole file decides, the cuts do not; nothing is guessed wrong, and no row is lost."""

import csv
import gzip
import io
import json
import string
import subprocess
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import assert_refused, edit_schema, snapshot

from data_ingestion import csv_reader, loading, profiling
from data_ingestion import schema as contracts
from data_ingestion.handoff import PipelineError, Workspace
from data_ingestion.inferring import start_inference
from data_ingestion.loading import Outputs
from data_ingestion.schema import Contract
from data_ingestion.source_reader import SourceReader
from data_ingestion.sources import find_sources
from data_ingestion.validation import find_unexpected_rows

Load = Callable[..., "subprocess.CompletedProcess[str]"]
ROWS = 30_000


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 20 kB, a first look at 64 kB in all."""
    monkeypatch.setattr(csv_reader, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(loading, "PEEK_BYTES", 64 * 1024)


def format_csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def infer(
    folder: Path, content: bytes, target: str = "y", tolerated: float = 0.01, separator: str | None = None
) -> tuple[Contract, pa.Table]:
    """The contract and the rows of a file of these bytes, without the files around them."""
    folder.mkdir(exist_ok=True)
    (folder / "my.csv").write_bytes(content)
    sources, name = find_sources(str(folder / "my.csv"), Workspace(folder))
    readers = [SourceReader(source) for source in sources]
    belief = start_inference(readers, name, separator, None, target, "auto", tolerated, 1)
    for _ in range(6):
        tables: list[pa.Table] = []
        reading = belief.read(belief.build_layout(), Outputs(tables.append, lambda *_: None), None)
        if not belief.revise(reading):
            contract, _, _ = belief.conclude(reading)
            return contract, pa.concat_tables(tables)
    raise AssertionError("the kinds did not settle")


def column(values: Sequence[object], name: str = "x") -> bytes:
    """A file with one column of these values and a numeric target."""
    return format_csv([name, "y"], [(value, i % 97) for i, value in enumerate(values)]).encode()


# The whole file decides


LATE = {
    "float-after-integers": (lambda i: "1.5" if i == ROWS - 9 else i % 50, "number"),
    "text-after-integers": (lambda i: f"t{i % 9}" if i > 0.9 * ROWS else i % 50, "category"),
    "few-texts-among-integers": (lambda i: "tall" if i % 1000 == 7 else i % 50, "integer"),
    "zeros-in-front-of-one": (lambda i: "007" if i == ROWS - 9 else i % 50, "category"),
    "exponent-in-one": (lambda i: "1e5" if i == ROWS - 9 else i % 50, "category"),
    "thirty-digits-late": (lambda i: "9" * 30 if i > 0.9 * ROWS else i % 50, "category"),
    "missing-first": (lambda i: "" if i < 0.95 * ROWS else i % 50, "integer"),
    "missing-first-then-dates": (lambda i: "NA" if i < 0.95 * ROWS else f"2024-01-{i % 28 + 1:02}", "datetime"),
    "dates-of-two-forms": (lambda i: f"{i % 28 + 1:02}.01.2024" if i % 2 else "2024-01-05", "category"),
    "one-date-of-another-form": (lambda i: "05.01.2024" if i == ROWS - 9 else f"2024-01-{i % 28 + 1:02}", "datetime"),
    "dates-behind-many-words": (lambda i: f"none {i}" if i < 250 else f"2024/01/{i % 28 + 1:02}", "datetime"),
    "third-word-late": (lambda i: "maybe" if i == ROWS - 9 else ("yes", "no")[i % 2], "category"),
    "words": (lambda i: ("Yes", "NO", "no")[i % 3], "boolean"),
    "slash-dates-told-by-many": (lambda i: f"{13 if i > 0.97 * ROWS else i % 12 + 1:02}/05/2024", "datetime"),
    "slash-dates-told-by-one-slip": (lambda i: f"{13 if i == ROWS - 9 else i % 12 + 1:02}/05/2024", "category"),
    "dates-with-hyphens": (lambda i: f"{i % 28 + 1:02}-05-2024", "datetime"),
    "dates-with-short-years": (lambda i: f"{i % 28 + 1:02}/05/24", "datetime"),
    "months-by-name": (lambda i: f"{['Jan', 'May', 'DEC'][i % 3]} {i % 28 + 1} 2024", "datetime"),
    "months-by-whole-name": (lambda i: f"{i % 28 + 1} {['January', 'May', 'December'][i % 3]} 2024", "datetime"),
    "may-alone": (lambda i: f"{i % 28 + 1} May 2024", "datetime"),
    "slash-dates-not-to-be-told": (lambda i: f"{i % 12 + 1:02}/05/2024", "category"),
}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("case", LATE)
def test_kind_of_a_column_follows_from_every_value(tmp_path: Path, case: str) -> None:
    value, kind = LATE[case]
    contract, table = infer(tmp_path, column([value(i) for i in range(ROWS)]))
    assert contract.columns["x"].kind == kind
    rejected = {"few-texts-among-integers": 30, "one-date-of-another-form": 1, "dates-behind-many-words": 250}
    assert table.num_rows == ROWS - rejected.get(case, 0)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("first", ["number", "datetime"])
def test_packed_column_that_is_empty_at_first_has_the_kind_of_its_many_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """The first look at a packed file goes no further than its beginning, and more levels than this are not counted."""
    monkeypatch.setattr(profiling, "MAX_LEVELS", 1_000)
    start = datetime(2024, 1, 1)
    value = {"number": lambda i: f"{i / 7:.4f}", "datetime": lambda i: start + timedelta(minutes=i)}[first]
    content = column(["" if i < ROWS // 2 else value(i) for i in range(ROWS)])
    contract, table = infer(tmp_path, gzip.compress(content))
    assert contract.columns["x"].kind == first
    assert table["x"].null_count == ROWS // 2


def test_points_beside_a_decimal_comma_stand_between_thousands(tmp_path: Path) -> None:
    rows = [(f"{i % 90 + 10}.{i % 900 + 100}", "950", f"{i % 97},{i % 10}") for i in range(200)]
    contract, table = infer(tmp_path, "\n".join(["a;b;y", *map(";".join, rows)]).encode())
    assert contract.columns["a"].kind == "number"
    assert table["a"].to_pylist()[:2] == [10_100, 11_101]
    assert set(table["b"].to_pylist()) == {950}


def test_numbers_too_large_to_calculate_with_end_as_texts(tmp_path: Path) -> None:
    """By their form they are numbers, by their size they are not: no reading back and forth."""
    rows = [("9" * 32 + ",5" if i % 10 == 0 else f"{i},5", i % 7, i % 97) for i in range(300)]
    contract, _ = infer(tmp_path, "\n".join(["x;z;y", *(f"{x};{z};{y}" for x, z, y in rows)]).encode())
    assert contract.columns["x"].kind == "category"


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("text", ["007", " 007", '"007"'])
def test_zero_in_front_is_found_behind_any_separator(tmp_path: Path, separator: str, text: str) -> None:
    lines = [separator.join(("x", "y")), *(separator.join((str(i % 50 + 1), str(i % 97))) for i in range(ROWS))]
    if separator != " " or text != " 007":
        lines[ROWS - 9] = separator.join((text, "5"))
        contract, _ = infer(tmp_path, "\n".join(lines).encode(), separator=separator)
        assert contract.columns["x"].kind == "category"


@pytest.mark.usefixtures("small_blocks")
def test_faults_of_a_column_that_turns_out_useless_set_no_row_aside(tmp_path: Path) -> None:
    rows = [(i + 10, f"{i % 7}", i % 97) for i in range(ROWS)]
    rows[ROWS - 9] = ("none at all", "3", 5)
    contract, table = infer(tmp_path, format_csv(["row id", "x", "y"], rows).encode())
    assert contract.columns["row id"].role == "ignored"
    assert table.num_rows == ROWS


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("values", "kind", "task"),
    [
        ([0, 1], "integer", "binary"),
        (["0.5", "1.5"], "category", "binary"),
        (["no", "yes"], "category", "binary"),
        (list(range(11)), "integer", "regression"),
        (["a", "b", "c"], "category", "multiclass"),
    ],
)
def test_rare_value_of_the_target_decides_the_task(tmp_path: Path, values: list[object], kind: str, task: str) -> None:
    """All but the first value stand only once, near the end, where the first look does not see them."""
    y = [values[0]] * ROWS
    for place, value in enumerate(values[1:]):
        y[ROWS - 900 - place] = value
    contract, _ = infer(tmp_path, format_csv(["x", "y"], [(i % 31, v) for i, v in enumerate(y)]).encode())
    assert (contract.columns["y"].kind, contract.task) == (kind, task)


def test_years_are_learnt_from_where_nothing_else_is_left(tmp_path: Path) -> None:
    content = format_csv(["year", "y"], [(1900 + i, i * 7 % 31 / 4) for i in range(120)]).encode()
    contract, _ = infer(tmp_path, content)
    assert contract.columns["year"].role == "feature"


@pytest.mark.usefixtures("small_blocks")
def test_ranges_and_categories_hold_every_value(tmp_path: Path) -> None:
    names = [f"c{i * i % 83}" for i in range(ROWS)]
    names[-1] = "last"
    numbers = [i * 7919 % 10_007 / 8 for i in range(ROWS)]
    numbers[ROWS // 2] = -1e9
    contract, table = infer(tmp_path, format_csv(["n", "c", "y"], [*zip(numbers, names, range(ROWS))]).encode())
    assert contract.columns["n"].min == -1e9
    assert contract.columns["n"].max == max(numbers)
    assert contract.columns["c"].categories == sorted(set(names))
    assert table["n"].to_pylist() == numbers
    assert table["c"].to_pylist() == names


@pytest.mark.parametrize("size", [300, 5_000, 4 * 1024 * 1024])
@pytest.mark.parametrize("workers", [1, 3])
def test_neither_cuts_nor_threads_change_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, workers: int
) -> None:
    rows = [
        (f'a "quoted"\nname {i % 5}' if i % 3 else "plain", i / 8, "" if i % 11 == 0 else i, i % 13)
        for i in range(2000)
    ]
    content = format_csv(["name", "half", "some", "y"], rows).replace("\n", "\r\n").encode()
    expected = infer(tmp_path, content)
    monkeypatch.setattr(csv_reader, "BLOCK_BYTES", size)
    monkeypatch.setattr(loading, "count_workers", lambda: workers)
    contract, table = infer(tmp_path, content)
    assert contract == expected[0]
    assert table.combine_chunks().unify_dictionaries().to_pydict() == expected[1].to_pydict()
    assert table["name"].to_pylist()[1] == 'a "quoted"\r\nname 1'


# Properties

quick = settings(max_examples=40, deadline=None)
texts = (
    st.text(string.ascii_letters + ' ,;"\näß', min_size=1, max_size=8)
    .map(str.strip)
    .filter(lambda text: text not in contracts.MISSING and not text.lower().startswith(("nan", "inf")))
)
moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(lambda m: m.replace(fold=0))
KINDS = {
    "number": (st.floats(-1e30, 1e30, allow_nan=False), repr),
    "integer": (st.integers(-(10**18) + 1, 10**18 - 1), str),
    "boolean": (st.booleans(), lambda value: "true" if value else "false"),
    "datetime": (moments, lambda value: value.isoformat(sep=" ")),
    "category": (texts, str),
}


@pytest.mark.parametrize("kind", KINDS)
def test_written_values_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    values, write = KINDS[kind]
    folder = tmp_path_factory.mktemp("kinds")

    @quick
    @given(st.lists(values | st.none(), min_size=4, max_size=30).filter(lambda v: sum(x is not None for x in v) > 1))
    def check(column_values: list[object]) -> None:
        rows = [("" if v is None else write(v), i) for i, v in enumerate(column_values)]
        path = folder / "my.csv"
        path.write_text(format_csv(["x", "y"], rows), encoding="utf-8", newline="")
        columns = {"x": {"kind": kind}, "y": {"kind": "integer", "role": "target"}}
        contract = contracts.parse_contract(
            {"source": "my.csv", "target": "y", "task": "regression", "columns": columns}, "test"
        )
        sources, _ = find_sources(str(path), Workspace(folder))
        tables: list[pa.Table] = []
        outputs = Outputs(tables.append, lambda *_: None)
        loading.read_sources([SourceReader(sources[0])], ",", loading.Layout(contract), False, outputs)
        assert pa.concat_tables(tables)["x"].to_pylist() == column_values

    check()


messy = st.sampled_from(
    [
        *("1", "2.5", "-3", "007", "1e5", "inf", "NA", "", " ?", "yes", "no", "2024-01-05", "05.01.2024", "0x1F"),
        *("9" * 25, "a", 'b "c"', "1,5", "+4", "  7 ", "13/05/2024"),
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(messy, messy, st.sampled_from(["a", "b\nc", 'say "hi"', ""])), min_size=15, max_size=60),
    st.sampled_from([0.0, 0.02, 0.2]),
    st.integers(40, 400),
    st.booleans(),
)
def test_small_cuts_and_a_short_first_look_find_what_one_look_at_the_whole_finds(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], tolerated: float, size: int, quoted: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / "cuts"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    writer.writerows([("a", "b", "c", "y"), *((*row, i + 0.5) for i, row in enumerate(rows))])
    content = text.getvalue().encode()
    with pytest.MonkeyPatch.context() as patch:
        whole = infer_or_refuse(folder, content, tolerated)
        patch.setattr(csv_reader, "BLOCK_BYTES", size)
        patch.setattr(loading, "PEEK_BYTES", size)
        patch.setattr(loading, "MIN_PEEK_BYTES", size)
        assert infer_or_refuse(folder, content, tolerated) == whole


def infer_or_refuse(folder: Path, content: bytes, tolerated: float) -> tuple[object, object]:
    """The contract and the rows, or the message of the refusal."""
    try:
        contract, table = infer(folder, content, "y", tolerated)
    except PipelineError as err:
        return str(err), None
    return contract, table.to_pydict()


@settings(max_examples=150, deadline=None)
@given(st.lists(messy, min_size=10, max_size=40), st.sampled_from([0.0, 0.1, 0.3]))
def test_inferred_contract_holds_every_kept_value_and_no_row_is_lost(
    tmp_path_factory: pytest.TempPathFactory, values: list[str], tolerated: float
) -> None:
    folder = tmp_path_factory.getbasetemp() / "messy"
    rows = [(value, i % 3, i + 0.5) for i, value in enumerate(values)]
    contract, table = infer(folder, format_csv(["x", "z", "y"], rows).encode(), "y", tolerated)
    kept = table.combine_chunks()
    assert len(values) - table.num_rows <= tolerated * len(values)
    assert kept["y"].to_pylist() == sorted(set(kept["y"].to_pylist()))
    for name, entry in contract.columns.items():
        if entry.role == "feature":
            assert len(find_unexpected_rows(kept[name].combine_chunks(), entry)) == 0


# The second load, and what it finds


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def good_rows(n_rows: int = 200) -> list[list[object]]:
    return [[i / 4, ["red", "blue"][i % 2], "" if i % 50 == 0 else i % 7, i * 3 % 101] for i in range(n_rows)]


HEADER = ["size", "color", "some", "price"]


@pytest.fixture
def load(call_stage, root: Path, tmp_path: Path) -> Load:
    def run(rows: Sequence[Sequence[object]], *flags: object, header: Sequence[str] = HEADER):  # type: ignore[no-untyped-def]
        (tmp_path / "my.csv").write_text(format_csv(header, rows), encoding="utf-8", newline="")
        return run.again(*flags)  # type: ignore[attr-defined]

    run.again = lambda *flags: call_stage(  # type: ignore[attr-defined]
        "load", root, "--source", tmp_path / "my.csv", "--target", "price", *flags
    )
    return run


def test_all_findings_come_at_once_each_with_its_first_lines(load: Load) -> None:
    load(good_rows())
    rows = good_rows()
    for line in (7, 9, 11, 13, 15, 17, 19):
        rows[line - 2][0] = 1000 + line
    rows[40][1] = "green"
    for row in rows[50:120]:
        row[2] = ""
    rows[60][0] = "tall"
    done = load([[*row, "new"] for row in rows], header=[*HEADER, "extra"])
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        '  note: left out: "extra", unknown to data/schema.yaml',
        '  note: column "size": 7 values outside 0.0 to 49.75 (lines 7, 9, 11, 13, 15, +2 more)',
        '  note: column "color": 1 rows with unknown categories (line 42)',
        '    line 62: column "size" expects a finite number of at most 1e30, got "tall"',
        '  note: column "some": 72 values missing (36.0% of the rows, expected 2.0%)',
    ):
        assert line in done.stdout
    assert "--infer takes what is new up" in done.stdout


def test_refusal_names_every_kind_of_fault_and_all_findings(load: Load) -> None:
    load(good_rows())
    rows = good_rows()
    for line in range(7, 21):
        rows[line - 2][0] = "tall"
    rows[40][3] = "dear"
    rows[41][1] = "green"
    done = load([[*row, "new"] for row in rows], header=[*HEADER, "extra"])
    assert_refused(
        done,
        'line 7: column "size" expects a finite number of at most 1e30, got "tall"; line 8: got "tall"',
        "(+9 more)",
        'line 42: column "price" expects',
        'Found besides: left out: "extra"',
        'column "color": 1 rows with unknown categories (line 43)',
    )


def test_all_missing_columns_are_named_with_near_names(load: Load) -> None:
    load(good_rows())
    refused = load(good_rows(), header=["syze", "colour", "some", "price"])
    assert_refused(refused, 'columns "size", "color" of data/schema.yaml are missing')
    assert 'For "size": Did you mean "syze"?' in refused.stderr
    assert 'For "color": Did you mean "colour"?' in refused.stderr


def test_check_tells_everything_and_writes_nothing(load: Load, root: Path) -> None:
    load(good_rows())
    before = snapshot(root)
    rows = good_rows()
    rows[5][1] = "green"
    done = load(rows, "--check")
    assert done.returncode == 0
    assert "1 rows with unknown categories (line 7)" in done.stdout
    assert done.stdout.endswith("checked; nothing was written\n")
    rows[:9] = [["tall", *row[1:]] for row in rows[:9]]
    assert_refused(load(rows, "--check"), "9 of 200 rows are at fault", "line 2")
    assert snapshot(root) == before


def test_usual_share_of_missing_values_is_no_finding(load: Load) -> None:
    load(good_rows())
    rows = good_rows()
    for row in rows[100:103]:
        row[2] = ""
    assert "missing (" not in load(rows).stdout


def test_numbers_with_thousands_and_currency_are_read_when_declared(load: Load, root: Path) -> None:
    rows = [[f"$ {1000 + i:,}.50", *row[1:]] for i, row in enumerate(good_rows())]
    done = load(rows)
    assert "write kind: number, role: feature and currency" in done.stdout
    declared = "  size:\n    kind: number\n    role: feature\n    currency: $\n    thousands: ','"
    edit_schema(root, "  size:\n    kind: category\n    role: ignored", declared)
    done = load(rows)
    assert (done.returncode, done.stderr) == (0, "")
    sizes = pq.read_table(root / "data" / "raw.parquet")["size"].to_pylist()
    assert sizes == [1000.5 + i for i in range(200)]
    assert_refused(load([["$ 1,0000", *row[1:]] for row in good_rows()]), "expects a finite number", 'got "$ 1,0000"')


def test_profile_and_comments_tell_what_the_columns_hold(load: Load, root: Path) -> None:
    load(good_rows())
    profile = json.loads((root / "data" / "profile.json").read_bytes())
    size, some = profile["columns"]["size"], profile["columns"]["some"]
    assert (profile["rows"], size["min"], size["max"], size["mean"]) == (200, 0.0, 49.75, 24.875)
    assert size["quantiles"] == {"0.05": 2.5, "0.25": 12.5, "0.5": 25.0, "0.75": 37.25, "0.95": 47.25}
    assert (some["missing"], some["missing_share"], some["distinct"]) == (4, 0.02, 7)
    assert profile["columns"]["color"]["top"] == [{"value": "red", "rows": 100}, {"value": "blue", "rows": 100}]
    text = (root / "data" / "schema.yaml").read_text(encoding="utf-8")
    assert "  # 4 of 200 missing; quantiles 5/25/50/75/95 %: 0, 1, 3, 5, 6; 7 different values\n  some:\n" in text


# What an independent review broke


def set_missing(root: Path, column: str, spellings: str) -> None:
    edit_schema(root, f"  {column}:\n    kind:", f"  {column}:\n    missing: {spellings}\n    kind:")


@pytest.mark.parametrize("blanks", ["", "  ", "\t"])
@pytest.mark.parametrize("workers", [1, 4])
def test_number_that_means_missing_is_missing_everywhere(
    load: Load, root: Path, monkeypatch: pytest.MonkeyPatch, workers: int, blanks: str
) -> None:
    monkeypatch.setattr(csv_reader, "BLOCK_BYTES", 300)
    monkeypatch.setattr(loading, "count_workers", lambda: workers)
    load(good_rows())
    set_missing(root, "some", "['-999']")
    rows = good_rows()
    for place in range(0, 200, 3):
        rows[place][2] = f"{blanks}-999{blanks}"
    rows[100][2] = "+3"
    done = load(rows)
    assert (done.returncode, done.stderr) == (0, "")
    found = pq.read_table(root / "data" / "raw.parquet")["some"].to_pylist()
    assert found == [None if i % 3 == 0 or (i % 50 == 0 and i != 100) else 3 if i == 100 else i % 7 for i in range(200)]


@pytest.mark.parametrize("text", ["wait\x85what", "a\u2028b", "a\u2029b", "\x07", "a: b", "- c", "'", '"', "#x", "é"])
def test_contract_reads_as_it_was_written_whatever_names_and_categories_hold(load: Load, root: Path, text: str) -> None:
    rows = [[*row, text if i % 3 else "plain"] for i, row in enumerate(good_rows())]
    header = [*HEADER, text]
    assert load(rows, header=header).returncode == 0
    done = load(rows, header=header)
    assert (done.returncode, done.stderr) == (0, "")
    assert "note" not in done.stdout


@pytest.mark.parametrize("text", ["\t0x1F", "0x1F", " 0x1f", "-0x1", '"0x1F"'])
def test_hexadecimal_number_is_none_of_ours(load: Load, root: Path, text: str) -> None:
    rows = good_rows()
    load(rows)
    rows[7][2] = "@"
    content = format_csv(HEADER, rows).replace("@", text)
    content += '2,"5"" x",1\n3,blue,2,4\n\n'  # a record that does not fit, a quote in a field, a blank line
    (root.parent / "my.csv").write_text(content, encoding="utf-8", newline="")
    done = load.again()  # type: ignore[attr-defined]
    assert done.returncode == 0, done.stderr
    assert 31 not in pq.read_table(root / "data" / "raw.parquet")["some"].to_pylist()
    assert [row["line"] for row in pq.read_table(root / "data" / "rejected.parquet").to_pylist()] == [9, 202]


def test_edit_that_no_longer_fits_what_is_inferred_is_refused(load: Load, root: Path) -> None:
    load(good_rows())
    edit_schema(root, "  size:\n    kind: number\n    role: feature", "  size:\n    kind: number\n    role: ignored")
    before = snapshot(root)
    rows = [[row[0], "red", 1, row[3]] for row in good_rows()]
    assert_refused(load(rows, "--infer"), "no column is left to learn from")
    assert snapshot(root) == before


@pytest.mark.parametrize(
    ("old", "new", "fragment"),
    [
        ("max: 49.75", "max: 1.0e+40", "is no bound"),
        ("separator: ','", "separator: é", "separator"),
        ("inferred:\n", "inferred: abc\nignored:\n", "inferred must map columns to checksums"),
    ],
)
def test_contract_with_what_cannot_be_is_refused(load: Load, root: Path, old: str, new: str, fragment: str) -> None:
    load(good_rows())
    edit_schema(root, old, new)
    assert_refused(load(good_rows()), fragment)


@pytest.mark.parametrize(
    "flags", [["--separator", "é"], ["--separator", '"'], ["--encoding", "rot13"], ["--encoding", "zlib"]]
)
def test_separator_and_encoding_that_cannot_be_are_refused(load: Load, flags: list[str]) -> None:
    assert_refused(load(good_rows(), *flags), flags[1].strip('"') or "--separator")


def test_message_is_one_line_whatever_a_cell_holds(load: Load) -> None:
    load(good_rows())
    assert_refused(load([["oo\nps\x1b[31m", *row[1:]] for row in good_rows()]), r'got "oo\nps\x1b[31m"')


def test_text_column_stays_one_however_many_rows_may_be_at_fault(load: Load, root: Path) -> None:
    rows = [[row[0], "7" if i % 4 == 0 else row[1], *row[2:]] for i, row in enumerate(good_rows())]
    assert load(rows, "--max-rejected", "1").returncode == 0
    contract, _ = contracts.read_contract(root / "data" / "schema.yaml")
    assert contract.columns["color"].categories == ["7", "blue", "red"]


def test_infer_after_an_edit_of_the_kind_keeps_the_edit(load: Load, root: Path) -> None:
    rows = [[f"$ {i + 1}.50", *row[1:]] for i, row in enumerate(good_rows())]
    load(rows)
    declared = "  size:\n    kind: number\n    role: feature\n    currency: $"
    edit_schema(root, "  size:\n    kind: category\n    role: ignored", declared)
    for _ in range(2):
        done = load(rows, "--infer")
        assert (done.returncode, done.stderr) == (0, "")
        assert 'kept as edited by hand: "size"' in done.stdout
    assert pq.read_table(root / "data" / "raw.parquet")["size"].to_pylist() == [i + 1.5 for i in range(200)]


def test_any_file_may_be_checked_against_the_contract(load: Load, root: Path, call_stage, tmp_path: Path) -> None:
    load(good_rows())
    before = snapshot(root)
    rows = good_rows()
    rows[5][1] = "green"
    (tmp_path / "july.csv").write_text(format_csv(HEADER, rows), encoding="utf-8")
    done = call_stage("load", root, "--source", tmp_path / "july.csv", "--target", "price", "--check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'july.csv'}: 200 rows")
    assert "1 rows with unknown categories (line 7)" in done.stdout
    asked = call_stage("load", root, "--source", tmp_path / "july.csv", "--target", "size", "--check")
    assert 'whose target is "price", not "size"' in asked.stdout
    assert snapshot(root) == before
