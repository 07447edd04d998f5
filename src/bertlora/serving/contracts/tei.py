"""The contract of text-embeddings-inference: `POST /predict`, `/info` and `/health`.

`docs/openapi.json` of that project has the shapes. Its aliases at `/` are left out: the playground is there.
"""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from bertlora.serving.bodies import JsonRoute
from bertlora.serving.limits import Limits
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.service import Service

PATHS = ("/predict", "/info", "/health")
# Its servers write the types like this; some of its examples have small letters.
TYPES = {Why.EMPTY: "Empty", Why.BACKEND: "Backend", Why.OVERLOADED: "Overloaded", Why.NOT_READY: "Unhealthy"}


class TeiFault(BaseModel):
    """A request that was refused."""

    error: str
    error_type: str


class Health(BaseModel):
    """The server answers questions."""

    status: str = "ok"


def fault(why: Why, message: str) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body of an error."""
    return why.value, {"error": message, "error_type": TYPES.get(why, "Validation")}


def router(service: Service, limits: Limits) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(
        route_class=JsonRoute, tags=["text-embeddings-inference"], responses={"4XX": {"model": TeiFault}}
    )

    @routes.get("/health", response_model=Health)
    async def health() -> Response:
        """Says whether the server answers questions."""
        if not service.ready:
            raise RequestError(Why.NOT_READY, "unhealthy: no adapter is loaded, or the server ends")
        return JSONResponse({"status": "ok"})

    return routes
