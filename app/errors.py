"""How the API refuses: one form for every error, never longer than 4 kB, never repeating what was sent."""

import http
import logging

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.schemas import ErrorAnswer, FieldError

logger = logging.getLogger(__name__)

MAX_ERRORS = 20
MAX_BYTES = 4096
MAX_NAME = 64  # characters of a column's name in a message
NO_MEMORY = "The server has too little memory for this request now. Send fewer rows at a time."
BUG = "The server failed on this request; its log says why."

CODES = {
    400: "bad_json",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "too_slow",
    413: "too_large",
    415: "wrong_content_type",
    422: "invalid",
    431: "headers_too_large",
    500: "internal_error",
    503: "no_model",
}


class ErrorList:
    """The first errors, and how many there are."""

    def __init__(self) -> None:
        self.items: list[FieldError] = []
        self.total = 0

    def add(self, rule: str, message: str, field: str | None = None, index: int | None = None) -> None:
        """Count an error, and keep it while there is room."""
        self.total += 1
        if len(self.items) < MAX_ERRORS:
            name = None if field is None else clean_name(field)
            self.items.append(FieldError(index=index, field=name, rule=rule, message=message[:200]))

    def to_dicts(self) -> list[dict[str, object]]:
        """Return the errors that were kept as plain values, without what is not there."""
        return [item.model_dump(exclude_none=True) for item in self.items]


class ApiError(Exception):
    """A refusal: status, what is wrong and what to do, the values at fault, and a name that the status leaves open."""

    def __init__(self, status: int, message: str, errors: ErrorList | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or CODES.get(status, "refused")
        self.message = message
        self.errors = errors or ErrorList()


def release_frames(err: BaseException) -> None:
    """Let go of what the functions held that an exception went through: a body, a model.

    Where one comes out of a thread, it holds the frame that waited, and that frame the exception. Both would stay until
    the garbage collector looks at its oldest objects, which it does the more seldom the more a server has loaded.
    """
    err.__traceback__ = None


def clean_name(name: str) -> str:
    """Return a name that is safe to show: short, and without characters that cannot be printed."""
    return "".join(char if char.isprintable() else "?" for char in name[:MAX_NAME])


def build_response(err: ApiError, model_version: str | None, headers: dict[str, str] | None = None) -> Response:
    """Return the response for a refusal; the last errors are left out when they do not fit."""
    items = err.errors.to_dicts()
    while True:
        answer = ErrorAnswer(
            code=err.code,
            message=err.message,
            errors_total=err.errors.total,
            model_version=model_version,
        )
        response = JSONResponse(answer.model_dump(mode="json") | {"errors": items}, err.status, headers)
        if len(response.body) <= MAX_BYTES or not items:
            return response
        items.pop()


def build_refusal(err: ApiError, model_version: str | None) -> Response:
    """Return the response for a refusal of our own, with the headers that its status asks for."""
    return build_response(err, model_version, {"WWW-Authenticate": "APIKey"} if err.status == 401 else None)


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of the app the one form."""

    async def answer_api_error(request: Request, err: Exception) -> Response:
        assert isinstance(err, ApiError)
        return build_refusal(err, request.app.state.host.version)

    async def answer_http_error(request: Request, err: Exception) -> Response:
        assert isinstance(err, HTTPException)
        headers = dict(err.headers) if err.headers else None
        refusal = ApiError(err.status_code, describe_status(err.status_code))
        return build_response(refusal, request.app.state.host.version, headers)

    async def answer_disconnect(request: Request, err: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    async def answer_bug(request: Request, err: Exception) -> Response:
        return build_response(ApiError(500, BUG), request.app.state.host.version)

    app.add_exception_handler(ApiError, answer_api_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(ClientDisconnect, answer_disconnect)
    app.add_exception_handler(Exception, answer_bug)


def describe_status(status: int) -> str:
    """Return a sentence for a refusal of the framework."""
    sentences = {
        404: "There is nothing at this path.",
        405: "This path does not take this method; the Allow header names those it takes.",
    }
    return sentences.get(status, http.HTTPStatus(status).phrase)
