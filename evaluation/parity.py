"""The proof that training and serving answer alike: every test row, asked every way there is."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_ingestion.handoff import PipelineError
from evaluation.test_data import PREPROCESSOR, TestData
from models import artifact
from models.artifact import Predictions, SavedModel, ScorerModel

OWN_TOLERANCE = 1e-9  # of what is not compiled, see `check_parity`
REQUEST_ROWS = 10_000  # rows of plain Python values at a time, which take much more memory than a table


def predict_each_way(model: SavedModel, data: TestData) -> dict[str, Predictions]:
    """Return the answers for the test rows by every way there is to ask for them.

    The estimator takes the encoded rows of processed.parquet, as in training; the pipeline takes the typed raw rows;
    and the rows as a request sends them go the way of the API: to the scorer, where the model could be compiled.
    """
    estimator = model.pipeline.named_steps["estimator"]
    answers = {
        "estimator on encoded rows": artifact.predict_table(estimator, data.X, model.contract),
        "pipeline on raw rows": artifact.predict_table(model.pipeline, data.features, model.contract),
        "model on request rows": predict_requests(model, data),
    }
    if model.folder is not None and model.manifest.scorer.compiled:
        scorer = artifact.load_scorer_model(model.folder)
        answers["scorer on request rows"] = predict_requests(scorer, data)
    return answers


def predict_requests(model: SavedModel | ScorerModel, data: TestData) -> Predictions:
    """Return the answers for the test rows as requests send them."""
    parts = [
        model.predict(artifact.to_rows(data.raw.slice(start, REQUEST_ROWS), model.contract))
        for start in range(0, data.raw.num_rows, REQUEST_ROWS)
    ]
    values = [value for part in parts for value in part.values]
    probabilities = [part.probabilities for part in parts if part.probabilities is not None]
    return Predictions(values, np.vstack(probabilities) if probabilities else None)


def check_parity(answers: dict[str, Predictions], tolerance: float = 0.0) -> None:
    """Raise unless every way gives the same answers: a difference is training/serving skew.

    Parameters
    ----------
    answers : of each way, for the same rows
    tolerance : the share by which numbers may differ: none, but for an estimator of the user's own, which may multiply
        matrices, and those round otherwise where there are other rows beside
    """
    (first, expected), *others = answers.items()
    for name, found in others:
        differs = _compare(expected, found, tolerance)
        different = np.flatnonzero(differs)
        if len(different):
            row = int(different[0])
            raise PipelineError(
                f"training/serving skew in {len(different):,} of {len(expected.values):,} test rows: for the first "
                f"(test row {row}) the {first} gives {expected.values[row]!r}, the {name} gives {found.values[row]!r}. "
                f"Run again: python {PREPROCESSOR}, then python {artifact.TRAINER}"
            )


def _compare(expected: Predictions, found: Predictions, tolerance: float) -> NDArray[np.bool_]:
    """Return (n_rows,) where the answers differ, labels where their probabilities do."""
    shares, others = expected.probabilities, found.probabilities
    if not tolerance:
        differs = np.asarray(pd.Series(expected.values) != pd.Series(found.values))
        return differs if shares is None or others is None else differs | (shares != others).any(axis=1)
    if shares is None or others is None:
        return np.asarray(~np.isclose(np.array(expected.values), np.array(found.values), tolerance, 0.0))
    return np.asarray(~np.isclose(shares, others, tolerance, tolerance).all(axis=1))
