"""Bodies of requests: strict JSON, and models that name the fields they know."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from bertlora.errors import suggestion


class JsonRequest(Request):
    """A request whose body is read by a strict parser.

    Python's own takes NaN and halves of surrogate pairs, and gives up on deep nesting in a less orderly way.
    """

    async def json(self) -> Any:
        """Returns the value of the body.

        Raises:
            JSONDecodeError: it is not JSON. The message has none of it.
        """
        return self.parsed(await self.body())

    def parsed(self, content: bytes) -> Any:
        """Returns the value of JSON; see `json`."""
        try:
            return from_json(content, allow_inf_nan=False, cache_strings="keys")
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class JsonRoute(APIRoute):
    """A route with a JSON body.

    It insists on the content type: a page of another site can send a form or plain text unasked, but no JSON.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns the handler of FastAPI with a stricter request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(request if self.body_field is None else self.opened(request))

        return strict

    def opened(self, request: Request) -> JsonRequest:
        """Returns a request with a body, checked."""
        check_encoding(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise HTTPException(415, "content-type: expected application/json")
        return JsonRequest(request.scope, request.receive)


def check_encoding(request: Request) -> None:
    """Raises HTTPException if a body is compressed: a small one could become a very large one."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "content-encoding: compressed bodies are not taken; send it as it is")


def shown(example: dict[str, Any]) -> ConfigDict:
    """Returns the setting of a model that puts an example into /openapi.json."""
    return ConfigDict(json_schema_extra={"examples": [example]})


def faults_like(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Returns what /openapi.json says of the errors of a route."""
    return {status: {"model": model} for status in ("4XX", "5XX")}


class Known(BaseModel):
    """A body of known fields only, so that a typing error in an option is found."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if isinstance(given, dict):
            fields = list(cls.model_fields)
            for name in given:
                if name not in fields:
                    near = suggestion(name, fields)
                    raise ValueError(f"has an unknown field; expected {', '.join(fields)}{near}")
        return given
