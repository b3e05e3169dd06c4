"""An encoder whose numbers can be checked by hand, and no skew between readers."""

import io
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline

from data_ingestion import handoff
from data_ingestion.casting import arrow_type, cast_column
from data_ingestion.encoder import TypeCaster, build_encoder, compute_date_parts
from data_ingestion.pickling import dump_pickle
from data_ingestion.schema import Column, parse_datetime

quick = settings(max_examples=50, deadline=None)


# Encoder


def describe(**columns: str | dict[str, object]) -> list[dict[str, object]]:
    base = {"missing": ["", "NA"], "true_values": ["yes"], "false_values": ["no"], "format": "iso"}
    return [base | {"name": n} | (c if isinstance(c, dict) else {"kind": c}) for n, c in columns.items()]


def fit(X: pd.DataFrame, y: list[float], target_means: list[str] = [], **columns: str) -> Pipeline:  # noqa: B006
    encoder = build_encoder(describe(**columns), target_means, "regression", min_frequency=3, seed=0)
    encoder.fit(X, pd.Series(y))
    return encoder


@pytest.mark.parametrize("missing", [1, 5], ids=["rarely-missing", "often-missing"])
def test_codes_of_rare_unseen_and_missing_categories(missing: int) -> None:
    X = pd.DataFrame({"c": ["a"] * 5 + ["b"] * 4 + ["rare1", "rare2", "rare2"] + [None] * missing})
    encoder = fit(X, list(range(len(X))), c="category")
    found = encoder.transform(pd.DataFrame({"c": ["a", "b", "rare1", "rare2", "new", None, "NA", ""]}))
    assert found["category__c"].tolist() == [0, 1, 2, 2, -1, -2, -2, -2]


def test_category_that_is_missing_for_the_first_time_has_the_code_of_missing() -> None:
    encoder = fit(pd.DataFrame({"c": ["a", "b"] * 4}), list(range(8)), c="category")
    assert encoder.transform(pd.DataFrame({"c": [None, "b", "new"]}))["category__c"].tolist() == [-2, 1, -1]


@quick
@given(st.lists(st.none() | st.sampled_from(["a", "b", "NA", "ä b", "1", "1.0", "z"]), min_size=1, max_size=30))
def test_code_leads_back_to_the_category(texts: list[str | None]) -> None:
    encoder = build_encoder(describe(c="category"), [], "regression", min_frequency=1, seed=0)
    X = pd.DataFrame({"c": pd.Series(texts, dtype=object)})
    codes = encoder.fit_transform(X, pd.Series(range(len(texts))))
    decode = encoder.named_steps["encode"].named_transformers_["category"].inverse_transform
    decoded = [None if pd.isna(text) else text for text in decode(codes.to_numpy(copy=True))[:, 0]]
    assert decoded == [None if text == "NA" else text for text in texts]


def test_missing_numbers_get_the_median_of_the_train_rows_and_a_flag() -> None:
    X = pd.DataFrame({"full": [1.0, 2.0, 9.0, 4.0], "gaps": [10.0, None, 30.0, 50.0]})
    encoder = fit(X, [0, 1, 2, 3], full="number", gaps="number")
    found = encoder.transform(pd.DataFrame({"full": [None, 7.0], "gaps": [None, 7.0]}))
    assert found.to_dict("list") == {
        "number__full": [3.0, 7.0],
        "number__gaps": [30.0, 7.0],
        "number__missingindicator_gaps": [1.0, 0.0],
    }


def test_dates_become_the_parts_that_vary() -> None:
    X = pd.DataFrame({"d": pd.to_datetime(["2024-02-29 13:45", "1970-01-02 00:45"])})
    found = fit(X, [0, 1], d="datetime").transform(X).iloc[0].to_dict()
    days = (datetime(2024, 2, 29, 13, 45) - datetime(1970, 1, 1)) / timedelta(days=1)
    waves = {"month": 2 / 12, "weekday": 3 / 7, "hour": 13 / 24}
    assert found == pytest.approx(
        {
            "date__d_year": 2024,
            "date__d_month": 2,
            "date__d_day": 29,
            "date__d_weekday": 3,
            "date__d_hour": 13,
            "date__d_days": days,
            **{f"date__d_{part}_sin": math.sin(2 * math.pi * share) for part, share in waves.items()},
            **{f"date__d_{part}_cos": math.cos(2 * math.pi * share) for part, share in waves.items()},
        }
    ), "the minute is 45 in both"


