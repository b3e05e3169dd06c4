"""Opens the model for the servers beside this module: the pickle as anybody would, or our scorer.

Reads the model folder that BENCH_MODEL names. Set BENCH_SCORER=1 for the scorer.
"""

import os
from collections.abc import Callable
from pathlib import Path

Row = dict[str, float | int | str]


def load_answers() -> Callable[[list[Row]], list[float]]:
    """Return what answers a list of raw rows."""
    folder = Path(os.environ["BENCH_MODEL"])
    if os.environ.get("BENCH_SCORER"):
        from models.artifact import load_scorer_model

        model = load_scorer_model(folder)
        return lambda rows: [float(value) for value in model.predict(rows).values]
    import joblib
    import pandas as pd

    pipeline = joblib.load(folder / "saved_model.pkl")
    return lambda rows: pipeline.predict(pd.DataFrame(rows)).tolist()
