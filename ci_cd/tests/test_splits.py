"""Splits that nothing leaks across, whatever order, size or number the rows come in."""

import hashlib
import math
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import build_columns, run_stages, write_csv
from small_tables import TableGroups, make_contract

from data_ingestion import handoff
from data_ingestion.row_hash import hash_column, hash_rows, hash_texts
from data_ingestion.scan import scan_rows
from data_ingestion.schema import Contract
from data_ingestion.splitter import SIDES, SplitRequest, check_split, plan_split

quick = settings(max_examples=50, deadline=None)
rows_of_two = st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), min_size=40, max_size=120)
REST = [(100 + i, "a") for i in range(40)]


def make_table(rows: list[tuple[int, str]]) -> pa.Table:
    numbers, names = zip(*rows, strict=True)
    return pa.table({"n": pa.array(numbers), "g": pa.array(names), "y": pa.array([float(n % 5) for n in numbers])})


def split(
    table: pa.Table, contract: Contract, strategy: str = "hash", size: int = 1000, **choices: object
) -> list[str]:
    request = SplitRequest(strategy, **{"test_size": 0.3, "seed": 1, **choices})
    groups = TableGroups(table, size)
    scan, _ = scan_rows(groups, contract, plan_split(groups, contract, request))
    check_split(scan.count_sides(), None, request)
    return [SIDES[side] for side in scan.sides]


def share(sides: list[str], side: str = "test") -> float:
    return sides.count(side) / len(sides)


@quick
@given(rows_of_two, st.sampled_from(["hash", "stratified", "group", "time"]))
def test_equal_rows_stand_on_one_side(rows: list[tuple[int, str]], strategy: str) -> None:
    contract = make_contract(n="integer", g="category")
    column = "n" if strategy in ("group", "time") else None
    found = split(make_table([*rows, *REST]), contract, strategy, column=column, validation_size=0.2)
    sides: dict[tuple[int, str], set[str]] = {}
    for row, side in zip(rows, found, strict=False):
        sides.setdefault(row, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())


@quick
@given(rows_of_two, rows_of_two, st.sampled_from(["hash", "group"]))
def test_row_stays_on_its_side_when_rows_are_added(
    rows: list[tuple[int, str]], more: list[tuple[int, str]], strategy: str
) -> None:
    contract, choices = make_contract(n="integer", g="category"), {"column": "n", "validation_size": 0.2}
    base = [*rows, *REST]
    before = split(make_table(base), contract, strategy, **choices)
    assert split(make_table([*base, *more]), contract, strategy, **choices)[: len(base)] == before


@quick
@given(rows_of_two, st.sampled_from(["hash", "stratified", "group", "time"]), st.integers(1, 50))
def test_split_does_not_depend_on_the_size_of_the_row_groups(
    rows: list[tuple[int, str]], strategy: str, size: int
) -> None:
    contract, table = make_contract(n="integer", g="category"), make_table([*rows, *REST])
    column = "n" if strategy in ("group", "time") else None
    assert split(table, contract, strategy, size, column=column) == split(table, contract, strategy, column=column)


def test_split_depends_on_the_seed_and_on_nothing_else() -> None:
    contract = make_contract(n="integer", g="category")
    table = make_table([(i, "abc"[i % 3]) for i in range(200)])
    first = split(table, contract)
    assert split(table, contract) == first
    assert split(table.select(["y", "g", "n"]), contract) == first
    assert split(table, contract, seed=2) != first
    assert 0.2 < share(first) < 0.4


def test_test_row_stays_one_when_validation_rows_are_wanted() -> None:
    contract, table = make_contract(n="integer", g="category"), make_table([(i, "a") for i in range(500)])
    before, after = split(table, contract), split(table, contract, validation_size=0.2)
    assert [side == "test" for side in after] == [side == "test" for side in before]
    assert 0.15 < share(after, "validation") < 0.25


