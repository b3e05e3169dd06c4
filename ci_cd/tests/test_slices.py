"""Slices: which there are and what they are called, and tests that agree with scipy's and count themselves."""

import datetime as dt
import time

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from data_ingestion.schema import Contract, parse_contract
from evaluation.slices import adjust_p_values, compare_slices, find_worst_slices
from evaluation.slicing import build_slicings

RNG = np.random.default_rng(0)


def contract_of(**kinds: str) -> Contract:
    columns = {name: {"kind": kind} for name, kind in kinds.items()}
    columns["y"] = {"kind": "number", "role": "target", "nullable": False}
    return parse_contract({"source": "a.csv", "target": "y", "task": "regression", "columns": columns}, "test")


def sizes(table: dict[str, pa.Array], min_rows: int = 1, **kinds: str) -> dict[str, int]:
    """The number of rows of every slice, by its label."""
    found = build_slicings(pa.table(table), contract_of(**kinds), min_rows)
    return {
        label: int((slicing.places == place).sum()) for slicing in found for place, label in enumerate(slicing.labels)
    }


def test_slices_are_categories_booleans_and_missing_values() -> None:
    table = {
        "ocean": pa.array(["INLAND", "BAY", None, "INLAND", "BAY", "INLAND"]),
        "lift": pa.array([True, False, True, True, None, None]),
    }
    assert sizes(table, ocean="category", lift="boolean") == {
        "ocean = INLAND": 3,
        "ocean = BAY": 2,
        "ocean is missing": 1,
        "lift = true": 3,
        "lift = false": 1,
        "lift is missing": 2,
    }


def test_number_of_many_values_is_cut_into_quarters_and_of_few_into_each() -> None:
    table = {"age": pa.array([float(i) for i in range(1, 41)]), "rooms": pa.array([1, 2] * 20)}
    assert sizes(table, age="number", rooms="integer") == {
        "age < 10.75": 10,
        "10.75 <= age < 20.5": 10,
        "20.5 <= age < 30.25": 10,
        "age >= 30.25": 10,
        "rooms = 1": 20,
        "rooms = 2": 20,
    }


def test_rows_are_cut_where_the_label_says() -> None:
    """Quantiles are shown with four digits, and cut there."""
    values = RNG.normal(size=1_000) * 1234.5
    for label, rows in sizes({"x": pa.array(values)}, x="number").items():
        low, high = -np.inf, np.inf
        parts = label.split(" ")
        if "<=" in parts:
            low, high = float(parts[0]), float(parts[-1])
        elif parts[1] == "<":
            high = float(parts[2])
        else:
            low = float(parts[2])
        assert rows == ((values >= low) & (values < high)).sum()


def test_dates_are_cut_between_days() -> None:
    days = pa.array([dt.datetime(2024, 1, 1) + dt.timedelta(days=i, hours=5) for i in range(40)], pa.timestamp("us"))
    assert sizes({"when": days}, when="datetime") == {
        "when < 2024-01-10": 9,
        "2024-01-10 <= when < 2024-01-20": 10,
        "2024-01-20 <= when < 2024-01-30": 10,
        "when >= 2024-01-30": 11,
    }


def test_column_without_values_and_constant_column_have_no_slice() -> None:
    table = {"none": pa.array([None] * 9, pa.float64()), "same": pa.array([3.0] * 9), "day": pa.array([None] * 9)}
    table["day"] = table["day"].cast(pa.timestamp("us"))
    assert sizes(table, none="number", same="number", day="datetime") == {}


def test_small_slices_are_left_out() -> None:
    table = {"c": pa.array(["a"] * 20 + ["b"] * 5 + ["c"] * 15)}
    assert sizes(table, min_rows=10, c="category") == {"c = a": 20, "c = c": 15}
    assert sizes({"c": pa.array(["a"] * 20 + ["b"] * 5)}, min_rows=10, c="category") == {}, "5 rows beside it"


