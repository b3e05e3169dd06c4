"""How the blocks of one input are scored: the model's own contract, narrowed to the columns that the file has."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from data_ingestion.csv_reader import Block
from data_ingestion.handoff import PipelineError
from data_ingestion.params import suggest
from data_ingestion.schema import Column, Contract, join_names
from data_ingestion.typed_blocks import Layout
from models.artifact import SavedModel, ScorerModel

ROW = "\0row"  # rides along as one more column to say which rows are left; no file can hold such a name
SHOWN = 5


@dataclass(frozen=True)
class Plan:
    """How the blocks of one input are scored.

    Parameters
    ----------
    model : it answers, and its contract decides
    layout : the columns of the input that the contract knows; only features can be at fault
    header : all columns of the input
    scored_at : in UTC, the same for all rows
    located : what has been remarked on before; grows while scoring, and decides nothing but speed
    """

    model: SavedModel | ScorerModel
    layout: Layout
    header: tuple[str, ...]
    scored_at: datetime
    located: set[tuple[str, str]] = field(default_factory=set)

    @property
    def unknown(self) -> list[str]:
        """The columns that the contract does not know."""
        return [name for name in self.header if name not in self.layout.contract.columns]

    @property
    def answer_schema(self) -> pa.Schema:
        """What is added to every row."""
        return describe_answers(self.model)


def plan_scoring(model: SavedModel | ScorerModel, block: Block, typed: frozenset[str], scored_at: datetime) -> Plan:
    """Return how an input is scored.

    Parameters
    ----------
    model : it answers
    block : the first of the input
    typed : the columns that a table holds as other than texts
    scored_at : in UTC

    Raises
    ------
    PipelineError : a feature is not there, or a column has the name of an answer
    """
    check_header(block.header, model, block.source)
    return Plan(model, Layout(narrow_contract(model.contract, block.header, typed)), block.header, scored_at)


def describe_answers(model: SavedModel | ScorerModel) -> pa.Schema:
    """Return the columns that are added to every row."""
    classes = model.manifest.classes or []
    kind = pa.float64()
    if model.contract.is_classification:
        kind = pa.string() if any(isinstance(label, str) for label in classes) else pa.int64()
    return pa.schema(
        {
            "prediction": kind,
            **{f"probability_{label}": pa.float64() for label in classes},
            "model_version": pa.string(),
            "scored_at": pa.timestamp("us", "UTC"),
            "warnings": pa.string(),
        }
    )


def check_header(header: Sequence[str], model: SavedModel | ScorerModel, source: str) -> None:
    """Raise unless all features are there, and no column has the name of an answer."""
    absent = [name for name in model.contract.features if name not in header]
    if absent:
        others = [name for name in header if name not in model.contract.columns] or list(header)
        near = "".join(f' For "{name}":{suggest(name, others)}' for name in absent[:SHOWN])
        raise PipelineError(
            f"{source}: the model needs {join_names(absent)}, and the file does not have it.{near} Mend the header."
        )
    taken = [name for name in describe_answers(model).names if name in header]
    if taken:
        raise PipelineError(
            f"{source}: column {join_names(taken)} has the name of a column that scoring adds. Rename it in the file."
        )


def narrow_contract(contract: Contract, header: Sequence[str], typed: frozenset[str]) -> Contract:
    """Return the contract of the columns that a file has, in its order: only the features can be at fault.

    Parameters
    ----------
    contract : the model's
    header : the columns of the file
    typed : those that a table holds as other than texts: they are not spelled as in a CSV
    """
    columns = {name: _adapt(contract.columns[name], name in typed) for name in header if name in contract.columns}
    return contract.model_copy(update={"columns": {**columns, ROW: Column(kind="integer", role="ignored")}})


def _adapt(column: Column, is_typed: bool) -> Column:
    changes: dict[str, object] = {} if column.role == "feature" else {"role": "ignored"}
    if is_typed:
        changes |= dict.fromkeys(("decimal", "thousands", "currency", "format", "true_values", "false_values"))
    return column.model_copy(update=changes)