def test_rows_of_one_id_stand_on_one_side() -> None:
    contract = make_contract(n="integer", g={"kind": "category", "role": "id"})
    ids = [f"id{i % 30}" for i in range(300)]
    sides = dict(zip(ids, split(make_table([(i, ids[i]) for i in range(300)]), contract), strict=True))
    assert split(make_table([(i, ids[i]) for i in range(300)]), contract) == [sides[name] for name in ids]


@pytest.mark.parametrize("column", [None, "g"])
def test_group_split_keeps_groups_whole(column: str | None) -> None:
    role = "group" if column is None else "feature"
    contract = make_contract(n="integer", g={"kind": "category", "role": role})
    groups = [f"patient {i % 25}" for i in range(250)]
    found = split(make_table([(i, groups[i]) for i in range(250)]), contract, "group", column=column)
    sides = dict(zip(groups, found, strict=True))
    assert found == [sides[name] for name in groups]


def make_visits() -> tuple[Contract, list[datetime], pa.Table]:
    contract = make_contract(n="integer", t={"kind": "datetime", "role": "time"})
    days = [datetime(2024, 1, 1) + timedelta(days=(i * 7) % 20) for i in range(100)]
    return (
        contract,
        days,
        pa.table({"n": list(range(100)), "t": pa.array(days, pa.timestamp("us")), "y": [1.0, 2] * 50}),
    )


def test_time_split_tests_on_the_latest_rows_and_validates_on_those_before() -> None:
    contract, days, table = make_visits()
    found = split(table, contract, "time", validation_size=0.2)
    latest = [side for _, side in sorted(zip(days, found, strict=True))]
    assert latest == ["train"] * 50 + ["validation"] * 20 + ["test"] * 30


def test_gap_before_each_cut_is_left_out() -> None:
    contract, days, table = make_visits()
    found = split(table, contract, "time", validation_size=0.2, gap=2)
    latest = [side for _, side in sorted(zip(days, found, strict=True), key=lambda pair: pair[0])]
    assert latest == ["train"] * 40 + ["gap"] * 10 + ["validation"] * 10 + ["gap"] * 10 + ["test"] * 30


def test_row_without_a_time_trains() -> None:
    contract, _, table = make_visits()
    times = pa.array([None, *table["t"].to_pylist()[1:]], pa.timestamp("us"))
    assert split(table.set_column(1, "t", times), contract, "time")[0] == "train"


def test_stratified_split_keeps_the_share_of_each_class() -> None:
    contract = make_contract("g", "multiclass", n="integer", g="category")
    table = make_table([(i, "a" * (i % 10 == 0) or "b" * (i % 10 < 4) or "c") for i in range(400)])
    found = pd.Series(split(table, contract, "stratified", validation_size=0.1, size=70))
    for side, expected in (("test", 0.3), ("validation", 0.1)):
        shares = (found == side).groupby(table["g"].to_pandas()).mean()
        assert shares.to_dict() == pytest.approx({"a": expected, "b": expected, "c": expected}, abs=0.01)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_stratified_split_takes_classes_of_words(tmp_path: Path, task: str) -> None:
    source = write_csv(tmp_path / "my.csv", build_columns(task))
    run_stages(tmp_path / "root", source, "target", ["load", "preprocess"], preprocess=["--split", "stratified"])
    table = pd.read_parquet(tmp_path / "root" / "data" / "processed.parquet")
    shares = (table["split"] == "test").groupby(table["target"].astype(str)).mean()
    assert shares.to_dict() == pytest.approx(dict.fromkeys(shares.index, 0.2), abs=0.05)


def test_stratified_split_of_a_regression_keeps_the_share_of_each_tenth() -> None:
    contract = make_contract(n="integer", g="category")
    table = make_table([(i, "a") for i in range(1000)]).set_column(2, "y", pa.array(np.arange(1000.0) ** 2))
    found = np.array(split(table, contract, "stratified")).reshape(10, 100)
    assert ((found == "test").sum(axis=1) == 30).all()


