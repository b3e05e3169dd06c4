"""The JSON schema of one feature: what a client may send, and what the answer will warn about."""

from collections.abc import Callable

from app.rows.values import MAX_INTEGER, list_known, list_words
from data_ingestion.schema import ISO, MAX_NUMBER, Column

MAX_ENUM = 100  # longer lists of categories are described, not enumerated


def describe_column(column: Column) -> dict[str, object]:
    """Return the JSON schema of a feature; what is answered with a warning is described rather than forbidden."""
    schema = _DESCRIBERS[column.kind](column)
    if column.nullable:
        schema["type"] = [schema["type"], "null"] if isinstance(schema["type"], str) else [*schema["type"], "null"]  # type: ignore[misc]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]  # type: ignore[misc]
    if column.example is not None:
        schema["examples"] = [column.example]
    return schema


def _describe_number(column: Column) -> dict[str, object]:
    whole = column.kind == "integer"
    limit = MAX_INTEGER if whole else MAX_NUMBER
    refuses = column.out_of_range == "refuse"
    low, high = (bound if refuses and bound is not None else None for bound in (column.min, column.max))
    schema: dict[str, object] = {
        "type": "integer" if whole else "number",
        "minimum": -limit if low is None else low,
        "maximum": limit if high is None else high,
    }
    if column.min is not None and column.max is not None and not refuses:
        schema["description"] = f"{column.min} to {column.max} in training; beyond is answered with a warning"
    return schema


def _describe_text(column: Column) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    known = column.categories
    if known is None:
        return schema
    if column.unseen == "refuse" and len(known) <= MAX_ENUM:
        return schema | {"enum": list(known)}
    tail = "others are refused" if column.unseen == "refuse" else "another is answered with a warning"
    return schema | {"description": f"{list_known(column)}; {tail}"}


def _describe_boolean(column: Column) -> dict[str, object]:
    true, false = list_words(column)
    return {"type": ["boolean", "string"], "description": f"true or false; also {', '.join(true + false)}"}


def _describe_datetime(column: Column) -> dict[str, object]:
    shape = "ISO 8601" if column.format in (None, ISO) else f"ISO 8601, or {column.format}"
    span = f"; {column.min} to {column.max} in training" if column.min is not None and column.max is not None else ""
    return {"type": "string", "description": f"{shape}, UTC unless it says otherwise{span}"}


_DESCRIBERS: dict[str, Callable[[Column], dict[str, object]]] = {
    "number": _describe_number,
    "integer": _describe_number,
    "boolean": _describe_boolean,
    "category": _describe_text,
    "datetime": _describe_datetime,
    "text": _describe_text,
}
