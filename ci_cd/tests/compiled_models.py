"""A small model of trees for the tests: compiled, so that numpy alone answers for it, as in production."""

from functools import partial
from pathlib import Path

import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from small_models import write_small_model


def write_compiled_model(folder: Path, version: str = "0123456789ab") -> None:
    """Write a model of two trees with splits to a folder."""
    trees = partial(HistGradientBoostingRegressor, max_iter=2, min_samples_leaf=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("small_models.LinearRegression", trees)
        assert write_small_model(folder, version).scorer.compiled
