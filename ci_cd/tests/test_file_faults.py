"""Bad source files: refused in one line with everything on disk as it was, or only the bad rows set aside."""

import bz2
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, STAGES, clean_environment
from small_runs import assert_refused, edit_schema, snapshot

from data_ingestion import source_reader

has_proc = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks /proc for the peak memory")
HEADER = "size,color,day,code,price"
ROWS = 200
TARGET = ("--target", "price")

Load = Callable[..., "subprocess.CompletedProcess[str]"]


def good_line(i: int) -> str:
    return f"{i / 4},{['red', 'blue', 'green'][i % 3]},2024-01-{i % 28 + 1:02},{100 + i // 2},{10 + i * 3.5}"


def lines(**replaced: str) -> list[str]:
    """The lines of a good file; L3="..." replaces its third line."""
    content = [HEADER, *(good_line(i) for i in range(ROWS))]
    for place, text in replaced.items():
        content[int(place[1:]) - 1] = text
    return content


def encode(content: list[str], newline: str = "\n", encoding: str = "utf-8") -> bytes:
    return (newline.join(content) + newline).encode(encoding)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def load(call_stage, root: Path, tmp_path: Path) -> Load:
    """Load these bytes as my.csv."""

    def run(content: bytes, *flags: object) -> "subprocess.CompletedProcess[str]":
        source = tmp_path / "my.csv"
        source.write_bytes(content)
        return call_stage("load", root, "--source", source, *TARGET, *flags)

    return run


@pytest.fixture
def loaded(load: Load, root: Path) -> dict[str, bytes]:
    """A good load; what it left on disk."""
    done = load(encode(lines()))
    assert done.returncode == 0, done.stderr
    return snapshot(root)


