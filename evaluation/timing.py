"""How long the model takes to answer. The one thing in metrics.json that is measured, not computed."""

import time
from typing import TYPE_CHECKING

import numpy as np

from models.artifact import SavedModel, predict_table

if TYPE_CHECKING:
    import pandas as pd

N_ROWS_ALONE = 20
BATCH_ROWS = 1_000
N_BATCHES = 3


def measure_timing(model: SavedModel, X: "pd.DataFrame") -> dict[str, object]:
    """Return how long the pipeline takes for one raw row, and for each row of a batch; the fastest batch counts.

    Parameters
    ----------
    model : the model under test
    X : (n_rows, n_features) raw test rows
    """
    alone = [_time(model, X.iloc[[place % len(X)]]) for place in range(N_ROWS_ALONE)]
    batch = X.iloc[:BATCH_ROWS]
    seconds = min(_time(model, batch) for _ in range(N_BATCHES))
    p50, p95 = np.quantile(alone, [0.5, 0.95]) * 1e3
    return {
        "row_ms": {"p50": round(float(p50), 3), "p95": round(float(p95), 3)},
        "batch_us_per_row": round(seconds / len(batch) * 1e6, 2),
        "batch_rows": len(batch),
    }


def _time(model: SavedModel, X: "pd.DataFrame") -> float:
    start = time.perf_counter()
    predict_table(model.pipeline, X, model.contract)
    return time.perf_counter() - start
