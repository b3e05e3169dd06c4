"""The benchmarks, as far as that needs no clock, no network and no other tools."""

import csv
import io
import re
import shutil

import pytest
from conftest import REPOSITORY, run_script

from ci_cd.benchmarks import sales_table
from ci_cd.check_locks import PEERS, check_peers

SCRIPT = "ci_cd/benchmarks/bench_ingest.py"


def test_sales_table_has_the_same_bytes_twice(tmp_path):
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in paths:
        sales_table.write_sales(path, 20_000)
    first, second = [path.read_bytes() for path in paths]
    assert first == second
    assert sorted(tmp_path.iterdir()) == paths


def test_sales_table_is_another_with_another_seed(tmp_path):
    for seed in (0, 1):
        sales_table.write_sales(tmp_path / f"{seed}.csv", 20_000, seed)
    assert (tmp_path / "0.csv").read_bytes() != (tmp_path / "1.csv").read_bytes()


def test_sales_table_has_the_promised_columns_in_whole_lines(tmp_path):
    sales_table.write_sales(tmp_path / "sales.csv", 100_000)
    content = (tmp_path / "sales.csv").read_bytes()
    assert 99_000 < len(content) <= 100_000
    assert content.endswith(b"\n")
    header, *rows = csv.reader(io.StringIO(content.decode()))
    assert header == [
        *("order_id", "ordered_at", "ships_on", "unit_price", "weight_kg", "discount_share", "quantity"),
        *("customer_age", "is_member", "region", "product_group", "product", "note", "amount"),
    ]
    assert {len(row) for row in rows} == {14}
    assert [row[0] for row in rows] == [str(number) for number in range(1, len(rows) + 1)]
    patterns = {
        "ordered_at": r"2023-01-01 \d\d:\d\d:\d\d",
        "ships_on": r"2023-01-\d\d",
        "unit_price": r"\d+(\.\d{1,2})?",
        "weight_kg": r"(\d+(\.\d{1,6})?)?",
        "customer_age": r"(\d\d)?",
        "is_member": "true|false",
        "product_group": r"group \d{3}",
        "amount": r"-?\d+(\.\d{1,2})?",
    }
    for name, pattern in patterns.items():
        cells = [row[header.index(name)] for row in rows]
        assert [cell for cell in cells if not re.fullmatch(pattern, cell)] == []


def test_bench_ingest_help_names_its_flags():
    done = run_script(SCRIPT, ["--help"])
    assert (done.returncode, done.stderr) == (0, "")
    flags = re.findall(r"^  (--[a-z]+)", done.stdout, re.MULTILINE)
    assert flags == ["--only", "--sizes", "--rounds", "--tools", "--folder", "--keep"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sizes", "30"], "--sizes: expects sizes such as 30MB or 1GB, got '30'"),
        (["--tools", "ours,spark"], "--tools: expects some of ours, duckdb, .*, got spark"),
        (["--rounds", "0"], "--rounds: expects 1 or more, got 0"),
    ],
)
def test_bench_ingest_refuses_what_it_cannot_run(flags, message):
    done = run_script(SCRIPT, flags)
    assert done.returncode == 2
    assert re.search(message, done.stderr)


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "fault"),
    [
        ("requirements-peers.in", r"duckdb==\S+", "duckdb==99", "duckdb is locked at .*, and ==99 is asked for"),
        ("requirements-peers.txt", r"duckdb==.* \\\n( +--hash.*\n)+", "duckdb==2.0.1\n", "duckdb has no sha256 sum"),
    ],
)
def test_peers_lock_file_out_of_step_is_found(tmp_path, file, pattern, replacement, fault):
    for suffix in (".in", ".txt"):
        shutil.copy((REPOSITORY / PEERS[0]).with_suffix(suffix), tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    (tmp_path / file).write_text(re.sub(pattern, replacement, text, count=1), encoding="utf-8")
    faults = check_peers(tmp_path / "requirements-peers.in")
    assert len(faults) == 1
    assert re.fullmatch(f"requirements-peers.txt: {fault}", faults[0])


@pytest.mark.parametrize("source", PEERS)
def test_every_peer_says_why_it_is_there(source):
    lines = (REPOSITORY / source).read_text(encoding="utf-8").splitlines()
    asked = [line for line in lines if not line.startswith("#")]
    assert asked
    assert [line for line in asked if not re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==\S+ +# \w.{3,}", line)] == []


def test_benchmarks_are_the_ones_that_make_runs():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert "ci_cd/benchmarks/bench_$$name.py" in makefile
    (default,) = (line.partition("=")[2].split() for line in makefile.splitlines() if line.startswith("BENCH ="))
    assert default
    assert all((REPOSITORY / f"ci_cd/benchmarks/bench_{name}.py").is_file() for name in default)
