"""How the API refuses: one form for every error, never longer than 4 kB, never repeating what was sent."""

import http
import logging

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.schemas import ErrorAnswer, FieldError

logger = logging.getLogger(__name__)

MAX_ERRORS = 20
MAX_BYTES = 4096
MAX_NAME = 64  # characters of a column's name in a message

CODES = {
    400: "bad_json",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "wrong_content_type",
    422: "invalid",
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

    def add_all(self, err: ValidationError, index: int | None = None) -> None:
        """Add what a request model found."""
        count = err.error_count()
        if len(self.items) == MAX_ERRORS:
            self.total += count
            return
        for error in err.errors(include_url=False, include_context=False, include_input=False):
            message = "is required" if error["type"] == "missing" else error["msg"]
            self.add(error["type"], message, str(error["loc"][0]), index)


class ApiError(Exception):
    """A refusal: status, what is wrong and what to do, and the values at fault."""

    def __init__(self, status: int, message: str, errors: ErrorList | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors or ErrorList()


def clean_name(name: str) -> str:
    """Return a name that is safe to show: short, and without characters that cannot be printed."""
    return "".join(char if char.isprintable() else "?" for char in name[:MAX_NAME])


def build_response(request: Request, err: ApiError, headers: dict[str, str] | None = None) -> Response:
    """Return the response for a refusal; the last errors are left out when they do not fit."""
    served = request.app.state.host.served
    items = list(err.errors.items)
    while True:
        answer = ErrorAnswer(
            code=CODES.get(err.status, "refused"),
            message=err.message,
            errors=items,
            errors_total=err.errors.total,
            model_version=served.version if served else None,
        )
        content = answer.model_dump(mode="json")
        content["errors"] = [item.model_dump(exclude_none=True) for item in items]
        response = JSONResponse(content, err.status, headers)
        if len(response.body) <= MAX_BYTES or not items:
            return response
        items.pop()


def build_refusal(request: Request, err: ApiError) -> Response:
    """Return the response for a refusal of our own, with the headers that its status asks for."""
    return build_response(request, err, {"WWW-Authenticate": "APIKey"} if err.status == 401 else None)


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of the app the one form."""

    async def answer_api_error(request: Request, err: Exception) -> Response:
        assert isinstance(err, ApiError)
        return build_refusal(request, err)

    async def answer_http_error(request: Request, err: Exception) -> Response:
        assert isinstance(err, HTTPException)
        headers = dict(err.headers) if err.headers else None
        return build_response(request, ApiError(err.status_code, describe_status(err.status_code)), headers)

    async def answer_disconnect(request: Request, err: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    async def answer_bug(request: Request, err: Exception) -> Response:
        return build_response(request, ApiError(500, "The server failed on this request; its log says why."))

    app.add_exception_handler(ApiError, answer_api_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(ClientDisconnect, answer_disconnect)
    app.add_exception_handler(Exception, answer_bug)


def describe_status(status: int) -> str:
    """Return a sentence for a refusal of the framework."""
    sentences = {
        404: "There is nothing at this path. See /docs.",
        405: "This path does not take this method; the Allow header names those it takes.",
    }
    return sentences.get(status, http.HTTPStatus(status).phrase)
