"""Measure the scorer against the pipeline it was compiled from: one row, many rows, compiling, loading, sizes.

Boosted trees on made-up rows of twelve features. Both answer in this process, in turns, on one thread; what counts is
the processor's time, the median of the rounds. Every answer is checked to be the same to the last bit.

    python ci_cd/benchmarks/bench_scorer.py
"""

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from machine import describe_commit, describe_machine

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

NUMBERS = [f"number {place}" for place in range(8)]
KINDS = {
    **dict.fromkeys(NUMBERS, "number"),
    "few": "category",
    "more": "category",
    "yes": "boolean",
    "count": "integer",
}
SINGLE_ROWS = 1_000  # a different one each time: the same one again and again is in all caches
PIPELINE_ROWS = 20  # of those, what the pipeline is asked for: it takes milliseconds


@dataclass(frozen=True)
class Line:
    """One line of the table: seconds for a unit, here and there."""

    what: str
    ours_s: float
    theirs_s: float | None = None


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--trees", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--leaves", type=int, default=31, help="of a tree, at most 64 (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=10_000, help="at a time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    for flag, least in (("trees", 1), ("leaves", 2), ("rows", PIPELINE_ROWS), ("rounds", 1)):
        if getattr(args, flag) < least:
            parser.error(f"--{flag}: expects {least} or more, got {getattr(args, flag)}")
    return args


def make_table(n_rows: int) -> "pd.DataFrame":
    """Return raw rows, (n_rows, 12)."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    columns: dict[str, object] = {name: rng.normal(size=n_rows) for name in NUMBERS}
    columns["few"] = rng.choice(["north", "east", "south", "west"], n_rows)
    columns["more"] = rng.choice([f"kind {number}" for number in range(30)], n_rows)
    columns["yes"] = rng.choice(["yes", "no"], n_rows)
    columns["count"] = rng.integers(0, 100, n_rows)
    return pd.DataFrame(columns)


def fit_pipeline(table: "pd.DataFrame", n_trees: int, n_leaves: int) -> "Pipeline":
    """Return encoder and boosted trees, fitted."""
    import numpy as np
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import Pipeline

    from data_ingestion.encoder import build_encoder

    words = {"missing": ["", "NA"], "true_values": ["yes"], "false_values": ["no"]}
    specs = [{"name": name, "kind": kind, **words} for name, kind in KINDS.items()]
    first, second, third, *_ = (table[name].to_numpy() for name in NUMBERS)
    place = table["more"].str.split().str[1].astype(int)
    noise = np.random.default_rng(1).normal(size=len(table))
    y = 2 * first + second**2 + np.sin(3 * third) + place / 10 + table["count"] / 30 + (table["yes"] == "yes") + noise
    encoder = build_encoder(specs, [], "regression", 5, 0).fit(table, y)
    X = encoder.transform(table)
    codes = [name for name in X.columns if name.startswith("category__")]
    boosting = HistGradientBoostingRegressor(
        max_iter=n_trees, max_leaf_nodes=n_leaves, categorical_features=codes, early_stopping=False, random_state=0
    )
    return Pipeline([("encoder", encoder), ("estimator", boosting.fit(X, y))])


def measure(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each call; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.process_time()
            call()
            seconds[name].append(time.process_time() - started)
    return {name: median(values) for name, values in seconds.items()}


def race(args: argparse.Namespace) -> tuple[list[Line], dict[str, int]]:
    """Return the lines of the table, and sizes in bytes."""
    import joblib
    import numpy as np

    from data_ingestion.schema import parse_contract
    from models.compiling import compile_pipeline
    from models.packing import write_packed
    from models.scorer import load_scorer

    table = make_table(max(args.rows, 10_000))
    pipeline = fit_pipeline(table, args.trees, args.leaves)
    columns = {"y": {"kind": "number", "role": "target"}, **{name: {"kind": kind} for name, kind in KINDS.items()}}
    contract = parse_contract({"source": "made up", "target": "y", "task": "regression", "columns": columns}, "bench")
    pickled, packed = io.BytesIO(), io.BytesIO()
    joblib.dump(pipeline, pickled)
    write_packed(compile_pipeline(pipeline, contract), packed)
    scorer = load_scorer(packed.getvalue())
    table = table[: args.rows]
    rows = table.to_dict("records")
    encoder, estimator = pipeline.named_steps["encoder"], pipeline.named_steps["estimator"]
    encoded = encoder.transform(table)
    X = np.ascontiguousarray(encoded.to_numpy())
    singles = [table.iloc[[place]].astype(object) for place in range(PIPELINE_ROWS)]
    if not np.array_equal(scorer.score_rows(rows), pipeline.predict(table)):
        raise SystemExit("error: the scorer answers otherwise than the estimator. This is a bug.")
    took = measure(
        {
            "one": lambda: [scorer.score_row(row) for row in rows[:SINGLE_ROWS]],
            "one, pipeline": lambda: [pipeline.predict(single) for single in singles],
            "raw": lambda: scorer.score_rows(rows),
            "raw, pipeline": lambda: pipeline.predict(table),
            "ready": lambda: scorer.score_encoded(X),
            "ready, estimator": lambda: estimator.predict(encoded),
            "load": lambda: load_scorer(packed.getvalue()),
            "load, pickle": lambda: joblib.load(io.BytesIO(pickled.getvalue())),
            "compile": lambda: compile_pipeline(pipeline, contract),
        },
        args.rounds,
    )
    n_rows = len(rows)
    lines = [
        Line("one raw row", took["one"] / min(SINGLE_ROWS, n_rows), took["one, pipeline"] / PIPELINE_ROWS),
        Line(f"a row of {n_rows:,} raw ones", took["raw"] / n_rows, took["raw, pipeline"] / n_rows),
        Line(f"a row of {n_rows:,} encoded already", took["ready"] / n_rows, took["ready, estimator"] / n_rows),
        Line("loading", took["load"], took["load, pickle"]),
        Line("compiling", took["compile"]),
    ]
    return lines, {"file": len(packed.getvalue()), "pickle": len(pickled.getvalue()), "tables": scorer.size_bytes}


def format_table(lines: Sequence[Line], sizes: Mapping[str, int]) -> str:
    """Return what was measured in Markdown."""
    rows = ["| | scorer, µs | scikit-learn, µs | of it |", "| --- | ---: | ---: | ---: |"]
    for line in lines:
        theirs = "" if line.theirs_s is None else f"{1e6 * line.theirs_s:,.1f}"
        share = "" if line.theirs_s is None else f"1/{line.theirs_s / line.ours_s:,.1f}"
        rows.append(f"| {line.what} | {1e6 * line.ours_s:,.1f} | {theirs} | {share} |")
    rows.append(f"| size, kB | {sizes['file'] / 1e3:,.0f} | {sizes['pickle'] / 1e3:,.0f} | 1/{_ratio(sizes):.1f} |")
    return "\n".join([*rows, "", f"The scorer's tables take {sizes['tables'] / 1e6:,.1f} MB of memory."])


def _ratio(sizes: Mapping[str, int]) -> float:
    return sizes["pickle"] / sizes["file"]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; see the module's description."""
    args = parse_args(argv)
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    lines, sizes = race(args)
    print(
        f"{args.trees:,} trees of at most {args.leaves} leaves, {len(KINDS)} features, one thread, median of", end=" "
    )
    print(f"{args.rounds} rounds,\ncommit {describe_commit()}; {describe_machine()}.\n")
    print(format_table(lines, sizes))


if __name__ == "__main__":
    main()