def test_missing_date_gets_the_median_moment_and_a_flag() -> None:
    X = pd.DataFrame({"d": pd.to_datetime(["2024-05-01", None, "2024-05-03", "2024-05-09"])})
    found = fit(X, [0, 1, 2, 3], d="datetime").transform(X.iloc[[1, 3]])
    assert found["date__d_day"].tolist() == [3, 9]
    assert found["date__missingindicator_d"].tolist() == [1, 0]


@quick
@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))
def test_parts_of_any_date_are_those_of_the_calendar(moment: datetime) -> None:
    parts = compute_date_parts(np.array([moment], dtype="datetime64[us]").astype("int64"))
    found = {name: int(values[0]) for name, values in parts.items()}
    fields = ("year", "month", "day", "hour", "minute")
    assert found == {**{name: getattr(moment, name) for name in fields}, "weekday": moment.weekday()}


def test_target_means_of_train_rows_come_from_other_rows() -> None:
    """With one row per level there are no other rows: the mean says nothing of the row's own target."""
    X = pd.DataFrame({"c": [f"level {i}" for i in range(40)]})
    y = pd.Series([0.0] * 20 + [100.0] * 20)
    encoder = build_encoder(describe(c="category"), ["c"], "regression", min_frequency=1, seed=0)
    train = encoder.fit_transform(X, y)["mean__c"]
    assert abs(np.corrcoef(train, y)[0, 1]) < 0.5, "each row sees the mean of its fold's other rows"
    assert train.nunique() == 5
    assert np.corrcoef(encoder.transform(X)["mean__c"], y)[0, 1] > 0.99, "in contrast to a plain mean"


def test_encoder_never_learns_from_test_rows(call_stage, run_copy: Path) -> None:
    """The median of a column over the train rows alone is what stands for a missing value."""
    raw = handoff.read_parquet(run_copy / "data" / "raw.parquet", "")[0].to_pandas()
    processed = handoff.read_parquet(run_copy / "data" / "processed.parquet", "")[0].to_pandas()
    encoder = joblib.load(run_copy / "data" / "encoder.pkl")
    train = raw[(processed["split"] == "train").to_numpy()]
    empty = train.head(1).assign(bill_length_mm=math.nan)
    assert encoder.transform(empty)["number__bill_length_mm"].item() == train["bill_length_mm"].median()


def test_validation_rows_are_neither_trained_nor_tested_on(call_stage, run_copy: Path) -> None:
    for stage, flags in (
        ("preprocess", ["--validation-size", 0.2]),
        ("train", ["--folds", 2, "--trials", 2]),
        ("evaluate", ["--resamples", 100]),
    ):
        done = call_stage(stage, run_copy, *flags)
        assert done.returncode == 0, done.stderr
    processed = handoff.read_parquet(run_copy / "data" / "processed.parquet", "")[0].to_pandas()
    counts = processed["split"].value_counts().to_dict()
    assert 0.1 < counts["validation"] / len(processed) < 0.3
    metrics = json.loads((run_copy / "models" / "metrics.json").read_bytes())
    assert {side: metrics["rows"][side] for side in counts} == counts
    assert (metrics["train"]["rows"], metrics["test"]["rows"]) == (counts["train"], counts["test"])


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--validation-size", 0.8], "test_size 0.2 and validation_size 0.8 leave no row to train on"),
        (["--gap", 1], "--gap 1 needs an order of the rows. Add --split time"),
        (["--validation-size", -1], "--validation-size: input should be greater than or equal to 0"),
    ],
)
def test_shares_that_cannot_be_are_refused(call_stage, run_copy: Path, flags: list[object], fragment: str) -> None:
    done = call_stage("preprocess", run_copy, *flags)
    assert done.returncode == 2
    assert fragment in done.stderr


