"""What the page / shows of the model: the fields of its form, real rows to fill them with, the strongest features."""

from collections.abc import Mapping, Sequence
from datetime import datetime, time
from pathlib import Path

from pydantic import Field

from app.errors import ErrorList, clean_name
from app.model_host import Served
from app.page.strongest import rank_features
from app.rows.row_schemas import build_example
from app.schemas import Answer
from data_ingestion.schema import Column, Task, read_bounds
from models.artifact import Row, Value

JsonValue = float | int | bool | str | None


class PageForm(Answer):
    """All of one model version, so that the page never mixes two. Lists, because JavaScript reorders keys like "1"."""

    model_version: str
    task: Task
    target: dict[str, object] = Field(description="name, and the range seen in training")
    fields: list[dict[str, object]] = Field(description="the contract's words, with name, shown and has_time")
    rows: list[list[JsonValue]] = Field(description="real ones; values in the order of the fields")
    strongest: list[str] = Field(description="names of features, the strongest first")
    max_rows: int = Field(description="the longest batch")
    has_report: bool = Field(description="whether /report shows the evaluation of this model")


def build_form(served: Served, folder: Path, max_rows: int, has_report: bool) -> PageForm:
    """Return what the page shows. It may ask the model some thousand rows: call it in a thread.

    Parameters
    ----------
    served : the model
    folder : the model folder, where evaluation's metrics may lie
    max_rows : the longest batch
    has_report : whether there is a report of this model
    """
    contract = served.contract
    rows = read_real_rows(served)
    target = contract.columns[contract.target]
    return PageForm(
        model_version=served.version,
        task=contract.task,
        target={"name": contract.target, "min": target.min, "max": target.max},
        fields=[describe_field(name, column, rows) for name, column in contract.features.items()],
        rows=[[to_json(row.get(name)) for name in contract.features] for row in rows],
        strongest=rank_features(served, rows, folder),
        max_rows=max_rows,
        has_report=has_report,
    )


def read_real_rows(served: Served) -> list[Row]:
    """Return the golden rows of the model as it takes them; without any, the contract's example."""
    golden: list[Row] = list(served.model.manifest.golden.rows)
    return read_rows(served, golden) or read_rows(served, [build_example(served.contract)])


def read_rows(served: Served, rows: Sequence[Mapping[str, object]]) -> list[Row]:
    """Return those of the rows that a request may hold, as the model takes them."""
    read = [served.reader.read({name: row.get(name) for name in served.contract.features}, ErrorList()) for row in rows]
    return [row_and_warnings[0] for row_and_warnings in read if row_and_warnings is not None]


def describe_field(name: str, column: Column, rows: Sequence[Row]) -> dict[str, object]:
    """Return a feature as the form needs it: `shown` is its name in refusals, `has_time` tells moments from days."""
    moments = [*read_bounds(column), *(row.get(name) for row in rows)] if column.kind == "datetime" else []
    has_time = any(moment.time() != time() for moment in moments if isinstance(moment, datetime))
    return column.to_dict() | {"name": name, "shown": clean_name(name), "has_time": has_time}


def to_json(value: Value) -> JsonValue:
    """Return a value of a row as a request would send it."""
    return value.isoformat() if isinstance(value, datetime) else value
