"""A metrics.json with every section there is, made up: what the report shows, without the time it takes to compute."""

from collections.abc import Mapping, Sequence

from data_ingestion.schema import Column, Contract
from models.artifact import Golden, Manifest

FIGURES = {
    "regression": {"mse": 900.0, "mae": 21.5, "rmse": 30.0, "r2": 0.81},
    "binary": {
        "accuracy": 0.8,
        "balanced_accuracy": 0.71,
        "f1": 0.58,
        "roc_auc": 0.84,
        "average_precision": 0.64,
        "log_loss": 0.42,
    },
}
FIGURES["multiclass"] = FIGURES["binary"]
DUMMY = {"mse": 4900.0, "mae": 55.0, "rmse": 70.0, "r2": -0.01, "f1": 0.0, "log_loss": 0.58}
METRIC = {"regression": "rmse", "binary": "roc_auc", "multiclass": "log_loss"}


def build_contract(task: str, target: str, features: Sequence[str]) -> Contract:
    """A contract with a category, a date and otherwise numbers among the features."""
    columns = {
        name: Column(kind="category", categories=["red", "blue"])
        if place == 1
        else Column(kind="datetime")
        if place == 2
        else Column(kind="number", min=0.5, max=99.0)
        for place, name in enumerate(features)
    }
    columns[target] = Column(kind="number" if task == "regression" else "category", role="target")
    return Contract(source="somewhere/my.csv", target=target, task=task, columns=columns)


def build_manifest(contract: Contract, classes: Sequence[str]) -> Manifest:
    return Manifest(
        model_version="0123456789ab",
        task=contract.task,
        target=contract.target,
        classes=None if contract.task == "regression" else list(classes),
        estimator="HistGradientBoosting",
        feature_names=list(contract.features),
        files={"saved_model.pkl": "ab" * 32},
        libraries={"scikit-learn": "1.9.1"},
        contract=contract.to_dict(),
        lineage={},
        golden=Golden(rows=[], predictions=[]),
    )


def build_metrics(contract: Contract, **sections: object) -> dict[str, object]:
    """The least that an evaluated model has, and these sections of "test"."""
    scores = FIGURES[contract.task]
    return {
        "model_version": "0123456789ab",
        "task": contract.task,
        "target": contract.target,
        "params": {"load": {"source": "somewhere/my.csv"}, "train": {"folds": 5, "seed": 42}},
        "data": {
            "source": "somewhere/my.csv",
            "source_sha256": "cd" * 32,
            "raw_sha256": "ef" * 32,
            "schema": "01" * 32,
        },
        "rows": {"in": 7043, "kept": 7041, "rejected": 2, "train": 5665, "test": 1376},
        "train": {
            "rows": 5665,
            "metric": METRIC[contract.task],
            "chosen": "boosting",
            "leaderboard": [
                {"name": "boosting", "mean": 0.8453, "standard_error": 0.0062, "folds": [0.84, 0.85]},
                {"name": "dummy", "mean": 0.5, "standard_error": 0.0, "folds": [0.5, 0.5]},
            ],
        },
        "test": {
            "rows": 1376,
            "confidence": 0.95,
            **scores,
            "intervals": {name: [value * 0.95, value * 1.05] for name, value in scores.items()},
            "dummy": {name: DUMMY.get(name, 0.5) for name in scores},
            "parity": {"rows": 1376, "different": 0},
            **sections,
        },
    }


