"""Our own contract: all that `Run.predict` says, from one adapter or several, and the adapters themselves."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Path as InPath
from starlette.responses import JSONResponse, Response

from bertlora.serving.bodies import JsonRoute, faults_like
from bertlora.serving.contracts.asked import check_items
from bertlora.serving.contracts.predictions import predicted
from bertlora.serving.contracts.shapes.own import (
    Adapter,
    Adapters,
    Fault,
    LoadRequest,
    ManyAnswer,
    ManyRequest,
    PredictAnswer,
    PredictRequest,
)
from bertlora.serving.fleet import Served
from bertlora.serving.limits import Limits
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.service import Service

Name = Annotated[str, InPath(description="the name of an adapter", examples=["reviews"])]


def fault(why: Why, message: str) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body of an error."""
    return why.value, {"error": message, "reason": why.name.lower()}


def router(service: Service, limits: Limits, runs: Path | None) -> APIRouter:
    """Returns the routes. `runs` is the folder whose runs may be loaded by a call; None allows none."""
    routes = APIRouter(route_class=JsonRoute, tags=["bertlora"], responses=faults_like(Fault))

    async def answers(names: list[str], body: PredictRequest) -> list[dict[str, Any]]:
        items = body.items()
        check_items(items, body.field, limits, adapters=len(names))
        if body.explain and len(items) * len(names) > limits.explained:
            raise RequestError(Why.TOO_LARGE, f"explain: expected at most {limits.explained} texts; send fewer")
        return await predicted(service, names, items, body.options())

    @routes.get("/v1/adapters", response_model=Adapters)
    async def adapters() -> Response:
        """Lists the adapters."""
        names = service.fleet.names
        return JSONResponse({"default": names[0] if names else None, "adapters": names})

    @routes.get("/v1/adapters/{name}", response_model=Adapter)
    async def adapter(name: Name) -> Response:
        """Says what an adapter predicts."""
        return JSONResponse(described(await service.adapter(name)))

    @routes.post("/v1/adapters/{name}/predict", response_model=PredictAnswer)
    async def predict(name: Name, body: PredictRequest) -> Response:
        """Predicts texts or pairs by one adapter."""
        return JSONResponse((await answers([name], body))[0])

    @routes.post("/v1/predict", response_model=ManyAnswer)
    async def predict_many(body: ManyRequest) -> Response:
        """Predicts the same texts or pairs by several adapters."""
        return JSONResponse({"adapters": await answers(body.adapters, body)})

    @routes.put("/v1/adapters/{name}", response_model=Adapter)
    async def load(name: Name, body: LoadRequest) -> Response:
        """Loads a run under a name. One of this name answers until the new one is ready."""
        path = run_below(runs, body.path)
        new = name not in service.fleet
        served = await service.load(name, path)
        return JSONResponse(described(served), 201 if new else 200)

    @routes.delete("/v1/adapters/{name}", status_code=204)
    async def drop(name: Name) -> Response:
        """Forgets an adapter. What was accepted is still answered."""
        check_open(runs)
        service.fleet.drop(name)
        return Response(status_code=204)

    return routes


def described(served: Served) -> dict[str, Any]:
    """Returns what an adapter predicts; see `Adapter`."""
    manifest = served.run.manifest
    said = {"name": served.name, "task": served.task, "labels": served.labels}
    return said | {"pairs": manifest.pairs, "max_length": manifest.max_length}


def check_open(runs: Path | None) -> Path:
    """Returns the folder of runs.

    Raises:
        RequestError: the server has none, or no key.
    """
    if runs is None:
        message = "adapters cannot be changed by a call; the server needs an API key and a folder of runs for that"
        raise RequestError(Why.FORBIDDEN, message)
    return runs


def run_below(runs: Path | None, path: str) -> Path:
    """Returns the folder of a run.

    Raises:
        RequestError: it is not below the folder of runs, also after links are followed.
    """
    folder = check_open(runs).resolve()
    try:
        found = (folder / path).resolve()
        known = folder in found.parents and found.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, or links in a circle
        known = False
    if not known:
        raise RequestError(Why.INVALID, "path: expected a run below the folder of runs of the server")
    return found
