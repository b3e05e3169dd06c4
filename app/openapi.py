"""The API's description of itself, /openapi.json: it follows the model that is loaded."""

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.batches.formats import Format, list_forms
from app.errors import CODES
from app.model_host import Served
from app.rows.row_schemas import build_example, describe_row
from app.schemas import ErrorAnswer

ROW = "#/components/schemas/Row"
KEEP = {
    "name": "keep",
    "in": "query",
    "schema": {"type": "boolean", "default": False},
    "description": "of tables: the columns of the body in front of the answers, as they came",
}

_REASONS = {
    400: "the body is not valid JSON",
    401: "no valid API key",
    406: "none of the forms that are accepted is one of ours",
    408: "the request did not come whole in time",
    413: "the body is too large",
    415: "the body is not said to be JSON, or for a batch to be of another form that is taken here",
    422: "the content is not what the contract says",
    431: "the headers are too long",
    503: "no model is loaded; `overloaded`: more is asked than can be answered, try again after Retry-After seconds; "
    "`out_of_memory`: send fewer rows; `stopping`: ask another server",
}


def describe_errors(*statuses: int) -> dict[int | str, dict[str, object]]:
    """Return the description of a route's refusals, all of one form."""
    described: dict[int | str, dict[str, object]] = {
        status: {"model": ErrorAnswer, "description": f"`{CODES[status]}`: {_REASONS[status]}"} for status in statuses
    }
    return described


def describe_body(many: bool) -> dict[str, object]:
    """Return the description of a route's body; the Row it refers to comes from the model that is loaded."""
    if not many:
        return {"requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": ROW}}}}}
    rows = {"schema": {"type": "array", "items": {"$ref": ROW}, "minItems": 1}}
    others = {media_type: describe_form(form) for form, media_type in list_forms().items() if form != "json"}
    return {"requestBody": {"required": True, "content": {"application/json": rows} | others}, "parameters": [KEEP]}


def describe_answers() -> dict[int | str, dict[str, object]]:
    """Return the description of the forms that a batch is answered in, beside JSON."""
    content = {media_type: describe_form(form) for form, media_type in list_forms().items() if form != "json"}
    return {200: {"content": content}}


def describe_form(form: Format) -> dict[str, object]:
    """Return the description of a batch that is not JSON."""
    about = "a row of JSON on each line" if form == "ndjson" else "the features as columns, a row for each"
    kind = {"type": "string"} if form in ("ndjson", "csv") else {"type": "string", "format": "binary"}
    return {"schema": kind | {"description": about}}


def describe_api(app: FastAPI, served: Served | None, max_batch_rows: int) -> dict[str, object]:
    """Return the OpenAPI description.

    Parameters
    ----------
    app : gives the routes
    served : the model whose contract describes the rows; None describes them as any object
    max_batch_rows : the longest batch
    """
    content = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    row: dict[str, object] = {"type": "object", "description": "The raw features; GET /schema lists them."}
    if served is not None:
        row = describe_row(served.contract)
        content["info"]["x-model-version"] = served.version
    content["components"]["schemas"]["Row"] = row
    for path, many in (("/predict", False), ("/predict/batch", True)):
        body = content["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        if many:
            body["schema"]["maxItems"] = max_batch_rows
        if served is not None:
            example = build_example(served.contract)
            body["example"] = [example] if many else example
    return content