@pytest.mark.parametrize(
    ("strategy", "choices", "fragment"),
    [
        ("group", {}, "0 columns of data/schema.yaml have role group. Name it: --split-column"),
        ("group", {"column": "h"}, 'no column "h" to split by. Known: n, g, y'),
        ("time", {"column": "g"}, "needs a column of dates or numbers, got string"),
        ("time", {"column": "none"}, 'finds no moment in column "none"'),
        ("group", {"column": "one"}, "gives 0 train and 60 test rows|gives 60 train and 0 test rows"),
        ("hash", {"gap": 3}, "--gap 3 needs an order of the rows. Add --split time"),
    ],
)
def test_split_that_cannot_be_made_is_refused(strategy: str, choices: dict[str, object], fragment: str) -> None:
    contract = make_contract(
        n="integer", g="category", **{c: "integer" for c in choices.values() if c in ("one", "none")}
    )
    table = make_table([(i, "abc"[i % 3]) for i in range(60)])
    table = table.append_column("one", pa.array([1] * 60)).append_column("none", pa.array([None] * 60, pa.int64()))
    with pytest.raises(handoff.PipelineError, match=fragment):
        split(table, contract, strategy, **choices)


# Hashes


def mix(bits: int) -> int:
    """SplitMix64's finalizer in whole numbers, from the paper."""
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
    return bits ^ bits >> 31


def blake(text: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest(), "little")


def hash_text(text: str) -> int:
    content, found = text.encode(), mix(len(text.encode()))
    for start in range(0, len(content), 8):
        found = mix(found ^ int.from_bytes(content[start : start + 8], "little"))
    return found


@quick
@given(st.lists(st.text(max_size=30), min_size=1, max_size=10), st.integers(0, 3))
def test_hash_of_a_text_is_the_documented_one(texts: list[str], start: int) -> None:
    assert hash_texts(pa.array(texts, pa.string())[start:]).tolist() == [hash_text(text) for text in texts[start:]]


def test_hash_is_the_documented_one() -> None:
    """Computed here value by value: another platform or library version may not change who tests."""
    table = pa.table({"x": [1.5], "t": ["ä"], "d": pa.array([datetime(1970, 1, 1, 0, 0, 1)], pa.timestamp("us"))})
    bits = {"x": int(np.float64(1.5).view(np.uint64)), "t": hash_text("ä"), "d": 1_000_000}
    total = sum(mix(value ^ blake(name, 7)) for name, value in bits.items()) % 2**64
    assert hash_rows(table, ["x", "t", "d"], 7).tolist() == [mix(total)]


def hash_values(*values: object, type: pa.DataType | None = None) -> list[int]:
    return hash_column(pa.chunked_array([pa.array(values, type)]), "x", 1).tolist()


def test_equal_values_hash_alike_whatever_holds_them() -> None:
    zero, minus, one, nan, null = hash_values(0.0, -0.0, 1.0, math.nan, None)
    assert zero == minus
    assert nan == null
    assert hash_values(0, 1, None, type=pa.int64()) == [zero, one, null]
    assert hash_values(False, True, None) == [zero, one, null]
    assert len({zero, one, null}) == 3
    large = [2**53 + 1, 2**53 + 2, 2**62, None]
    assert len(set(hash_values(*large))) == 4
    assert (
        hash_values("a", None)
        == hash_column(pa.chunked_array([pa.array(["a", None]).dictionary_encode()]), "x", 1).tolist()
    )
    assert hash_values("", type=pa.string()) != hash_values(None, type=pa.string())


@quick
@given(st.lists(st.floats(allow_nan=False) | st.none(), min_size=1, max_size=20))
def test_numbers_that_differ_hash_differently(values: list[float | None]) -> None:
    assert len(set(hash_values(*values, type=pa.float64()))) == len(set(values))
