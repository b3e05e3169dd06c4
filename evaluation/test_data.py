"""What evaluation reads, checked to belong together."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from data_ingestion import handoff as files
from data_ingestion import schema as contracts
from data_ingestion.handoff import Workspace
from data_ingestion.schema import Contract
from models import artifact
from models.artifact import SavedModel

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PREPROCESSOR = "data_ingestion/data_preprocessor.py"
MAX_TRAIN_ROWS = 50_000  # more would not move the figures of the train rows enough to be seen
PROFILED = ("kind", "role", "missing_share", "distinct", "distinct_is_exact", "min", "max", "mean", "top")
N_TOP = 5


@dataclass(frozen=True)
class TestData:
    """The rows to judge by, and what is known of the data.

    Parameters
    ----------
    raw : the test rows as they are in the source, typed
    contract : what the columns of `raw` are, as the model was trained
    X, y : the same rows, encoded, and their target
    X_train, y_train : a sample of the train rows, likewise
    y_learnt : the target of all train rows
    leaks : what looked like a leak of the target
    profile : what the columns of the source hold; None where the loader wrote none
    """

    __test__ = False  # no test class, whatever pytest makes of the name

    raw: "pa.Table"
    contract: Contract
    X: "pd.DataFrame"
    y: "pd.Series"
    X_train: "pd.DataFrame"
    y_train: "pd.Series"
    y_learnt: "pd.Series"
    leaks: list[object]
    profile: dict[str, object] | None

    @cached_property
    def features(self) -> "pd.DataFrame":
        """The features of the test rows, raw."""
        features: pd.DataFrame = self.raw.select(list(self.contract.features)).to_pandas()
        return features


def read_test_data(workspace: Workspace, model: SavedModel, seed: int) -> TestData:
    """Read the test rows that belong to the model, and a stable sample of its train rows.

    Raises
    ------
    PipelineError : the model was trained on another split or on other data, or a file was exchanged since
    """
    import numpy as np

    processed, preprocessed = files.read_parquet(workspace.processed, PREPROCESSOR)
    raw, loaded = files.read_parquet(workspace.raw, contracts.LOADER)
    trained_on = files.parse_lineage(model.manifest.lineage).inputs.get("processed.parquet")
    if trained_on != files.sha256_file(workspace.processed):
        reason = "it was trained on another split than data/processed.parquet holds now"
        raise files.stale_error(workspace.models / artifact.PICKLE, reason, artifact.TRAINER)
    if preprocessed.inputs.get("raw.parquet") != files.sha256_file(workspace.raw):
        raise files.stale_error(workspace.processed, "data/raw.parquet has changed since", PREPROCESSOR)
    leaks = read_written_beside(workspace.leaks, preprocessed.outputs, PREPROCESSOR) or {}
    profile = read_written_beside(workspace.profile, loaded.outputs, contracts.LOADER)
    table = processed.to_pandas()
    train, test = (table[table["split"] == side] for side in ("train", "test"))
    picked = np.random.default_rng(seed).permutation(len(train))[:MAX_TRAIN_ROWS]
    sample, names = train.iloc[np.sort(picked)], model.manifest.feature_names
    return TestData(
        raw=raw.take(test["row_id"].to_numpy()),
        contract=model.contract,
        X=test[names],
        y=test["target"],
        X_train=sample[names],
        y_train=sample["target"],
        y_learnt=train["target"],
        leaks=cast("list[object]", leaks.get("findings", [])),
        profile=None if profile is None else shorten_profile(profile),
    )


def read_written_beside(path: Path, outputs: Mapping[str, str], made_by: str) -> dict[str, object] | None:
    """Return a JSON file that a stage wrote beside its hand-off; None when that knows of none.

    Raises
    ------
    PipelineError : it is missing, or not the file that was written
    """
    if path.name not in outputs:
        return None
    files.read_verified(path, outputs[path.name], made_by)
    return files.read_json(path, made_by)


def shorten_profile(profile: Mapping[str, object]) -> dict[str, object]:
    """Return the rows, and what a reader of the report wants to know of each column."""
    columns = cast("Mapping[str, Mapping[str, object]]", profile["columns"])
    kept = {name: {key: facts[key] for key in PROFILED if key in facts} for name, facts in columns.items()}
    for facts in kept.values():
        if "top" in facts:
            facts["top"] = cast("list[object]", facts["top"])[:N_TOP]
    return {"rows": profile["rows"], "columns": kept}
