"""The contract of text-embeddings-inference: `POST /predict`, `/info` and `/health`.

`docs/openapi.json` of that project has the shapes. Its aliases at `/` are left out: the playground is there. Clients of
Hugging Face's inference API post to the same path; they send `parameters`, and get a list for every text.
"""

import asyncio
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, WithJsonSchema
from starlette.responses import JSONResponse, Response

from bertlora.serving.bodies import JsonRoute
from bertlora.serving.contracts.asked import Item, check_items, default_adapter, questions_of, scores_of
from bertlora.serving.fleet import Served
from bertlora.serving.limits import Limits
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.service import Answer, Service
from bertlora.task import CLASSIFICATION, MULTILABEL, REGRESSION

PATHS = ("/predict", "/info", "/health")
# Its servers write the types like this; some of its examples have small letters.
TYPES = {Why.EMPTY: "Empty", Why.BACKEND: "Backend", Why.OVERLOADED: "Overloaded", Why.NOT_READY: "Unhealthy"}
FUNCTIONS = {CLASSIFICATION: "softmax", MULTILABEL: "sigmoid", REGRESSION: "none"}

_STRING = {"type": "string"}
_ITEM = {"type": "array", "items": _STRING, "minItems": 1, "maxItems": 2}
INPUTS_SCHEMA = {
    "description": "a text, a pair of texts, or a batch of both",
    "oneOf": [_STRING, _ITEM, {"type": "array", "items": _ITEM}],
    "examples": ["A joy from start to finish.", ["first", "second"], [["first"], ["second"]]],
}
NAME = Query(None, description="the adapter; without it the first one answers")


def _inputs(given: Any) -> Any:
    """Checks `inputs`: a string, a flat list of one or two strings, or a list of such lists."""
    expected = 'expected "text", ["first", "second"] for a pair, or [["a"], ["b"]] for a batch'
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise ValueError(expected)
    for i, row in enumerate(given if given and isinstance(given[0], list) else [given]):
        if not isinstance(row, list) or not all(isinstance(text, str) for text in row):
            raise ValueError(f"item {i}: {expected}")
        if given and not 1 <= len(row) <= 2:
            raise ValueError(f"got a list of {len(row)} strings, which is neither a text nor a pair; {expected}")
    return given


def _lower(given: Any) -> Any:
    return given.lower() if isinstance(given, str) else given


class Parameters(BaseModel):
    """What clients of Hugging Face's inference API send."""

    top_k: int | None = Field(None, ge=1, description="give only the highest scores")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(None, description="none gives logits")


class TeiRequest(BaseModel):
    """A text, a pair, or a batch."""

    inputs: Annotated[Any, AfterValidator(_inputs), WithJsonSchema(INPUTS_SCHEMA)]
    truncate: bool | None = Field(
        None, description="false refuses a text that is too long; null does what the run does"
    )
    truncation_direction: Annotated[Literal["left", "right"] | None, BeforeValidator(_lower)] = Field(
        None, description="where a long text is cut; without it as in the run"
    )
    raw_scores: bool = Field(False, description="give logits")
    parameters: Parameters | None = Field(None, description="of Hugging Face's inference API; gives a list a text")

    def items(self) -> tuple[list[Item], bool]:
        """Returns the texts and pairs, and whether they are a batch."""
        if isinstance(self.inputs, str):
            return [(self.inputs, None)], False
        batch = bool(self.inputs) and isinstance(self.inputs[0], list)
        rows = self.inputs if batch else [self.inputs] * bool(self.inputs)
        return [(row[0], row[1] if len(row) == 2 else None) for row in rows], batch

    @property
    def truncation(self) -> str | None:
        """Where a long text is cut, as `Question` has it."""
        return "none" if self.truncate is False else self.truncation_direction


class Score(BaseModel):
    """A label and its score: a probability, or a logit if raw; of a regression its number."""

    score: float = Field(examples=[0.98])
    label: str = Field(examples=["positive"])


class Classifier(BaseModel):
    """The labels."""

    id2label: dict[str, str] = Field(examples=[{"0": "negative", "1": "positive"}])
    label2id: dict[str, int] = Field(examples=[{"negative": 0, "positive": 1}])


class ModelType(BaseModel):
    """The kind of model."""

    classifier: Classifier


