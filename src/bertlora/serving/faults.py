"""From what went wrong to an answer: each contract has its own shape of errors, and the path says which one.

A message says what, where, and what was expected. It never repeats a text. Of what a client sent, it repeats at
most names, such as an adapter's, paths of runs, and numbers.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from bertlora.errors import BertloraError
from bertlora.serving.record import note_error
from bertlora.serving.refused import RequestError, Why

# Why and message → status and body.
Shape = Callable[[Why, str], tuple[int, dict[str, Any]]]


class Faults:
    """Answers errors in the shape of the contract that a path belongs to.

    Args:
        shapes: path → shape; a path has those below it.
        other: the shape for all other paths.
    """

    def __init__(self, shapes: Mapping[str, Shape], other: Shape) -> None:
        self._shapes, self._other = shapes, other

    def answer(self, path: str, error: Exception) -> JSONResponse:
        """Returns the answer to an error."""
        refused, headers = refusal(error), {}
        if refused.why in (Why.BACKEND, Why.OVERLOADED, Why.NOT_READY):
            note_error(str(refused))
        status, body = self._shape(path)(refused.why, str(refused))
        if isinstance(error, HTTPException):  # of the router: it knows the status best
            status, headers = error.status_code, dict(error.headers or {})
        if refused.retry_after_s is not None:
            headers["retry-after"] = str(max(1, math.ceil(refused.retry_after_s)))
        if refused.why is Why.NO_KEY:
            headers["www-authenticate"] = "Bearer"
        if refused.why is Why.NOT_READY:  # the client's next connection may find another server
            headers["connection"] = "close"
        return JSONResponse(body, status, headers)

    async def __call__(self, request: Request, error: Exception) -> JSONResponse:
        """Is an exception handler of FastAPI."""
        return self.answer(request.scope["path"], error)  # not its URL: a query may have bytes that are no text

    def _shape(self, path: str) -> Shape:
        return next(
            (shape for start, shape in self._shapes.items() if path == start or path.startswith(start + "/")),
            self._other,
        )


def refusal(error: Exception) -> RequestError:
    """Returns an exception as a refused request."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, RequestValidationError):
        return RequestError(Why.INVALID, _invalid(list(error.errors())))
    if isinstance(error, HTTPException):
        return _by_status(error)
    if isinstance(error, BertloraError):  # an option that does not fit the adapter
        return RequestError(Why.INVALID, str(error))
    return RequestError(Why.BACKEND, "the server failed; its log has the cause, under the x-request-id of this answer")


def _by_status(error: HTTPException) -> RequestError:
    """Returns an error of the router: no such path or method, or a wrong type of content."""
    if error.status_code == 404:
        return RequestError(Why.UNKNOWN, "no such path; /openapi.json lists all paths")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return RequestError(Why.INVALID, f"this path does not take the method; expected {allowed}")
    return RequestError(Why.INVALID, str(error.detail))


def _invalid(errors: list[Mapping[str, Any]]) -> str:
    """Returns the first of the errors that pydantic found."""
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return _said(errors[0]) + more


def _said(error: Mapping[str, Any]) -> str:
    place = [part for part in error["loc"] if part != "body"]
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']}"
    where, message = _where(place), str(error["msg"])
    if error["type"] == "missing":
        return f"{where}: is missing" if place else "the body is empty; expected a JSON object"
    if error["type"] in ("value_error", "assertion_error"):
        return f"{where}: {message.partition(', ')[2]}"
    if error["type"] in ("model_attributes_type", "model_type", "dict_type"):
        return f"{where}: got {kind(error['input'])}, expected an object"
    expected = message.removeprefix("Input should be ").replace("a valid ", "a ")
    if not message.startswith("Input should be "):  # such as: String should have at most 64 characters
        return f"{where}: {message[:1].lower()}{message[1:]}"
    return f"{where}: got {kind(error['input'])}, expected {expected}"


def _where(place: list[Any]) -> str:
    """Returns a place in a body, such as `pairs[3][1]`."""
    if not place:
        return "the body"
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def kind(value: Any) -> str:
    """Returns what a value of JSON is, without the value."""
    names = {type(None): "null", bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
