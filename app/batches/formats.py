"""The forms of a batch: what a body is, by its Content-Type, and in what form it is answered, by Accept."""

from importlib.util import find_spec
from typing import Literal, NamedTuple
from urllib.parse import parse_qs

from starlette.types import Scope

from app.errors import ApiError
from app.rows.bodies import refuse

Format = Literal["json", "ndjson", "csv", "parquet", "arrow"]

MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
NEED_ARROW: frozenset[Format] = frozenset({"parquet", "arrow"})
TABLES: frozenset[Format] = frozenset({"csv", "parquet", "arrow"})
ALSO: dict[str, Format] = {
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/x-jsonlines": "ndjson",
    "application/csv": "csv",
    "application/x-parquet": "parquet",
}
_KNOWN: dict[str, Format] = {media_type: format for format, media_type in MEDIA_TYPES.items()} | ALSO


def list_forms() -> dict[Format, str]:
    """Return the forms that this server takes and gives, with their media types: the image has no PyArrow."""
    has_arrow = find_spec("pyarrow") is not None
    return {form: media_type for form, media_type in MEDIA_TYPES.items() if has_arrow or form not in NEED_ARROW}


class Forms(NamedTuple):
    """What a body is, what the answer is to be, and whether it keeps the columns of the body in front."""

    body: Format
    answer: Format
    keep: bool = False


BOTH_JSON = Forms("json", "json")


def choose_forms(scope: Scope, content_type: bytes) -> Forms:
    """Return the forms of a request.

    Parameters
    ----------
    scope : of ASGI
    content_type : the header

    Raises
    ------
    ApiError : 415 for an unknown body, 406 for an unknown answer, 422 for a wrong `keep`
    """
    body = find_format(content_type)
    accepts = [value for name, value in scope["headers"] if name == b"accept"]
    answer = choose_format(b",".join(accepts), body)
    return Forms(body, answer, read_keep(scope["query_string"], body, answer))


def find_format(content_type: bytes) -> Format:
    """Return the form of a body.

    Raises
    ------
    ApiError : 415 when it is none of ours
    """
    media_type = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    if media_type.startswith("application/") and media_type.endswith("+json"):
        return "json"
    if media_type not in _KNOWN:
        raise ApiError(415, f"Send one of these, and say which by Content-Type: {', '.join(list_forms().values())}.")
    return _KNOWN[media_type]


def choose_format(accept: bytes, body: Format) -> Format:
    """Return the form of an answer: what is accepted most, the body's own where that is as good as any.

    Parameters
    ----------
    accept : the header, see RFC 9110, 12.5.1; empty accepts all
    body : the form of the body

    Raises
    ------
    ApiError : 406 when none of ours is accepted
    """
    wishes = [_read_wish(part) for part in accept.decode("latin-1").lower().split(",") if part.strip()]
    if not wishes:
        return body
    weights = {format: _weigh(format, wishes) for format in dict.fromkeys([body, *list_forms()])}
    best = max(weights, key=lambda format: weights[format])
    if not weights[best]:
        raise ApiError(406, f"Accept one of these: {', '.join(list_forms().values())}.")
    return best


def _read_wish(part: str) -> tuple[str, float]:
    """Return a media type of Accept with its weight."""
    media_type, *parameters = (word.strip() for word in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return media_type, min(max(float(value), 0.0), 1.0)
            except ValueError:
                return media_type, 0.0
    return media_type, 1.0


def _weigh(format: Format, wishes: list[tuple[str, float]]) -> float:
    """Return how much a form is wished for: the most specific wish that fits it decides."""
    names = [name for name, known in _KNOWN.items() if known == format]
    for fitting in (names, [f"{name.partition('/')[0]}/*" for name in names[:1]], ["*/*"]):
        weights = [weight for media_type, weight in wishes if media_type in fitting]
        if weights:
            return max(weights)
    return 0.0


def read_keep(query: bytes, body: Format, answer: Format) -> bool:
    """Return whether the columns of the body are wanted in front of the answers, by the query `keep=true`.

    Raises
    ------
    ApiError : 422 when it is neither true nor false, or there are no columns to keep
    """
    words = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("keep", ["false"])
    if words[-1] not in ("true", "false"):
        raise refuse("boolean_type", "The parameter keep is not as expected", "expects true or false")
    if words[-1] == "true" and not {body, answer} <= TABLES:
        raise refuse("keep", "There are no columns to keep", "expects keep=true with tables alone: CSV, Parquet, Arrow")
    return words[-1] == "true"
