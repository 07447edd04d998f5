"""Our own contract: all that `Run.predict` says, from one adapter or several, and the adapters themselves."""

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Path as InPath
from pydantic import AfterValidator, BaseModel, Field, model_validator
from starlette.responses import JSONResponse, Response

from bertlora.serving.bodies import JsonRoute, Known
from bertlora.serving.contracts.asked import Item, check_items
from bertlora.serving.contracts.predictions import Options, predicted
from bertlora.serving.fleet import Served
from bertlora.serving.limits import Limits
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.service import Service

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, InPath(description="the name of an adapter", examples=["reviews"])]
NewName = Annotated[str, InPath(pattern=NAME, description="letters, digits, dots, dashes and underscores")]


def _abstain(given: str) -> str:
    if given and not re.fullmatch(r"(accuracy|coverage)=[0-9.]{1,20}", given):
        raise ValueError("expected accuracy=A or coverage=C with a share, such as accuracy=0.95")
    return given


class Fault(BaseModel):
    """A request that was refused."""

    error: str = Field(
        description="what, where, and what was expected", examples=["texts[3]: is blank, expected a text"]
    )
    reason: Literal[tuple(why.name.lower() for why in Why)]  # type: ignore[valid-type]  # one list of reasons


class PredictRequest(Known):
    """Texts or pairs, and what to say of them. The options are those of `Run.predict`."""

    texts: list[str] | None = Field(None, description="single texts", examples=[["A joy from start to finish."]])
    pairs: list[tuple[str, str]] | None = Field(None, description="pairs of texts, for an adapter that reads pairs")
    raw: bool = Field(False, description="leave out the calibration")
    abstain: Annotated[str, AfterValidator(_abstain)] = Field("", description="such as accuracy=0.95")
    sets: float | None = Field(None, gt=0, lt=1, description="also give label sets; this share has the right label")
    per_class: bool = Field(False, description="the share of `sets` holds for each class")
    base: bool = Field(False, description="the base with its untrained head answers")
    explain: bool = Field(False, description="also say how much each word counts")
    truncation: Literal["left", "right", "none"] | None = Field(
        None, description="where a long text is cut; none refuses it; null does what the run does"
    )

    @model_validator(mode="after")
    def _either(self) -> "PredictRequest":
        if (self.texts is None) == (self.pairs is None):
            raise ValueError("has both texts and pairs, or neither; expected one of them")
        return self

    def items(self) -> list[Item]:
        """Returns the texts or pairs."""
        return [(text, None) for text in self.texts] if self.texts is not None else list(self.pairs or ())

    @property
    def field(self) -> str:
        """Where the texts are."""
        return "pairs" if self.texts is None else "texts"

    def options(self) -> Options:
        """Returns what to say of the texts."""
        said = {"raw": self.raw, "abstain": self.abstain, "sets": self.sets, "per_class": self.per_class}
        return Options(said, self.base, self.explain, self.truncation)


class ManyRequest(PredictRequest):
    """The same of several adapters."""

    adapters: list[str] = Field(min_length=1, description="names of adapters", examples=[["reviews", "topics"]])

    @model_validator(mode="after")
    def _once(self) -> "ManyRequest":
        if len(set(self.adapters)) < len(self.adapters):
            raise ValueError("adapters: has a name twice; expected each once")
        return self


class Prediction(BaseModel):
    """What an adapter says of a text. The fields depend on its task and on the options."""

    label: str | None = Field(None, description="the most probable class; null if the adapter abstains")
    confidence: float | None = Field(None, description="its probability, 0 to 1")
    probabilities: dict[str, float] | None = Field(None, description="of every label, calibrated unless raw")
    abstained: bool | None = Field(None, description="whether the confidence is too low for a label")
    labels: list[str] | None = Field(None, description="the label set; with several labels those of the text")
    value: float | None = Field(None, description="the number of a regression")
    interval: tuple[float, float] | None = Field(None, description="contains the true number nine times of ten")
    explanation: dict[str, Any] | None = Field(None, description="what each word adds")


class PredictAnswer(BaseModel):
    """One prediction for each text, in order."""

    adapter: str
    predictions: list[Prediction]
    tokens: int = Field(description="tokens that the model read")
    notes: list[str] = Field(description="what a threshold or a set is based on")


class ManyAnswer(BaseModel):
    """The predictions of each adapter, in the order of the request."""

    adapters: list[PredictAnswer]


class Adapter(BaseModel):
    """What an adapter predicts."""

    name: str
    task: Literal["classification", "multilabel", "regression"]
    labels: list[str] = Field(description="the labels, or the name of the number")
    pairs: bool = Field(description="whether it reads pairs of texts")
    max_length: int = Field(description="longest text in tokens")


class Adapters(BaseModel):
    """The names that may be asked for."""

    default: str | None = Field(description="answers where a request names none")
    adapters: list[str]


class LoadRequest(Known):
    """A run to load."""

    path: str = Field(min_length=1, max_length=1024, description="below the folder of runs of the server")


def fault(why: Why, message: str) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body of an error."""
    return why.value, {"error": message, "reason": why.name.lower()}


def router(service: Service, limits: Limits, runs: Path | None) -> APIRouter:
    """Returns the routes. `runs` is the folder whose runs may be loaded by a call; None allows none."""
    routes = APIRouter(route_class=JsonRoute, tags=["bertlora"], responses={"4XX": {"model": Fault}})

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
        return JSONResponse(described(await asyncio.to_thread(service.fleet.get, name)))

    @routes.post("/v1/adapters/{name}/predict", response_model=PredictAnswer)
    async def predict(name: Name, body: PredictRequest) -> Response:
        """Predicts texts or pairs by one adapter."""
        return JSONResponse((await answers([name], body))[0])

    @routes.post("/v1/predict", response_model=ManyAnswer)
    async def predict_many(body: ManyRequest) -> Response:
        """Predicts the same texts or pairs by several adapters."""
        return JSONResponse({"adapters": await answers(body.adapters, body)})

    @routes.put("/v1/adapters/{name}", response_model=Adapter)
    async def load(name: NewName, body: LoadRequest) -> Response:
        """Loads a run under a name. One of this name answers until the new one is ready."""
        path = run_below(runs, body.path)
        new = name not in service.fleet.names
        served = await asyncio.to_thread(service.fleet.load, name, path)
        return JSONResponse(described(served), 201 if new else 200)

    @routes.delete("/v1/adapters/{name}", status_code=204)
    async def drop(name: Name) -> Response:
        """Forgets an adapter. What was accepted is still answered."""
        check_open(runs)
        await asyncio.to_thread(service.fleet.drop, name)
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
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, or links in a circle
        found = folder
    if folder not in found.parents:
        raise RequestError(Why.INVALID, "path: expected a run below the folder of runs of the server")
    return found
