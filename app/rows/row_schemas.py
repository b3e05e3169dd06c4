"""The rows of a request in words: their JSON schema, and an example, from the contract."""

from app.rows.value_schemas import describe_column
from data_ingestion.schema import Column, Contract


def describe_row(contract: Contract) -> dict[str, object]:
    """Return the JSON schema of a request row, with an example and with the columns that do not matter."""
    properties: dict[str, object] = {
        name: describe_column(column) | {"title": name} | ({"default": None} if column.nullable else {})
        for name, column in contract.features.items()
    }
    return {
        "title": "Row",
        "description": "One row of raw features. When a name is given twice, the last one counts.",
        "type": "object",
        "properties": properties | {name: {"description": "accepted and not used"} for name in list_ignored(contract)},
        "required": [name for name, column in contract.features.items() if not column.nullable],
        "additionalProperties": False,
        "examples": [build_example(contract)],
    }


def list_ignored(contract: Contract) -> list[str]:
    """Return the columns of the contract that may be sent and do not matter."""
    return [name for name in contract.columns if name not in contract.features]


def build_example(contract: Contract) -> dict[str, object]:
    """Return a request that can be sent as it is: the values of one real row."""
    examples = {name: _find_example(column) for name, column in contract.features.items()}
    return {name: example for name, example in examples.items() if example is not None}


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
