"""Do with other libraries what our stages do: one job per process, which bench_ingest.py measures.

Runs in .venv-bench, the environment of requirements-peers.txt. `ingest_*` turns a CSV into zstd Parquet; `preprocess_*`
turns the typed Parquet into encoded features, as data_preprocessor.py does, written for the sales table alone.

    .venv-bench/bin/python ci_cd/benchmarks/peers.py --job ingest_duckdb --source sales.csv --target sales.parquet
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from sklearn.compose import ColumnTransformer

NUMBERS = ("unit_price", "weight_kg", "discount_share", "quantity", "customer_age", "is_member")
GAPPY = ("weight_kg", "customer_age")
CODES = ("region", "note")
MEANS = ("product_group", "product")
PERIODS = {"month": 12, "weekday": 7, "hour": 24}  # parts that are also a sine and a cosine
CLOCK = ("hour", "minute")  # ships_on has no time of day
DATES = ("ordered_at", "ships_on")
TARGET = "amount"
MIN_FREQUENCY = 5
TEST_FOLD = 5  # no train row is in it: its means come from all train rows


def ingest_duckdb(source: Path, target: Path) -> None:
    """One statement."""
    import duckdb

    paths = [str(path).replace("'", "''") for path in (source, target)]
    duckdb.execute("COPY (FROM read_csv('{}')) TO '{}' (FORMAT parquet, COMPRESSION zstd)".format(*paths))


def ingest_polars(source: Path, target: Path) -> None:
    """A lazy scan into a sink."""
    import polars as pl

    pl.scan_csv(source, try_parse_dates=True).sink_parquet(target, compression="zstd")


def ingest_pyarrow(source: Path, target: Path) -> None:
    """Batch after batch; types are those of the first batch."""
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    with (
        pa_csv.open_csv(source) as reader,
        pq.ParquetWriter(target, reader.schema, compression="zstd") as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)


def ingest_pandas(source: Path, target: Path) -> None:
    """Everything in memory; dates are named, for pandas does not find them."""
    import pandas as pd

    pd.read_csv(source, parse_dates=list(DATES)).to_parquet(target, compression="zstd", index=False)


def preprocess_duckdb(source: Path, target: Path) -> None:
    """One SQL script."""
    import duckdb

    script = Path(__file__).with_name("preprocess.sql").read_text(encoding="utf-8")
    for name, path in (("{source}", source), ("{target}", target)):
        script = script.replace(name, str(path).replace("'", "''"))
    duckdb.execute(script)


def preprocess_polars(source: Path, target: Path) -> None:
    """Lazy frames: statistics of the train rows, then joins into a sink."""
    import polars as pl

    columns = [*NUMBERS, *CODES, *MEANS, *DATES, TARGET]
    names = pl.scan_parquet(source).select(columns).with_row_index("row_id")
    texts = [pl.col(name).cast(pl.String) for name in (*CODES, *MEANS)]
    hashed = pl.struct(columns).hash(0)
    is_test = hashed % 1000 < 200
    fold = pl.when(is_test).then(TEST_FOLD).otherwise(hashed // 1000 % 5).cast(pl.Int8)
    raw = names.with_columns(*texts, fold=fold, **{name: pl.col(name).cast(pl.Float64) for name in NUMBERS})
    train = raw.filter(pl.col("fold") != TEST_FOLD)
    center = (
        train.select(pl.col(NUMBERS).median(), pl.col(TARGET).mean()).collect(engine="streaming").row(0, named=True)
    )
    for name in CODES:
        raw = raw.join(count_codes(train, name), on=name, how="left")
    for name in MEANS:
        raw = raw.join(average_folds(train, name, center[TARGET]), on=[name, "fold"], how="left")
    raw.select(
        "row_id",
        pl.when(pl.col("fold") == TEST_FOLD).then(pl.lit("test")).otherwise(pl.lit("train")).alias("split"),
        *(pl.col(name).fill_null(center[name]) for name in NUMBERS),
        *(pl.col(name).is_null().cast(pl.Float64).alias(f"{name}_missing") for name in GAPPY),
        *(pl.when(pl.col(n).is_null()).then(-2.0).otherwise(pl.col(f"{n}_code").fill_null(-1)).alias(n) for n in CODES),
        *(pl.col(f"{name}_mean").fill_null(center[TARGET]).alias(name) for name in MEANS),
        *(part.cast(pl.Float64).alias(f"{name}_{suffix}") for name in DATES for suffix, part in list_parts(name)),
        pl.col(TARGET).alias("target"),
    ).sink_parquet(target, compression="zstd")


def count_codes(train: "pl.LazyFrame", name: str) -> "pl.LazyFrame":
    """Return the code of each level of one column; levels with few train rows share the code after the last."""
    import polars as pl

    levels = train.drop_nulls(name).group_by(name).len().sort(name)
    is_frequent = pl.col("len") >= MIN_FREQUENCY
    code = pl.when(is_frequent).then(is_frequent.cum_sum() - 1).otherwise(is_frequent.sum()).cast(pl.Float64)
    return levels.select(name, code.alias(f"{name}_code"))


def average_folds(train: "pl.LazyFrame", name: str, mean: float) -> "pl.LazyFrame":
    """Return the smoothed target mean of each level without the rows of each fold."""
    import polars as pl

    parts = train.group_by(name, "fold").agg(n=pl.len(), total=pl.col(TARGET).sum())
    levels = parts.group_by(name).agg(n_all=pl.col("n").sum(), total_all=pl.col("total").sum())
    folds = pl.LazyFrame({"fold": range(TEST_FOLD + 1)}, schema={"fold": pl.Int8})
    both = levels.join(folds, how="cross").join(parts, on=[name, "fold"], how="left")
    total, count = pl.col("total_all") - pl.col("total").fill_null(0), pl.col("n_all") - pl.col("n").fill_null(0)
    return both.select(name, "fold", ((total + 10 * mean) / (count + 10)).alias(f"{name}_mean"))


def list_parts(name: str) -> "list[tuple[str, pl.Expr]]":
    """Return the parts of one date column, by suffix."""
    import polars as pl

    moment = pl.col(name).cast(pl.Datetime("us"))
    parts = {
        "year": moment.dt.year(),
        "month": moment.dt.month(),
        "day": moment.dt.day(),
        "weekday": moment.dt.weekday() - 1,
        "hour": moment.dt.hour(),
        "minute": moment.dt.minute(),
        "days": moment.dt.epoch("us") / 86_400_000_000,
    }
    parts = {part: value for part, value in parts.items() if name == "ordered_at" or part not in CLOCK}
    turns = {part: 2 * math.pi * parts[part].cast(pl.Float64) / n for part, n in PERIODS.items() if part in parts}
    waves = [(f"{part}_{wave}", getattr(turn, wave)()) for part, turn in turns.items() for wave in ("sin", "cos")]
    return [*parts.items(), *waves]


def preprocess_sklearn(source: Path, target: Path) -> None:
    """A ColumnTransformer on pandas, fitted on the train rows."""
    import numpy as np
    import pandas as pd

    frame = pd.read_parquet(source, columns=[*NUMBERS, *CODES, *MEANS, *DATES, TARGET])
    is_test = pd.util.hash_pandas_object(frame, index=False) % 1000 < 200
    y, X = frame.pop(TARGET), frame
    X["is_member"] = X["is_member"].astype("float64")
    for name in (*CODES, *MEANS):
        X[name] = X[name].astype(object).where(X[name].notna(), np.nan)
    encode = build_transformer()
    train = encode.fit_transform(X[~is_test], y[~is_test])
    encoded = pd.concat([train, encode.transform(X[is_test])]).sort_index()
    encoded.insert(0, "row_id", np.arange(len(encoded)))
    encoded.insert(1, "split", is_test.map({True: "test", False: "train"}))
    encoded["target"] = y.astype("float64")
    encoded.to_parquet(target, compression="zstd", index=False)


def build_transformer() -> "ColumnTransformer":
    """Return the unfitted transformer."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import KFold
    from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder, TargetEncoder

    ordinal = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2, min_frequency=MIN_FREQUENCY
    )
    folds = KFold(n_splits=5, shuffle=True, random_state=0)
    steps = [
        ("number", SimpleImputer(strategy="median", add_indicator=True), list(NUMBERS)),
        ("category", ordinal, list(CODES)),
        ("mean", TargetEncoder(target_type="continuous", cv=folds), list(MEANS)),
        ("date", FunctionTransformer(split_dates), list(DATES)),
    ]
    return ColumnTransformer(steps).set_output(transform="pandas")


