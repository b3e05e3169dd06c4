"""Small trained models for the tests of the API, made in milliseconds from thirty rows."""

from pathlib import Path

import pandas as pd
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline

from data_ingestion.encoder import build_encoder
from data_ingestion.handoff import commit
from data_ingestion.schema import Contract, parse_contract
from models.artifact import Manifest, list_libraries, predict_rows, write_model

GOOD = {"class": "b", "floor area": 41.5, "rooms": 2, "has lift": True, "_built": "2001-05-17"}
KNOWN = ["a", "b", "c"]
COLUMNS = {
    "row id": {"kind": "integer", "role": "id", "reason": "every value is different", "example": 1},
    "class": {"kind": "category", "categories": KNOWN, "example": "b"},
    "floor area": {"kind": "number", "min": 20.5, "max": 78.5, "example": 41.5},
    "rooms": {"kind": "integer", "nullable": False, "min": 1, "max": 5, "example": 2},
    "has lift": {
        "kind": "boolean",
        "nullable": False,
        "true_values": ["Yes"],
        "false_values": ["No"],
        "example": True,
    },
    "_built": {
        "kind": "datetime",
        "format": "%d.%m.%Y",
        "min": "2000-01-01T00:00:00",
        "max": "2002-06-06T00:00:00",
        "example": "2001-05-17T00:00:00",
    },
    "note": {"kind": "text", "role": "ignored", "reason": "free text is not encoded"},
    "price": {"kind": "number", "role": "target", "nullable": False},
}


def build_table() -> pd.DataFrame:
    """Return thirty raw rows, (30, 7), as pandas reads them from a CSV."""
    numbers = pd.Series(range(30))
    return pd.DataFrame(
        {
            "row id": numbers,
            "class": numbers.map(lambda i: None if i % 11 == 5 else KNOWN[i % 3]),
            "floor area": (20.5 + 2 * numbers).where(numbers % 7 != 3),
            "rooms": 1 + numbers % 5,
            "has lift": numbers.map(lambda i: "Yes" if i % 4 < 2 else "No"),
            "_built": (pd.Timestamp("2000-01-01") + pd.to_timedelta(numbers * 30, unit="D")).dt.strftime("%d.%m.%Y"),
            "note": "words",
        }
    )


def build_contract(task: str = "regression", **changes: dict[str, object]) -> Contract:
    """Return the contract of the table; `changes` update single columns, underscores standing for spaces."""
    columns = {name: column | changes.get(name.strip("_").replace(" ", "_"), {}) for name, column in COLUMNS.items()}
    if task != "regression":
        columns["price"] = {"kind": "category", "role": "target", "nullable": False}
    return parse_contract({"source": "homes.csv", "target": "price", "task": task, "columns": columns}, "test")


def write_small_model(folder: Path, version: str = "0123456789ab", shift: float = 0.0, **changes: object) -> Manifest:
    """Train a model, write it to `folder`, and return its manifest.

    Parameters
    ----------
    folder : the model folder
    version : the model version
    shift : added to the target, so that models can be told apart by their answers
    changes : `task`, `columns` (see `build_contract`), or fields of the manifest that replace the true ones
    """
    task = str(changes.pop("task", "regression"))
    contract = build_contract(task, **changes.pop("columns", {}))
    X = build_table()
    price = X["floor area"].fillna(50) * 3 + X["rooms"] * 7 + shift
    y = price if task == "regression" else price.map(lambda p: "cheap" if p < 130 else "fair" if p < 200 else "dear")
    specs = [
        column.model_dump() | {"name": name, "missing": contract.missing_spellings(name)}
        for name, column in contract.features.items()
    ]
    encoder = build_encoder(columns=specs, target_means=[], task=task, min_frequency=1, seed=0)
    estimator = LinearRegression() if task == "regression" else LogisticRegression(max_iter=10_000)
    pipeline = Pipeline([("encoder", encoder), ("model", estimator)]).fit(X, y)
    golden = [{name: value for name, value in GOOD.items() if name != "_built"} | {"_built": "17.05.2001"}]
    answers = predict_rows(pipeline, contract, golden)
    describe = {
        "model_version": version,
        "task": task,
        "target": "price",
        "classes": None if task == "regression" else estimator.classes_.tolist(),
        "estimator": type(estimator).__name__,
        "feature_names": list(encoder.get_feature_names_out()),
        "libraries": list_libraries(),
        "contract": contract.to_dict(),
        "lineage": {"stage": "train", "inputs": {"processed": "ab" * 32}, "params": {"seed": 0}, "code": "cd" * 32},
        "golden": {
            "rows": golden,
            "predictions": answers.values,
            "probabilities": None if answers.probabilities is None else answers.probabilities.tolist(),
        },
    }
    with commit() as files:
        return write_model(files, folder, pipeline, describe | changes)
