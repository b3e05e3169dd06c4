"""From a block of records to answers: read and held against the model's own contract, as the API holds a request.

What the API refuses is rejected with its reason, and what it warns about is said of the row in the same words.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.batches.arrow_buffers import to_column
from app.scoring.plan import ROW, Plan
from data_ingestion.csv_places import locate_records
from data_ingestion.csv_reader import Block
from data_ingestion.schema import Contract
from data_ingestion.typed_blocks import TypedBlock, TypedColumn, read_block
from data_ingestion.validation import Reject, check_block, find_unexpected_rows
from models.artifact import Predictions, SavedModel, ScorerModel, predict_table

NO_ANSWER = "the model has no finite answer for these values"


@dataclass(frozen=True)
class ScoredBlock:
    """The rows of a block that have an answer, and what became of the others.

    Parameters
    ----------
    block : the records
    places : (n_rows,) which record of the block each row is, from 0
    rows : (n_rows,) which row of those that fit the header each row is, from 0
    table : the columns of the input that the contract knows, typed
    answers : what is added, see `describe_answers`
    rejects : in file order
    emptied : how many values of columns that are no features are not of their kind, and therefore empty when typed
    """

    block: Block
    places: NDArray[np.int64]
    rows: NDArray[np.int64]
    table: pa.Table
    answers: pa.Table
    rejects: list[Reject]
    emptied: dict[str, int]


def score_block(block: Block, plan: Plan) -> ScoredBlock:
    """Return the rows of a block with the model's answers.

    Raises
    ------
    PipelineError : the block is not UTF-8, or no CSV
    """
    typed = read_block(block, plan.layout)
    row_numbers = TypedColumn(pa.array(np.arange(typed.num_rows)))
    typed = replace(typed, columns={**typed.columns, ROW: row_numbers})
    checked = check_block(block, typed, plan.layout, frozenset(plan.located))
    plan.located.update((finding.column, finding.rule) for finding in checked.findings)
    table, rejects, contract = checked.table.combine_chunks(), checked.rejects, plan.model.contract
    predictions = predict_block(table, plan.model)
    is_finite = find_finite(predictions)
    if not is_finite.all():
        rows = table[ROW].to_numpy()[~is_finite]
        rejects = sorted([*rejects, *_reject_rows(block, typed, rows)], key=lambda reject: reject.line)
        table = table.filter(pa.array(is_finite))
    answers = pa.table(
        [
            *_list_answers(predictions, is_finite, plan.answer_schema),
            pa.repeat(plan.model.manifest.model_version, table.num_rows),
            pa.repeat(pa.scalar(plan.scored_at, plan.answer_schema.field("scored_at").type), table.num_rows),
            describe_warnings(table, contract),
        ],
        plan.answer_schema,
    )
    rows = table[ROW].to_numpy()
    return ScoredBlock(
        block,
        place_records(typed)[rows],
        rows,
        table.drop_columns(ROW),
        answers,
        rejects,
        _count_emptied(typed, plan.layout.contract),
    )


def predict_block(table: pa.Table, model: SavedModel | ScorerModel) -> Predictions:
    """Return the answers for typed rows: of the compiled model, or of the pickle where there is none."""
    if not table.num_rows:
        return Predictions([], np.empty((0, len(model.manifest.classes))) if model.manifest.classes else None)
    features = table.select(list(model.contract.features))
    if isinstance(model, ScorerModel):
        columns = {name: to_column(features[name].combine_chunks()) for name in features.column_names}
        return model.predict_columns(columns, table.num_rows)
    import pandas as pd

    dtypes = {pa.bool_(): pd.BooleanDtype()}  # as it is, booleans among missing ones become objects
    return predict_table(model.pipeline, features.to_pandas(types_mapper=dtypes.get), model.contract)


def find_finite(predictions: Predictions) -> NDArray[np.bool_]:
    """Return (n_rows,) whether the model has an answer, as the API decides it."""
    if predictions.probabilities is not None:
        return np.asarray(np.isfinite(predictions.probabilities).all(axis=1))
    return np.isfinite(np.asarray(predictions.values, dtype=np.float64))


def _list_answers(predictions: Predictions, is_kept: NDArray[np.bool_], schema: pa.Schema) -> list[pa.Array]:
    """Return the predictions, and the probabilities of each class."""
    kept = pa.array(is_kept)
    values = pa.array(predictions.values, schema.field("prediction").type).filter(kept)
    shares = [] if predictions.probabilities is None else list(predictions.probabilities.T)
    return [values, *(pa.array(np.ascontiguousarray(share)).filter(kept) for share in shares)]


def describe_warnings(table: pa.Table, contract: Contract) -> pa.Array:
    """Return what the model has not seen in training or has to fill in, as the API says it; null for nothing.

    Parameters
    ----------
    table : the features, typed, without those that the contract refuses
    contract : the model's
    """
    found = []
    for name, column in contract.features.items():
        values = table[name].combine_chunks() if table[name].num_chunks != 1 else table[name].chunk(0)
        texts = np.full(len(values), None, dtype=object)
        if values.null_count:
            texts[np.asarray(values.is_null())] = f"{name}: missing, imputed"
        unexpected = find_unexpected_rows(values, column)
        if len(unexpected):
            is_unseen = column.kind == "category"
            rule = "unseen category" if is_unseen else f"outside the range {column.min} to {column.max}"
            texts[unexpected] = f"{name}: {rule}"
        if values.null_count or len(unexpected):
            found.append(pa.array(texts, pa.string()))
    if not found:
        return pa.nulls(table.num_rows, pa.string())
    # Where every text is null, Arrow would leave out the row: so each begins with an empty one, and a separator.
    joined = pc.utf8_slice_codeunits(pc.binary_join_element_wise("", *found, "; ", null_handling="skip"), 2)
    return pc.if_else(pc.equal(joined, ""), pa.scalar(None, pa.string()), joined)


def place_records(typed: TypedBlock) -> NDArray[np.int64]:
    """Return for each row of a block which of its records it is, from 0: those that do not fit the header are none."""
    misfits = [misfit.number - 1 for misfit in typed.misfits]
    return np.setdiff1d(np.arange(typed.num_rows + len(misfits)), misfits)


def _reject_rows(block: Block, typed: TypedBlock, rows: NDArray[np.int64]) -> list[Reject]:
    content = block.content
    starts, stops, lines = locate_records(content, block.separator)
    return [
        Reject(
            block.source,
            int(lines[place]) + block.line - 1,
            None,
            NO_ANSWER,
            content[starts[place] : stops[place]].decode(),
        )
        for place in place_records(typed)[rows]
    ]


def _count_emptied(typed: TypedBlock, contract: Contract) -> dict[str, int]:
    faults = {
        name: read.is_fault
        for name, read in typed.columns.items()
        if read.is_fault is not None and contract.columns[name].role == "ignored"
    }
    return {name: pc.sum(is_fault).as_py() for name, is_fault in faults.items()}
