"""What a model of two classes would come to if it answered with the second class from another probability on."""

import numpy as np
from numpy.typing import NDArray

GRID = tuple(round(0.05 * step, 2) for step in range(1, 20))
EVEN = 0.5  # where the likelier class is the answer


def tabulate_thresholds(
    is_positive: NDArray[np.bool_], probabilities: NDArray[np.float64], own: float | None
) -> list[dict[str, object]]:
    """Return a row per threshold, ascending.

    Parameters
    ----------
    is_positive : (n_rows,) whether a row is of the second class
    probabilities : (n_rows,) of the second class
    own : the model's threshold; None is 0.5
    """
    chosen = EVEN if own is None else own
    return [
        {"threshold": value, **_score_threshold(is_positive, probabilities >= value), "chosen": value == chosen}
        for value in sorted({*GRID, chosen})
    ]


def _score_threshold(is_positive: NDArray[np.bool_], answered: NDArray[np.bool_]) -> dict[str, object]:
    """Return counts and figures; precision is undefined where nothing is answered, recall where nothing is to find."""
    hits = int((is_positive & answered).sum())
    n_answered, n_positive = int(answered.sum()), int(is_positive.sum())
    return {
        "precision": hits / n_answered if n_answered else None,
        "recall": hits / n_positive if n_positive else None,
        "f1": 2 * hits / (n_answered + n_positive) if n_answered + n_positive else None,
        "false_positives": n_answered - hits,
        "false_negatives": n_positive - hits,
        "answered_positive_share": n_answered / len(answered),
    }