def test_worst_slice_is_found_and_its_figures_are_scipys() -> None:
    group = np.array(["good", "bad", "other"])[RNG.integers(0, 3, 900)]
    losses = RNG.chisquare(1, 900) * np.where(group == "bad", 4.0, 1.0)
    slicings = build_slicings(pa.table({"g": group}), contract_of(g="category"), 50)
    found = find_worst_slices(slicings, losses, "rmse", 0.95)
    assert (found["metric"], found["tested"]) == ("rmse", 3)
    worst = found["worst"][0]
    inside, rest = losses[group == "bad"], losses[group != "bad"]
    assert (worst["column"], worst["slice"], worst["rows"]) == ("g", "g = bad", len(inside))
    assert (worst["score"], worst["rest"]) == pytest.approx((np.sqrt(inside.mean()), np.sqrt(rest.mean())))
    p = stats.ttest_ind(inside, rest, equal_var=False, alternative="greater").pvalue
    assert worst["p_value"] == pytest.approx(p, rel=1e-6)
    assert worst["adjusted_p"] == pytest.approx(3 * p, rel=1e-6)
    low, high = stats.t.interval(0.95, len(inside) - 1, np.log(inside.mean()), stats.sem(inside) / inside.mean())
    assert worst["interval"] == pytest.approx([np.exp(low / 2), np.exp(high / 2)])
    assert "3 slices were looked at" in found["caveat"]


def test_slices_that_are_no_worse_are_not_named() -> None:
    group = np.array(["a", "b"] * 100)
    losses = np.where(group == "a", 2.0, 1.0) + RNG.random(200)
    slicings = build_slicings(pa.table({"g": group}), contract_of(g="category"), 50)
    assert [row["slice"] for row in find_worst_slices(slicings, losses, "log_loss", 0.95)["worst"]] == ["g = a"]


def test_equal_losses_give_no_evidence() -> None:
    slicings = build_slicings(pa.table({"g": ["a", "b"] * 100}), contract_of(g="category"), 50)
    assert find_worst_slices(slicings, np.ones(200), "rmse", 0.95)["worst"] == []
    assert compare_slices(slicings, np.ones(200), np.ones(200), "rmse", 0.1)[2].tolist() == [1.0, 1.0]


def test_without_slices_the_section_says_so() -> None:
    found = find_worst_slices([], np.ones(5), "rmse", 0.95)
    assert (found["tested"], found["worst"]) == (0, [])


def test_p_values_are_adjusted_as_holm_does_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, none smaller than the one before."""
    assert adjust_p_values(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_p_values(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]


def test_slice_that_got_worse_is_told_from_one_that_may_be_chance() -> None:
    """Errors half as large again in one slice of two; the paired test is scipy's."""
    group = np.array(["a", "b"] * 500)
    others = RNG.normal(size=1_000) ** 2
    losses = others * np.where(group == "a", 2.25, 1.0) * RNG.uniform(0.95, 1.05, 1_000)
    slicings = build_slicings(pa.table({"g": group}), contract_of(g="category"), 50)
    labels, excess, adjusted = compare_slices(slicings, losses, others, "rmse", 0.1)
    assert labels == ["g = a", "g = b"]
    assert excess == pytest.approx([0.5, 0.0], abs=0.02)
    inside = (losses - 1.1**2 * others)[group == "a"]
    assert adjusted[0] == pytest.approx(2 * stats.ttest_1samp(inside, 0, alternative="greater").pvalue, rel=1e-6)
    assert adjusted[0] < 0.001
    assert adjusted[1] == 1.0


def test_slices_of_a_model_no_worse_are_rarely_blamed() -> None:
    """Forty slices looked at, two hundred times: without the correction nine of ten trials would blame one."""
    groups = {f"c{i}": RNG.integers(0, 4, 2_000).astype(str) for i in range(10)}
    slicings = build_slicings(pa.table(groups), contract_of(**dict.fromkeys(groups, "category")), 50)
    blamed = 0
    for _ in range(200):
        shared, own, other = RNG.normal(size=(3, 2_000))
        losses, others = (shared + 0.3 * own) ** 2, (shared + 0.3 * other) ** 2
        blamed += bool((compare_slices(slicings, losses, others, "rmse", 0.0)[2] <= 0.05).any())
    assert blamed <= 14


def test_many_rows_and_columns_take_seconds() -> None:
    columns = {f"n{i}": RNG.normal(size=50_000) for i in range(50)}
    columns |= {f"c{i}": RNG.integers(0, 30, 50_000).astype(str) for i in range(50)}
    kinds = {name: "number" if name[0] == "n" else "category" for name in columns}
    table, contract, losses = pa.table(columns), contract_of(**kinds), RNG.random(50_000)
    start = time.process_time()
    found = find_worst_slices(build_slicings(table, contract, 50), losses, "log_loss", 0.95)
    assert time.process_time() - start < 5
    assert found["tested"] == 50 * 4 + 50 * 30
