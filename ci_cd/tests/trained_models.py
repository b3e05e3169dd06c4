"""Small models made of what training tries, on thirty rows, so that they compile."""

from pathlib import Path

from sklearn.pipeline import Pipeline
from small_models import GOOD, build_contract, build_table

from data_ingestion.encoder import build_encoder
from data_ingestion.handoff import commit
from models.artifact import list_libraries, predict_rows, to_label, write_model
from models.candidates import Candidate, describe_problem
from models.estimators import build_estimator


def train(folder: Path, task: str, name: str, **changes: dict[str, object]) -> Path:
    """Train a candidate on thirty rows, and return its model folder."""
    contract = build_contract(task, **changes)
    X = build_table()
    price = X["floor area"].fillna(50) * 3 + X["rooms"] * 7
    labels = {
        "binary": lambda p: "dear, very" if p > 170 else "cheap",
        "multiclass": lambda p: "ABC"[int(p > 130) + int(p > 200)],
    }
    y = price if task == "regression" else price.map(labels[task])
    features = contract.features.items()
    specs = [column.model_dump() | {"name": n, "missing": contract.missing_spellings(n)} for n, column in features]
    encoder = build_encoder(columns=specs, target_means=[], task=task, min_frequency=1, seed=0)
    encoded = encoder.fit_transform(X, y)
    estimator = build_estimator(Candidate(name, name), describe_problem(task, encoded, y, 0)).fit(encoded, y)
    pipeline = Pipeline([("encoder", encoder), ("estimator", estimator)])
    golden = [GOOD | {"_built": "17.05.2001"}]
    answers = predict_rows(pipeline, contract, golden)
    describe = {
        "model_version": "0123456789ab",
        "task": task,
        "target": "price",
        "classes": None if task == "regression" else [to_label(label) for label in estimator.classes_],
        "estimator": name,
        "feature_names": list(encoded.columns),
        "libraries": list_libraries(),
        "contract": contract.to_dict(),
        "lineage": {},
        "golden": {
            "rows": golden,
            "predictions": answers.values,
            "probabilities": None if answers.probabilities is None else answers.probabilities.tolist(),
        },
    }
    with commit() as files:
        write_model(files, folder, pipeline, describe)
    return folder
