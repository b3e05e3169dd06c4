"""What training reads, checked to belong together, and cut into folds."""

import io
from dataclasses import dataclass

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from data_ingestion import handoff as files
from data_ingestion import schema as contracts
from data_ingestion.handoff import Lineage, PipelineError, Workspace
from data_ingestion.schema import Contract, Strategy
from data_ingestion.splitter import find_column
from models.candidates import METRICS
from models.fold_encoding import encode_target_means
from models.fold_work import FoldTable
from models.folds import cut_folds

PREPROCESSOR = "data_ingestion/data_preprocessor.py"


@dataclass(frozen=True)
class TrainingData:
    """What training reads, checked to belong together.

    Parameters
    ----------
    raw : all typed rows of the source
    X, y : encoded features and target of the train rows, indexed by row_id
    encoder : the fitted encoder that made X
    contract : the columns of the source
    loaded, preprocessed : lineage of raw.parquet and of processed.parquet
    """

    raw: pa.Table
    X: pd.DataFrame
    y: pd.Series
    encoder: Pipeline
    contract: Contract
    loaded: Lineage
    preprocessed: Lineage


def read_training_data(workspace: Workspace) -> TrainingData:
    """Read the hand-offs of the two stages before this one.

    Raises
    ------
    PipelineError : one of them is missing, damaged, or does not belong to the others
    """
    contract, _ = contracts.read_contract(workspace.schema)
    processed, preprocessed = files.read_parquet(workspace.processed, PREPROCESSOR)
    raw, loaded = files.read_parquet(workspace.raw, contracts.LOADER)
    contracts.check_raw(workspace.raw, raw.column_names, loaded, contract)
    content = files.read_verified(workspace.encoder, preprocessed.outputs.get("encoder.pkl", ""), PREPROCESSOR)
    if preprocessed.inputs.get("raw.parquet") != files.sha256_file(workspace.raw):
        raise files.stale_error(workspace.processed, "data/raw.parquet has changed since", PREPROCESSOR)
    table = processed.to_pandas().set_index("row_id")
    train = table[table["split"] == "train"]
    X = train.drop(columns=["split", "target"])
    return TrainingData(raw, X, train["target"], joblib.load(io.BytesIO(content)), contract, loaded, preprocessed)


def find_order(data: TrainingData) -> NDArray[np.object_] | None:
    """Return the group or the time of each train row where the split went by one, else None."""
    strategy, column = data.preprocessed.params["split"], data.preprocessed.params["split_column"]
    if strategy not in ("group", "time"):
        return None
    name = find_column(data.contract, strategy, column)  # type: ignore[arg-type]
    order: NDArray[np.object_] = data.raw[name].to_pandas().loc[data.X.index].to_numpy()
    return order


def cut_table(data: TrainingData, n_folds: int | None, seed: int) -> FoldTable:
    """Return the train rows cut into folds, with target means that each fold has learnt by itself."""
    contract = data.contract
    strategy: Strategy = data.preprocessed.params["split"]  # type: ignore[assignment]
    n_columns = data.X.shape[1]
    folds = cut_folds(contract.task, strategy, data.y, n_columns, n_folds, seed, find_order(data))
    means = encode_target_means(data.encoder, data.raw.take(data.X.index.to_numpy()), contract, data.y, folds, seed)
    y = np.asarray(data.y.to_numpy(), dtype=object if data.y.dtype == "str" else None)
    columns = tuple(map(str, data.X.columns))
    return FoldTable(data.X.to_numpy(dtype=np.float64), columns, y, folds, means, METRICS[contract.task])


def list_monotone(data: TrainingData) -> dict[str, int]:
    """Return the encoded columns whose effect must keep its sign, by the contract."""
    signs = {"increasing": 1, "decreasing": -1}
    wanted = {name: column.monotone for name, column in data.contract.features.items() if column.monotone}
    if wanted and data.contract.task == "multiclass":
        raise PipelineError(
            f"data/schema.yaml: {contracts.join_names(list(wanted))}: monotone has no meaning for more than two "
            "classes. Take it out."
        )
    return {f"number__{name}": signs[sign] for name, sign in wanted.items()}
