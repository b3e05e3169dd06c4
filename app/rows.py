"""From a JSON object to a row the model takes: the request model that the contract generates."""

from functools import partial
from typing import Annotated

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema, create_model

from app.value_schemas import describe_column
from app.values import read_value
from data_ingestion.schema import Column, Contract, find_unexpected
from models.artifact import Row


def build_row_model(contract: Contract) -> type[BaseModel]:
    """Return the request model of a contract: column names are the aliases, whatever characters they hold."""
    fields = {
        f"feature_{number}": _build_field(column, contract.missing_spellings(name), name)
        for number, (name, column) in enumerate(contract.features.items())
    }
    doc = "One row of raw features. When a name is given twice, the last one counts."
    return create_model("Row", __doc__=doc, **fields)  # type: ignore[call-overload, no-any-return]


def describe_row(row_model: type[BaseModel], contract: Contract) -> dict[str, object]:
    """Return the JSON schema of a request row, with an example and with the columns that do not matter."""
    schema = row_model.model_json_schema()
    ignored = {name: {"description": "accepted and not used"} for name in list_ignored(contract)}
    properties = schema["properties"] | ignored
    return schema | {"properties": properties, "additionalProperties": False, "examples": [build_example(contract)]}


def list_ignored(contract: Contract) -> list[str]:
    """Return the columns of the contract that may be sent and do not matter."""
    return [name for name in contract.columns if name not in contract.features]


def build_example(contract: Contract) -> dict[str, object]:
    """Return a request that can be sent as it is: the values of one real row."""
    examples = {name: _find_example(column) for name, column in contract.features.items()}
    return {name: example for name, example in examples.items() if example is not None}


def list_warnings(contract: Contract, row: Row) -> list[str]:
    """Return what the model has not seen in training or has to fill in."""
    found = []
    for name, column in contract.features.items():
        value = row[name]
        unexpected = "missing, imputed" if value is None else find_unexpected(column, value)
        if unexpected is not None:
            found.append(f"{name}: {unexpected}")
    return found


def _build_field(column: Column, missing: list[str], name: str) -> tuple[object, object]:
    """Return a feature's type, with its reader and its JSON schema, and its default."""
    reader = partial(read_value, column, frozenset(missing))
    annotation = Annotated[object, PlainValidator(reader), WithJsonSchema(describe_column(column))]
    return annotation, Field(default=None if column.nullable else ..., alias=name, title=name)


def _find_example(column: Column) -> object:
    """Return the contract's example; a required column that has none takes another value of the contract."""
    if column.example is not None or column.nullable:
        return column.example
    fallbacks: dict[str, object] = {
        "boolean": True,
        "category": (column.categories or ["a"])[0],
        "datetime": column.min or "2024-02-29",
        "text": "a",
    }
    return fallbacks.get(column.kind, column.min or 0)
