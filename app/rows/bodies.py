"""Reads JSON bodies: our own reader, because each way to fail has its own status and none may repeat the body."""

import json
import math

import msgspec

from app.errors import ApiError, ErrorList

MAX_DIGITS = 400  # more digits than any float64 has


_decoder = msgspec.json.Decoder()


def check_body(content: bytes, kind: bytes, encoding: bytes) -> None:
    """Raise unless there is a body, and it is said to be JSON.

    Parameters
    ----------
    content : the body
    kind, encoding : what the headers Content-Type and Content-Encoding say of it

    Raises
    ------
    ApiError : 415 when it is not said to be JSON, 422 when it is empty
    """
    check_plain(content, encoding)
    if kind != b"application/json":
        kind = kind.partition(b";")[0].strip().lower()
        if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
            raise ApiError(415, "Send JSON, and say so: Content-Type: application/json")


def check_plain(content: bytes, encoding: bytes) -> None:
    """Raise unless there is a body, and it is not packed.

    Parameters
    ----------
    content : the body
    encoding : what the header Content-Encoding says of it

    Raises
    ------
    ApiError : 415 when it is packed, 422 when it is empty
    """
    if not content:
        raise refuse("empty_body", "The body is empty", "expects rows")
    if encoding.lower() != b"identity":
        raise ApiError(415, "Send the body as it is, without Content-Encoding.")


def parse_json(content: bytes) -> object:
    """Return the value of a JSON text in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    NaN, Infinity and 1e400 come out as such, for the field's reader to refuse by name. Of equal names the last counts.
    msgspec takes a quarter of the time of the standard library; what it refuses is read by that, which takes more and
    knows the place of an error.

    Raises
    ------
    ApiError : 400
    """
    try:
        return _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _parse_thoroughly(content)


def _parse_thoroughly(content: bytes) -> object:
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