def split_dates(X: "pd.DataFrame") -> "pd.DataFrame":
    """Return the parts of the date columns as numbers."""
    import numpy as np
    import pandas as pd

    columns = {}
    for name in X.columns:
        moments = pd.to_datetime(X[name])
        parts = {"year": "year", "month": "month", "day": "day", "weekday": "day_of_week", "hour": "hour"}
        for part, attribute in {**parts, "minute": "minute"}.items():
            if name != "ordered_at" and part in CLOCK:
                continue
            values = columns[f"{name}_{part}"] = getattr(moments.dt, attribute).astype("float64")
            if part in PERIODS:
                turns = 2 * np.pi * values / PERIODS[part]
                columns |= {f"{name}_{part}_sin": np.sin(turns), f"{name}_{part}_cos": np.cos(turns)}
        columns[f"{name}_days"] = (moments - pd.Timestamp(0)) / pd.Timedelta(days=1)
    return pd.DataFrame(columns, index=X.index)


JOBS: dict[str, Callable[[Path, Path], None]] = {
    job.__name__: job
    for job in (
        *(ingest_duckdb, ingest_polars, ingest_pyarrow, ingest_pandas),
        *(preprocess_duckdb, preprocess_polars, preprocess_sklearn),
    )
}


def main(argv: Sequence[str] | None = None) -> None:
    """Do one job; see the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=JOBS, required=True, help="which library does what")
    parser.add_argument("--source", type=Path, required=True, help="the file to read")
    parser.add_argument("--target", type=Path, required=True, help="the Parquet file to write")
    args = parser.parse_args(argv)
    JOBS[args.job](args.source, args.target)


if __name__ == "__main__":
    main()