def test_report_says_what_became_of_every_column(run_copy: Path) -> None:
    report = json.loads((run_copy / "data" / "encoding.json").read_bytes())
    processed, lineage = handoff.read_parquet(run_copy / "data" / "processed.parquet", "")
    encoded = [name for column in report["columns"].values() for name in column["encoded"]]
    assert sorted(encoded) == sorted(set(processed.column_names) - {"row_id", "split", "target"})
    assert report["encoded_columns"] == len(encoded)
    train = processed.to_pandas().query("split == 'train'")["row_id"]
    raw = handoff.read_parquet(run_copy / "data" / "raw.parquet", "")[0].to_pandas().loc[train]
    assert report["columns"]["bill_length_mm"]["learnt"] == {"median": raw["bill_length_mm"].median()}
    assert report["columns"]["species"]["learnt"]["codes"] == {"Adelie": 0, "Chinstrap": 1, "Gentoo": 2}
    assert report["columns"]["body_mass_g"] == {
        "kind": "integer",
        "role": "target",
        "encoded": {},
        "reason": "its role: target",
    }
    assert "encoding.json" in lineage.outputs


def test_columns_in_any_order_give_the_same_bytes() -> None:
    X = pd.DataFrame({"n": [1.0, 2.0, None, 4.0], "c": list("abab"), "d": pd.to_datetime(["2024-01-01"] * 4)})
    kinds = {"n": "number", "c": "category", "d": "datetime"}
    pickles = []
    for order in (["n", "c", "d"], ["d", "n", "c"], ["c", "extra", "d", "n"]):
        encoder = fit(X.assign(extra="x")[order], [1, 2, 3, 4], **kinds)
        buffer = io.BytesIO()
        dump_pickle(encoder, buffer)
        pickles.append(buffer.getvalue() + encoder.transform(X).to_numpy().tobytes())
    assert len(set(pickles)) == 1


def test_missing_column_is_named_with_its_near_name() -> None:
    encoder = fit(pd.DataFrame({"weight": [1.0, 2.0]}), [1, 2], weight="number")
    with pytest.raises(ValueError, match=r'column "weight" is missing.*Did you mean "wieght"'):
        encoder.transform(pd.DataFrame({"wieght": [1.0]}))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("number", "tall"),
        ("number", "inf"),
        ("number", math.inf),
        ("number", -1e31),
        ("number", "1_000"),
        ("integer", "1.5"),
        ("integer", 1.5),
        ("boolean", "maybe"),
        ("boolean", 7),
        ("datetime", "29.02.2024"),
        ("datetime", "20240229"),
        ("datetime", 20240229),
    ],
)
def test_value_of_another_kind_is_refused_with_column_row_and_value(kind: str, value: object) -> None:
    caster = TypeCaster(describe(c=kind)).fit(pd.DataFrame({"c": []}))
    with pytest.raises(ValueError, match=f'column "c" row 1: expects an? {kind.removesuffix("time")}, got'):
        caster.transform(pd.DataFrame({"c": pd.Series([None, value], dtype=object)}))


# No skew: the loader, a DataFrame that pandas read, and a request say the same of the same text

TEXTS = {
    "number": [
        "1",
        "-2.5",
        "+3",
        ".5",
        "7.",
        "1e5",
        "1E-3",
        "1_000",
        "0x10",
        "１２",
        "inf",
        "nan",
        "1,5",
        "1e400",
        "--1",
        "1e30",
        "-1.1e30",
    ],
    "comma": ["1,5", "-1.234,5", "1.234.567", "12.34", "1.5", "1234,", ",5", "+7", "1e5", "1,5e3"],
    "dollars": ["$1,234.5", "-$ 3", "$-3", "1,234 $", "1234", "12,34", "$", "$$1", "1 $ 2", "$1,2345", "+$5", ".5"],
    "euros": ["1.234,5 €", "€ 3", "-€3,5", "1,5", "3 EUR", "1.5€", "€€"],
    "integer": ["1", "-2", "+3", "3.0", "3.", "1.5", "1e5", "1_0", "٣", "9" * 18, "9" * 19, "007"],
    "boolean": ["yes", "NO", "Yes", "y", "1", "0", "true", "ja"],
    "datetime": [
        "2024-02-29",
        "2024-02-30",
        "2024-02-29T13:45:00.5",
        "2024-02-29 13:45+02:00",
        "2024-02-29T13:45Z",
        "20240229",
        "2024-W09-4",
        "29.02.2024",
        "2024-2-9",
        "24-02-29",
        "2024-02-29T25:00",
        "0001-01-01",
        "0001-01-01T00:00+02:00",
        "9999-12-31T23:59-01:00",
    ],
}
FORMS = {
    "number": Column(kind="number"),
    "comma": Column(kind="number", decimal=","),
    "dollars": Column(kind="number", thousands=",", currency="$"),
    "euros": Column(kind="number", decimal=",", currency="€"),
    "integer": Column(kind="integer"),
    "boolean": Column(kind="boolean", true_values=["yes"], false_values=["no"]),
    "datetime": Column(kind="datetime"),
}
texts_of = {
    kind: st.one_of(st.sampled_from(texts), st.text("0123456789+-.,eE_:TZ$€ ", max_size=20).map(str.strip))
    for kind, texts in TEXTS.items()
}