class Info(BaseModel):
    """The adapter and the limits."""

    model_id: str = Field(description="the name of the adapter")
    model_sha: str | None = Field(description="SHA-256 of the weights of its base")
    model_dtype: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int = Field(description="in tokens")
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int = Field(description="texts in a request")
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None


class TeiFault(BaseModel):
    """A request that was refused."""

    error: str = Field(examples=["inputs[3]: is blank, expected a text"])
    error_type: Literal["Validation", "Empty", "Backend", "Overloaded", "Unhealthy"]


class Health(BaseModel):
    """The server answers questions."""

    status: Literal["ok"]


def fault(why: Why, message: str) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body of an error."""
    return why.value, {"error": message, "error_type": TYPES.get(why, "Validation")}


def router(service: Service, limits: Limits) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(
        route_class=JsonRoute, tags=["text-embeddings-inference"], responses={"4XX": {"model": TeiFault}}
    )

    @routes.post("/predict", response_model=list[Score] | list[list[Score]])
    async def predict(body: TeiRequest, adapter: str | None = NAME) -> Response:
        """Gives the score of every label, the highest first; for a batch a list of these."""
        start = time.perf_counter()
        items, batch = body.items()
        check_items(items, "inputs", limits, one=not batch)
        name = adapter or default_adapter(service)
        answers = await service.answer(questions_of(name, items, body.truncation))
        ranked = [_ranked(answer, body) for answer in answers]
        content = ranked if batch or body.parameters is not None else ranked[0]
        return JSONResponse(content, headers=_headers(items, answers, time.perf_counter() - start))

    @routes.get("/info", response_model=Info)
    async def info(adapter: str | None = NAME) -> Response:
        """Says what an adapter predicts, and the limits."""
        name = adapter or default_adapter(service)
        return JSONResponse(_info(await asyncio.to_thread(service.fleet.get, name), service, limits))

    @routes.get("/health", response_model=Health)
    async def health() -> Response:
        """Says whether the server answers questions."""
        if not service.ready:
            raise RequestError(Why.NOT_READY, "unhealthy: no adapter is loaded, or the server ends")
        return JSONResponse({"status": "ok"})

    return routes


def _ranked(answer: Answer, body: TeiRequest) -> list[dict[str, Any]]:
    """Returns the labels with their scores, the highest first."""
    asked = body.parameters or Parameters()
    raw, function = body.raw_scores or asked.function_to_apply == "none", FUNCTIONS[answer.served.task]
    if asked.function_to_apply not in (None, "none", function):
        message = f"parameters.function_to_apply: this adapter has {function}; expected {function} or none"
        raise RequestError(Why.INVALID, message)
    scores = zip(scores_of(answer, raw), answer.served.labels, strict=True)
    ranked = sorted(scores, key=lambda pair: -pair[0])[: asked.top_k]
    return [{"score": score, "label": label} for score, label in ranked]


def _headers(items: Sequence[Item], answers: Sequence[Answer], seconds: float) -> dict[str, str]:
    """Returns what the contract says of the work: whole milliseconds, means over the texts."""

    def mean(times: Sequence[float]) -> str:
        return str(round(1000 * sum(times) / len(times)))

    total = mean([seconds])
    return {
        "x-compute-type": "cpu",
        "x-compute-time": total,
        "x-total-time": total,
        "x-compute-characters": str(sum(len(text) + len(pair or "") for text, pair in items)),
        "x-compute-tokens": str(sum(answer.tokens for answer in answers)),
        "x-tokenization-time": mean([answer.tokenization_s for answer in answers]),
        "x-queue-time": mean([answer.queue_s for answer in answers]),
        "x-inference-time": mean([answer.compute_s for answer in answers]),
    }


def _info(served: Served, service: Service, limits: Limits) -> dict[str, Any]:
    manifest = served.run.manifest
    ids = {label: i for i, label in enumerate(served.labels)}
    classifier = {"id2label": {str(i): label for label, i in ids.items()}, "label2id": ids}
    return {
        "model_id": served.name,
        "model_sha": manifest.base.get("sha256"),
        "model_dtype": "float32",
        "model_type": {"classifier": classifier},
        "max_concurrent_requests": limits.questions,
        "max_input_length": manifest.max_length,
        "max_batch_tokens": limits.questions * manifest.max_length,
        "max_batch_requests": None,
        "max_client_batch_size": limits.questions,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": version("bertlora"),
        "sha": None,
        "docker_label": None,
    }
