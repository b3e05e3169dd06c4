"""What training reads, checked to belong together, and cut into folds."""

import io
from dataclasses import dataclass

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.pipeline import Pipeline

from data_ingestion import handoff as files
from data_ingestion import schema as contracts
from data_ingestion.handoff import Lineage, PipelineError, Workspace
from data_ingestion.row_hash import hash_rows
from data_ingestion.schema import Contract
from data_ingestion.splitter import SplitRequest, list_decisive_columns, read_moments, scale_gap
from models.candidates import METRICS
from models.fold_encoding import encode_target_means
from models.fold_work import FoldTable
from models.folds import FoldRequest, Keys, cut_folds, explain_folds

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


def find_split(data: TrainingData) -> SplitRequest:
    """Return how the test rows were chosen."""
    params = data.preprocessed.params
    return SplitRequest(params["split"], params["split_column"], gap=params["gap"])  # type: ignore[arg-type]


def find_keys(split: SplitRequest, contract: Contract, rows: pa.Table) -> tuple[Keys, float]:
    """Return what the split keeps together, and the gap in units of it.

    Parameters
    ----------
    split : how the test rows were chosen
    contract : the columns
    rows : the typed train rows

    Returns
    -------
    keys : (n_rows,) the moment of each row where the split goes by time, else a hash of what decides its side
    gap : how much before the rows to be judged by is left out
    """
    names = list_decisive_columns(contract, split)
    if split.strategy == "time":
        moments = rows[names[0]]
        return read_moments(moments), scale_gap(split.gap, moments.type)
    return hash_rows(rows, names, split.seed), 0.0


def cut_table(data: TrainingData, n_folds: int | None, seed: int) -> FoldTable:
    """Return the train rows cut into folds, with target means that each fold has learnt by itself.

    Says so where there are fewer folds than asked for.
    """
    contract, split, rows = data.contract, find_split(data), data.raw.take(data.X.index.to_numpy())
    keys, gap = find_keys(split, contract, rows)
    request = FoldRequest(contract.task, split.strategy, n_folds, seed, gap)
    folds = cut_folds(request, data.y, keys, data.X.shape[1])
    if (why := explain_folds(request, folds)) is not None:
        print(why)
    means = encode_target_means(data.encoder, rows, contract, data.y, folds, seed)
    y = np.asarray(data.y.to_numpy(), dtype=object if data.y.dtype == "str" else None)
    columns = tuple(map(str, data.X.columns))
    return FoldTable(data.X.to_numpy(dtype=np.float64), columns, y, folds, means, METRICS[contract.task])


def list_monotone(data: TrainingData) -> dict[str, int]:
    """Return the encoded columns whose effect must keep its sign, by the contract.

    Raises
    ------
    PipelineError : the effect of such a column has no sign
    """
    signs = {"increasing": 1, "decreasing": -1}
    wanted = {name: column.monotone for name, column in data.contract.features.items() if column.monotone}
    if wanted and data.contract.task == "multiclass":
        raise PipelineError(
            f"data/schema.yaml: {contracts.join_names(list(wanted))}: monotone has no meaning for more than two "
            "classes. Take it out."
        )
    for name in wanted:
        if f"number__{name}" not in data.X.columns:
            kind = data.contract.features[name].kind
            raise PipelineError(
                f'data/schema.yaml: column "{name}" is of kind {kind}, whose effect cannot be monotone: that takes a '
                "number. Take monotone out, or change the kind."
            )
    return {f"number__{name}": signs[sign] for name, sign in wanted.items()}