def load_text(text: str, form: str) -> object:
    column = FORMS[form]
    cast = cast_column(pa.array([text], pa.string()), column, ["", "NA"])
    return "refused" if cast.is_fault[0].as_py() else cast.values[0].as_py()


def encode_text(text: str, form: str) -> object:
    keys = ("kind", "decimal", "thousands", "currency")
    caster = TypeCaster(describe(c={key: getattr(FORMS[form], key) for key in keys})).fit(None)
    try:
        value = caster.transform(pd.DataFrame({"c": pd.Series([text], dtype=object)}))
    except ValueError:
        return "refused"
    found = value["c"].iloc[0]
    return None if pd.isna(found) else found


@pytest.mark.parametrize(
    ("form", "text"), [(form, text) for form, texts in TEXTS.items() for text in [*texts, "", "NA"]]
)
def test_loader_and_saved_model_read_a_text_alike(form: str, text: str) -> None:
    assert encode_text(text, form) == load_text(text, form)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_loader_and_saved_model_read_any_text_alike(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(sorted(TEXTS)))
    text = data.draw(texts_of[form])
    assert encode_text(text, form) == load_text(text, form)


@quick
@given(st.sampled_from(TEXTS["datetime"]) | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat))
def test_contract_reads_a_date_as_the_loader_does(text: str) -> None:
    try:
        expected: object = parse_datetime(text, "iso")
    except ValueError:
        expected = "refused"
    assert load_text(text, "datetime") == expected


values_of = {
    "number": st.floats(-1e9, 1e9).map(lambda x: round(x, 3)),
    "integer": st.integers(-(2**53), 2**53),
    "boolean": st.booleans(),
    "category": st.sampled_from(["a", "B", "ä", "x y", "a-1", "it's"]),
    "datetime": st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),
}


def to_text(value: object) -> str:
    if value is None:
        return "NA"
    return (
        {True: "yes", False: "no"}[value] if isinstance(value, bool) else getattr(value, "isoformat", value.__str__)()
    )


@quick
@given(st.lists(st.fixed_dictionaries({k: st.none() | v for k, v in values_of.items()}), min_size=1, max_size=8))
@example([{"number": None, "integer": 3, "boolean": None, "category": None, "datetime": None}])
@example([{"number": 1.0, "integer": None, "boolean": True, "category": "a", "datetime": datetime(2024, 2, 29)}] * 2)
def test_typed_columns_requests_and_pandas_give_the_same_features(rows: list[dict[str, object]]) -> None:
    columns = {kind: Column(kind=kind) for kind in values_of}
    types = pa.schema({name: arrow_type(column) for name, column in columns.items()})
    typed = pa.Table.from_pylist(rows, schema=types).to_pandas()
    requested = pd.DataFrame({n: pd.Series([row[n] for row in rows], dtype=object) for n in columns})
    as_text = pd.DataFrame([{name: to_text(value) for name, value in row.items()} for row in rows])
    csv = as_text.to_csv(index=False)
    caster = TypeCaster(describe(**{kind: kind for kind in values_of})).fit(None)
    expected = caster.transform(typed)
    for other in (
        requested,
        pd.read_csv(io.StringIO(csv)),
        pd.read_csv(io.StringIO(csv), dtype=str, keep_default_na=False),
    ):
        pd.testing.assert_frame_equal(caster.transform(other), expected)
