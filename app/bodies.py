"""Reads JSON bodies: our own reader, because each way to fail has its own status and none may repeat the body."""

import json
import math

from fastapi import Request
from starlette.datastructures import Headers

from app.errors import ApiError, ErrorList

MAX_DIGITS = 400  # more digits than any float64 has


async def read_body(request: Request) -> bytes:
    """Return the body of a JSON request.

    Raises
    ------
    ApiError : 413 from the body limit, 415 when it is not said to be JSON, 422 when it is empty
    """
    content = await request.body()
    check_body(content, request.headers)
    return content


def check_body(content: bytes, headers: Headers) -> None:
    """Raise unless there is a body, and it is said to be JSON.

    Raises
    ------
    ApiError : 415 when it is not said to be JSON, 422 when it is empty
    """
    if not content:
        raise refuse("empty_body", "The body is empty", "expects JSON")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ApiError(415, "Send JSON, and say so: Content-Type: application/json")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "Send the body as it is, without Content-Encoding.")


def parse_json(content: bytes) -> object:
    """Return the value of a JSON text in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    NaN, Infinity and 1e400 come out as such, for the field's reader to refuse by name. Of equal names the last counts.

    Raises
    ------
    ApiError : 400
    """
    try:
        text = content.decode(json.detect_encoding(content))
        return json.loads(text.removeprefix("\ufeff"), parse_int=_parse_integer)
    except UnicodeDecodeError as err:
        raise ApiError(400, "The body is not valid UTF-8.") from err
    except json.JSONDecodeError as err:
        raise ApiError(400, f"The body is not valid JSON: line {err.lineno} column {err.colno}.") from err
    except RecursionError as err:
        raise ApiError(400, "The body is nested too deeply. A row is one flat object.") from err


def refuse(rule: str, what: str, expected: str) -> ApiError:
    """Return the 422 for a body that as a whole is not what a route takes."""
    errors = ErrorList()
    errors.add(rule, expected)
    return ApiError(422, f"{what}: {expected}.", errors)


def _parse_integer(digits: str) -> int | float:
    """Return an integer; Python refuses to read very long ones, which are too large for any field anyway."""
    return int(digits) if len(digits) <= MAX_DIGITS else math.inf