REFUSED = {
    "02-empty": (b"", ["my.csv is empty"]),
    "02-only-newlines": (b"\n\r\n\n", ["my.csv is empty"]),
    "03-header-only": (encode([HEADER]), ["header and no rows"]),
    "04-one-field-too-many": (
        encode(lines(**{f"L{n}": good_line(n) + ",x" for n in (3, 9, 11)})),
        ["my.csv: 3 of 200 rows", "line 3: expected 5 fields, got 6", "line 9", "--max-rejected"],
    ),
    "05-one-field-too-few": (
        encode(lines(L3="1,red", L4="2,red", L201="3,red")),
        ["my.csv: 3 of 200 rows", "line 3: expected 5 fields, got 2", "line 201"],
    ),
    "06-column-twice": (
        encode(lines(L1="size,color,size,code,price")),
        ['my.csv line 1: the column name "size" stands twice', "Rename"],
    ),
    "08-utf16-without-mark": (encode(lines(), encoding="utf-16-le"), ["UTF-16", "Save it as UTF-8"]),
    "08-utf16-odd-bytes": (b"\xff\xfe" + encode(lines())[:101], ["UTF-16", "Save it as UTF-8"]),
    "09-latin-1": (
        encode(lines(L3="1,café,2024-01-01,1,2"), encoding="latin-1"),
        ["my.csv line 3: byte 0xe9 at offset 59", "UTF-8"],
    ),
    "10-nul-byte": (encode(lines(L3="1,re\0d,2024-01-01,1,2")), ["my.csv line 3: a NUL byte (offset 58)"]),
    "12-decimal-comma-in-comma-file": (
        encode([HEADER, *("1,5,red,2024-01-01,7,2,5" for _ in range(30))]),
        ["30 of 30 rows", "line 2: expected 5 fields, got 7", "a decimal comma", "another separator"],
    ),
    "13-quote-does-not-end": (
        encode(lines(L7='1,"red,2024-01-01,1,2')),
        ["my.csv line 7: a quoted field that begins here does not end"],
    ),
    "14-infinity": (
        encode(lines(L3="inf,red,2024-01-01,1,2", L5="-Infinity,red,2024-01-01,1,2", L6="1e400,red,2024-01-01,1,2")),
        [
            'line 3: column "size" expects a finite number of at most 1e30, got "inf"',
            'got "-Infinity"',
            'got "1e400"',
            "missing",
        ],
    ),
    "16-text-among-numbers": (
        encode(lines(**{f"L{n}": "tall,red,2024-01-01,1,2" for n in range(3, 10)})),
        ['line 3: column "size" expects a finite number of at most 1e30, got "tall"', "(+2 more)", "7 of 200 rows"],
    ),
    "23-column-missing": (
        encode(lines(L1="size,colour,day,code,price")),
        ['my.csv: column "color" of data/schema.yaml is missing', 'Did you mean "colour"?'],
    ),
    "25-target-constant": (
        encode([HEADER, *(good_line(i).rsplit(",", 1)[0] + ",7" for i in range(ROWS))]),
        ["my.csv", 'the target "price" has the same value in every usable row', "--target"],
    ),
    "26-target-mostly-missing": (
        encode([HEADER, *(good_line(i).rsplit(",", 1)[0] + ("," if i > 50 else f",{i}") for i in range(ROWS))]),
        ['the target "price" is missing in 149 of 200 rows', "max_missing_target (50%)"],
    ),
    "31-other-date-format": (
        encode(lines(**{f"L{n}": f"1,red,{n}.01.2024,1,2" for n in range(10, 20)})),
        ['line 10: column "day" expects a date such as 2024-02-29, got "10.01.2024"', "10 of 200 rows"],
    ),
    "32-one-row": (encode(lines()[:2]), ["1 usable rows, expected at least 20", "--min-rows"]),
    "32-two-rows": (encode(lines()[:3]), ["2 usable rows, expected at least 20", "--min-rows"]),
    "34-cut-gzip": (
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff\xed\xbd\x07`",
        ["my.csv is cut short or damaged: it cannot be unpacked with gzip"],
    ),
    "37-cut-parquet-as-source": (b"PAR1\x15\x00\x15\x1c\x15 PAR1", ["my.csv is cut short or damaged"]),
}


@pytest.mark.parametrize(("content", "fragments"), REFUSED.values(), ids=REFUSED)
def test_fault_of_the_file_is_refused_and_nothing_changes(
    load: Load, root: Path, loaded: dict[str, bytes], content: bytes, fragments: list[str]
) -> None:
    assert_refused(load(content), *fragments)
    assert snapshot(root) == loaded


def test_constant_target_is_refused_on_the_first_load_too(load: Load, root: Path) -> None:
    constant = [HEADER, *(good_line(i).rsplit(",", 1)[0] + ",7" for i in range(ROWS))]
    assert_refused(load(encode(constant)), 'column "price" cannot be the target', "every value is the same")
    assert not (root / "data" / "raw.parquet").exists()


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"a;b,c;price\n" + b"1;2,3;4\n" * 30, "my.csv: the separator may be comma or semicolon"),
        (b"price\n" + b"1\n" * 30, "my.csv line 1: expected column names separated by comma, semicolon, tab or pipe"),
    ],
)
def test_separator_that_cannot_be_told_is_asked_for(load: Load, content: bytes, fragment: str) -> None:
    assert_refused(load(content), fragment, "--separator")


@pytest.mark.parametrize("fault", ["04-one-field-too-many", "05-one-field-too-few", "12-decimal-comma-in-comma-file"])
def test_rows_of_other_lengths_are_named_on_the_first_load_too(load: Load, fault: str) -> None:
    content, fragments = REFUSED[fault]
    assert_refused(load(content), *fragments)


@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two_rows_are_refused_on_the_first_load_too(load: Load, root: Path, count: int) -> None:
    assert_refused(load(encode(lines()[: 1 + count])), f"{count} usable rows, expected at least 20", "--min-rows")
    assert not (root / "data" / "schema.yaml").exists()


def test_target_that_is_no_column_is_refused_with_near_names(call_stage, root: Path, tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_bytes(encode(lines()))
    done = call_stage("load", root, "--source", tmp_path / "my.csv", "--target", "prise")
    assert_refused(done, 'my.csv: there is no column "prise"', 'Did you mean "price"?', "--target")


def test_missing_source_is_refused_with_its_path(call_stage, root: Path, tmp_path: Path) -> None:
    done = call_stage("load", root, "--source", tmp_path / "absent.csv", *TARGET)
    assert_refused(done, str(tmp_path / "absent.csv"), "does not exist", "--source")


def test_folder_as_source_is_refused(call_stage, root: Path, tmp_path: Path) -> None:
    assert_refused(call_stage("load", root, "--source", tmp_path, *TARGET), str(tmp_path), "is a folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe_as_source_is_refused_without_waiting_for_a_writer(run_stage, root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    done = run_stage("load", root, "--source", tmp_path / "pipe.csv", *TARGET)
    assert_refused(done, "pipe.csv is a pipe or device, expected a CSV file")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_link_that_leaves_the_data_folder_is_refused(call_stage, root: Path, tmp_path: Path) -> None:
    (root / "data").mkdir(parents=True)
    (tmp_path / "secret.csv").write_bytes(encode(lines()))
    (root / "data" / "link.csv").symlink_to(tmp_path / "secret.csv")
    done = call_stage("load", root, "--source", root / "data" / "link.csv", *TARGET)
    assert_refused(done, "link.csv is a link that leaves")


def test_source_that_grows_while_it_is_read_is_refused(
    load: Load, root: Path, tmp_path: Path, loaded: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_then_append(reader: object, size: int) -> bytes:
        piece = real(reader, size)
        with (tmp_path / "my.csv").open("ab") as file:
            file.write(b"1,red,2024-01-01,1,2\n")
        return piece

    content = encode(lines(L3=good_line(77)))
    real = source_reader.HashingReader.read
    monkeypatch.setattr(source_reader.HashingReader, "read", read_then_append)
    assert_refused(load(content), "my.csv changed while it was read")
    assert snapshot(root) == loaded


# What is read all the same

ACCEPTED = {
    "07-byte-order-mark": (encode(lines(), encoding="utf-8-sig"), ""),
    "08-utf16-little-endian": (b"\xff\xfe" + encode(lines(), encoding="utf-16-le"), "read as UTF-16"),
    "08-utf16-big-endian": (b"\xfe\xff" + encode(lines(), encoding="utf-16-be"), "read as UTF-16"),
    "11-semicolon": (encode([line.replace(",", ";") for line in lines()]), "separated by semicolon"),
    "11-tab": (encode([line.replace(",", "\t") for line in lines()]), "separated by tab"),
    "11-pipe": (encode([line.replace(",", "|") for line in lines()]), "separated by pipe"),
    "17-carriage-return-newline": (encode(lines(), newline="\r\n"), ""),
    "17-mixed-newlines": ("".join(t + ("\n", "\r\n", "\r")[i % 3] for i, t in enumerate(lines())).encode(), ""),
    "17-no-last-newline": (encode(lines()).rstrip(), ""),
    "blank-lines": (encode(lines()).replace(b"\n", b"\n\n"), ""),
    "blanks-around-values": (encode(lines()).replace(b",", b" , "), ""),
    "24-columns-reordered": (encode([",".join(reversed(line.split(","))) for line in lines()]), ""),
    "every-cell-in-quotes": (encode([",".join(f'"{cell}"' for cell in line.split(",")) for line in lines()]), ""),
    "some-cells-in-quotes": (encode([line.replace("red", '"red"').replace("blue", '"blue"') for line in lines()]), ""),
    "12-semicolon-and-decimal-comma": (
        encode([line.replace(",", ";").replace(".", ",") for line in lines()]),
        "read as numbers with a decimal comma",
    ),
    "12-tab-and-decimal-comma": (
        encode([line.replace(",", "\t").replace(".", ",") for line in lines()]),
        "read as numbers with a decimal comma",
    ),
    "blank-lines-at-both-ends": (b"\n\r\n" + encode(lines()) + b"\n\n\n", ""),
    "byte-order-mark-and-carriage-returns": (encode(lines(), newline="\r\n", encoding="utf-8-sig"), ""),
    "old-newlines": (encode(lines(), newline="\r"), ""),
    "numbers-with-a-plus": (encode([lines()[0], *("+" + line for line in lines()[1:])]), ""),
    "numbers-with-more-digits": (encode([lines()[0], *(line + "0" for line in lines()[1:])]), ""),
    "dates-with-a-time": (encode([re.sub(r"(2024-01-..)", r"\1 00:00:00", line) for line in lines()]), ""),
    "gzip": (gzip.compress(encode(lines())), "unpacked with gzip"),
    "bzip2": (bz2.compress(encode(lines())), "unpacked with bzip2"),
}
assert len(ACCEPTED) >= 20


@pytest.mark.parametrize(("content", "said"), ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.parametrize("first", [True, False], ids=["first-load", "later-load"])
def test_form_of_the_file_does_not_change_the_table(
    load: Load, root: Path, tmp_path: Path, content: bytes, said: str, first: bool
) -> None:
    load(encode(lines()))
    expected = pq.read_table(root / "data" / "raw.parquet")
    if first:
        for path in (root / "data").glob("*.*"):
            path.unlink()
    done = load(content, *(["--infer"] if said.startswith(("separated", "read as numbers")) else []))
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
    assert [line for line in done.stdout.splitlines() if "set aside" in line or ("note:" in line and not said)] == []
    found = pq.read_table(root / "data" / "raw.parquet")
    assert found.select(expected.column_names).equals(expected)


def test_detected_separator_is_kept_in_the_contract(load: Load, root: Path) -> None:
    load(encode([line.replace(",", "|") for line in lines()]))
    assert "separator: '|'" in (root / "data" / "schema.yaml").read_text(encoding="utf-8")


def test_unexpected_column_is_said_and_left_out(load: Load, root: Path, loaded: dict[str, bytes]) -> None:
    done = load(encode([line + (",new" if i == 0 else f",{i}") for i, line in enumerate(lines())]))
    assert (done.returncode, done.stderr) == (0, "")
    assert 'left out: "new", unknown to data/schema.yaml' in done.stdout
    assert pq.read_schema(root / "data" / "raw.parquet").names == HEADER.split(",")


def test_ignored_column_may_be_missing(load: Load, root: Path) -> None:
    rows = [line + (",note" if i == 0 else ",same") for i, line in enumerate(lines())]
    assert 'ignored "note": every value is the same' in load(encode(rows)).stdout
    done = load(encode(lines()))
    assert done.returncode == 0, done.stderr
    assert pq.read_table(root / "data" / "raw.parquet")["note"].null_count == ROWS


def test_column_without_any_value_is_ignored_and_said(load: Load, root: Path) -> None:
    done = load(encode([line + (",empty" if i == 0 else ",NA") for i, line in enumerate(lines())]))
    assert done.returncode == 0, done.stderr
    assert 'ignored "empty": every value is missing' in done.stdout


def test_formula_is_kept_as_text(load: Load, root: Path) -> None:
    formula = "=cmd|' /C calc'!A0"
    done = load(encode(lines(**{f"L{n}": f"1,{formula},2024-01-01,1,{n}" for n in range(3, 20)})))
    assert done.returncode == 0, done.stderr
    assert pq.read_table(root / "data" / "raw.parquet")["color"].to_pylist().count(formula) == 17


# Faults of one row

ASIDE = {
    "04-one-field-too-many": ("1,red,2024-01-01,7,2,9", None, "expected 5 fields, got 6"),
    "05-one-field-too-few": ("1,red", None, "expected 5 fields, got 2"),
    "14-infinity": (
        "-Infinity,red,2024-01-01,7,2",
        "size",
        'column "size" expects a finite number of at most 1e30, got "-Infinity"',
    ),
    "15-integer-of-30-digits": (f"1,red,2024-01-01,{'9' * 30},2", "code", "expects an integer of at most 18 digits"),
    "16-text-among-numbers": (
        "tall,red,2024-01-01,7,2",
        "size",
        'column "size" expects a finite number of at most 1e30, got "tall"',
    ),
    "16-decimal-among-integers": ("1,red,2024-01-01,many,2", "code", "expects an integer of at most 18 digits"),
    "16-text-as-target": (
        "1,red,2024-01-01,7,cheap",
        "price",
        'column "price" expects a finite number of at most 1e30, got "cheap"',
    ),
    "26-target-missing": ("1,red,2024-01-01,7,NA", "price", "target missing"),
    "31-other-date-format": ("1,red,01.02.2024,7,2", "day", "expects a date such as 2024-02-29"),
    "31-no-such-day": ("1,red,2024-02-30,7,2", "day", 'expects a date such as 2024-02-29, got "2024-02-30"'),
}


@pytest.mark.parametrize(("text", "column", "reason"), ASIDE.values(), ids=ASIDE)
@pytest.mark.parametrize("first", [True, False], ids=["first-load", "later-load"])
def test_bad_row_is_set_aside_and_the_others_stay(
    load: Load, root: Path, text: str, column: str | None, reason: str, first: bool
) -> None:
    if not first:
        load(encode(lines()))
    done = load(encode(lines(L5=text)))
    assert (done.returncode, done.stderr) == (0, "")
    assert "set aside" in done.stdout
    (row,) = pq.read_table(root / "data" / "rejected.parquet").to_pylist()
    assert (row["line"], row["column"], row["text"]) == (5, column, text)
    assert reason in row["reason"]
    kept = pq.read_table(root / "data" / "raw.parquet")["size"].to_pylist()
    assert kept == [i / 4 for i in range(ROWS) if i != 3]


def test_lines_of_bad_rows_are_right_beside_quoted_newlines_and_blank_lines(load: Load, root: Path) -> None:
    content = lines(L2='1,"re\nd",2024-01-01,7,1', L4="", L6="1,red", L8="x,red,2024-01-01,7,2", L10='"1","b,\r\n"",c"')
    content = [*content, *lines()[1:]]
    assert load(encode(content)).returncode == 0
    rejected = pq.read_table(root / "data" / "rejected.parquet").to_pylist()
    assert [(row["line"], row["text"]) for row in rejected] == [
        (7, "1,red"),
        (9, "x,red,2024-01-01,7,2"),
        (11, '"1","b,\r\n"",c"'),
    ]
    assert pq.read_table(root / "data" / "raw.parquet").num_rows == 2 * ROWS - 4


def test_unknown_category_is_kept_and_said_or_set_aside_as_the_contract_says(load: Load, root: Path) -> None:
    load(encode(lines()))
    done = load(encode(lines(L5="1,mauve,2024-01-01,7,2")))
    assert 'column "color": 1 rows with unknown categories' in done.stdout
    assert pq.read_table(root / "data" / "raw.parquet")["color"].to_pylist().count("mauve") == 1

    edit_schema(root, "unseen: warn", "unseen: refuse")
    load(encode(lines(L5="1,mauve,2024-01-01,7,2")))
    (row,) = pq.read_table(root / "data" / "rejected.parquet").to_pylist()
    assert row["reason"] == 'column "color" expects a known category, got "mauve"'


def test_value_out_of_range_is_kept_and_said_or_set_aside_as_the_contract_says(load: Load, root: Path) -> None:
    load(encode(lines()))
    done = load(encode(lines(L5="900,red,2024-01-01,7,2")))
    assert 'column "size": 1 values outside 0.0 to 49.75' in done.stdout

    edit_schema(root, "out_of_range: warn", "out_of_range: refuse")
    load(encode(lines(L5="900,red,2024-01-01,107,12")))
    (row,) = pq.read_table(root / "data" / "rejected.parquet").to_pylist()
    assert row["reason"] == 'column "size" expects 0.0 to 49.75, got "900"'


# Files larger than memory should be


@has_proc
def test_memory_stays_bounded_whatever_the_size(root: Path, tmp_path: Path) -> None:
    """33: a file of 200 MB in 450 MB, the interpreter and its libraries included."""
    source = tmp_path / "large.csv"
    block = "".join(
        f"{i},{i / 7:.6f},{'abcdefgh'[i % 8] * 20},2024-01-{i % 28 + 1:02},{i % 997}\n" for i in range(20_000)
    )
    with source.open("w", encoding="utf-8") as file:
        file.write("number,ratio,name,day,price\n")
        while file.tell() < 200_000_000:
            file.write(block)
    code = (
        "import atexit, re, runpy, sys\n"
        "peak = lambda: re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]\n"
        "atexit.register(lambda: print('peak', peak()))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    script = [sys.executable, "-c", code, REPOSITORY / STAGES["load"], "--root", root, "--source", source, *TARGET]
    done = subprocess.run(script, env=clean_environment(), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[-1]) * 1024 < 450_000_000
    assert pq.read_metadata(root / "data" / "raw.parquet").num_rows == (source.stat().st_size // len(block)) * 20_000


def test_table_of_two_thousand_columns_is_read(load: Load, root: Path) -> None:
    header = ",".join(f"c{i}" for i in range(2000)) + ",price"
    rows = [",".join(str((i * j) % 97 / 4) for j in range(1, 2001)) + f",{i * 3 % 101}" for i in range(60)]
    done = load(encode([header, *rows]))
    assert (done.returncode, done.stderr) == (0, "")
    assert pq.read_metadata(root / "data" / "raw.parquet").num_columns == 2001


def test_duplicates_are_counted(load: Load, call_stage, root: Path) -> None:
    """28: they are said, and the split keeps equal rows on one side (test_splits.py)."""
    content = lines()
    load(encode([*content, *content[1:31]]))
    done = call_stage("preprocess", root)
    assert done.returncode == 0, done.stderr
    assert "30 rows repeat another one, ignored columns apart" in done.stdout