def build_sections(contract: Contract, classes: Sequence[str]) -> dict[str, object]:
    """Every optional section of "test"."""
    scores, features = FIGURES[contract.task], list(contract.features)
    name = features[0]
    is_regression = contract.task == "regression"
    return {
        "train": {"rows": 5665} | {name: value * 1.02 for name, value in scores.items()},
        "champion": {"model_version": "ba9876543210"} | {name: value * 0.97 for name, value in scores.items()},
        "slices": {
            "metric": METRIC[contract.task],
            "tested": 64,
            "worst": [
                {
                    "column": name,
                    "slice": f"{name} = {10 * place} to {10 * place + 10}",
                    "rows": 40 + place,
                    "score": 0.6 + 0.02 * place,
                    "interval": [0.55 + 0.02 * place, 0.66 + 0.02 * place],
                    "rest": 0.84,
                    "p_value": 0.0001 * 10**place,
                    "adjusted_p": min(1.0, 0.0064 * 10**place),
                }
                for place in range(4)
            ],
            "caveat": "64 slices were looked at, and among so many some look worse by chance.",
        },
        "calibration": build_calibration(is_regression),
        "thresholds": [build_threshold(place / 10) for place in range(1, 10)] if contract.task == "binary" else None,
        "coverage": {"confidence": 0.9, "covered": 0.893, "interval": [0.876, 0.909]}
        | ({"mean_width": 88.25} if is_regression else {"mean_size": 1.3}),
        "importance": [
            {"column": column, "mean": 0.2 / (place + 1), "std": 0.02 / (place + 1)}
            for place, column in enumerate(features)
        ],
        "partial_dependence": [
            build_dependence(column, kind.kind, classes) for column, kind in list(contract.features.items())[:6]
        ],
        "leaks": [
            {
                "kind": "predicts_alone",
                "columns": [name],
                "figure": 0.999,
                "message": f'column "{name}" alone predicts the target (ROC AUC 0.999)',
                "action": f'Ask whether "{name}" is known before the target is; if not: role: ignored.',
            }
        ],
        "profile": {
            column: {"kind": kind.kind, "missing_share": 0.003, "distinct": 71, "min": kind.min, "max": kind.max}
            for column, kind in contract.columns.items()
        },
        "timing": {"row_ms": {"p50": 8.125, "p95": 9.5}, "batch_us_per_row": 14.25, "batch_rows": 1000},
    }


def build_calibration(is_regression: bool) -> dict[str, object]:
    bins = [
        {"low": low / 5, "high": (low + 1) / 5, "rows": 275, "mean_predicted": low / 5 + 0.1}
        | ({"mean_observed": low / 5 + 0.12} if is_regression else {"share_observed": low / 5 + 0.07})
        | {"interval": [low / 5 + 0.02, low / 5 + 0.15]}
        for low in range(5)
    ]
    return {"bins": bins} | ({} if is_regression else {"expected_calibration_error": 0.031, "brier_score": 0.136})


def build_threshold(value: float) -> dict[str, object]:
    return {
        "threshold": value,
        "precision": 0.3 + value / 2 if value < 0.9 else None,
        "recall": 1 - value**2,
        "f1": 0.4 + value * (1 - value),
        "false_positives": round(900 * (1 - value)),
        "false_negatives": round(300 * value),
        "answered_positive_share": 1 - value,
        "chosen": value == 0.3,
    }


def build_dependence(column: str, kind: str, classes: Sequence[str]) -> dict[str, object]:
    grids: Mapping[str, list[object]] = {
        "category": ["red", "blue", None],
        "datetime": [f"20{year}-01-01T00:00:00" for year in range(10, 20)],
        "boolean": [True, False],
    }
    grid = grids.get(kind, [1.5, 4.0, 8.25, 30.0, 70.0])
    found: dict[str, object] = {"column": column, "kind": kind, "grid": grid, "shares": None}
    found["mean"] = [0.1 + 0.04 * place for place in range(len(grid))]
    return found | ({"class": classes[-1]} if classes else {})


def build_everything(contract: Contract, classes: Sequence[str]) -> dict[str, object]:
    """All sections, a full leaderboard and a verdict."""
    metrics = build_metrics(contract, **build_sections(contract, classes))
    settings = {"learning_rate": 0.05, "max_leaf_nodes": 31, "l2_regularization": 1.0, "max_iter": 400}
    metrics["train"] |= {  # type: ignore[operator]
        "chosen": "ensemble",
        "threshold": 0.3 if contract.task == "binary" else None,
        "leaderboard": [
            {
                "name": f"boosting {place}",
                "mean": 0.85 - place / 100,
                "standard_error": 0.006 if place < 20 else None,
                "interval": [0.84 - place / 100, 0.86 - place / 100] if place < 20 else None,
                "folds": [0.85, 0.84] if place < 20 else [0.6, None],
                "dropped": place >= 20,
                "size_bytes": 250_000,
                "fit_s": 1.25 + place,
                "predict_us": 8.5,
                "n_trees": 300,
                "weight": 0.5 if place in (0, 15) else 0.0,
                "settings": settings,
            }
            for place in range(22)
        ],
        "choices": [
            {"name": "ensemble", "score": 0.853, "predict_us": 17.0, "n_trees": 600},
            {"name": "single", "score": 0.85, "predict_us": 8.5, "n_trees": 300},
        ],
    }
    reasons = ["better than the dummy: ROC AUC 0.8400 against 0.5000", "no slice is worse than allowed"]
    return metrics | {"verdict": {"status": "passed", "reasons": reasons}}
