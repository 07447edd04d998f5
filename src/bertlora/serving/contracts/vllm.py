"""The contract of vLLM: `POST /classify`, also at `/v1/classify`, and `GET /v1/models`. A model is an adapter.

`vllm/entrypoints/pooling/classify/protocol.py` of that project has the shapes. As there, fields that are not known are
ignored.
"""

import time
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bertlora.serving.bodies import JsonRoute
from bertlora.serving.contracts.asked import Item, check_items, default_adapter, questions_of, scores_of
from bertlora.serving.limits import Limits
from bertlora.serving.refused import Why
from bertlora.serving.service import Answer, Service

PATHS = ("/classify", "/v1/classify", "/v1/models")
# Why → its status and type, where they differ from ours.
STATUSES = {Why.INVALID: 400, Why.EMPTY: 400, Why.BACKEND: 500}
TYPES = {
    Why.NO_KEY: "AuthenticationError",
    Why.FORBIDDEN: "PermissionDeniedError",
    Why.UNKNOWN: "NotFoundError",
    Why.OVERLOADED: "RateLimitError",
    Why.BACKEND: "InternalServerError",
    Why.NOT_READY: "ServiceUnavailableError",
}
_STRING = {"type": "string"}
INPUT_SCHEMA = {
    "description": "a text or several",
    "oneOf": [_STRING, {"type": "array", "items": _STRING}],
    "examples": ["A joy from start to finish.", ["first", "second"]],
}


def _input(given: Any) -> Any:
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise ValueError("expected a string, or a list of strings")
    for i, text in enumerate(given):
        if not isinstance(text, str):
            raise ValueError(f"item {i} is not a string; expected texts, and no token ids")
    return given


class ClassifyRequest(BaseModel):
    """Texts for an adapter."""

    model: str | None = Field(None, description="the adapter; without it the first one answers", examples=["reviews"])
    input: Annotated[Any, AfterValidator(_input), WithJsonSchema(INPUT_SCHEMA)]
    truncate_prompt_tokens: Literal[-1] | None = Field(None, description="a long text is cut as in the run")
    use_activation: bool | None = Field(None, description="false gives logits")
    activation: bool | None = Field(None, description="an older name of use_activation")
    softmax: bool | None = Field(None, description="an older name of use_activation")

    @property
    def raw(self) -> bool:
        """Whether logits are wanted."""
        given = (self.use_activation, self.activation, self.softmax)
        return next((one is False for one in given if one is not None), False)

    def items(self) -> list[Item]:
        """Returns the texts."""
        return [(text, None) for text in ([self.input] if isinstance(self.input, str) else self.input)]


class Classified(BaseModel):
    """The answer to a text."""

    index: int
    label: str | None = Field(description="the label with the highest score; the name of the number of a regression")
    probs: list[float] = Field(description="probabilities in the order of the labels; the number of a regression")
    num_classes: int


class Usage(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = 0
    prompt_tokens_details: None = None


class ClassifyAnswer(BaseModel):
    """The answers to all texts, in order."""

    id: str = Field(description="classify- and the id of the request")
    object: Literal["list"]
    created: int = Field(description="seconds since 1970")
    model: str
    data: list[Classified]
    usage: Usage


class Model(BaseModel):
    """An adapter."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["bertlora"]
    root: str
    parent: None


class Models(BaseModel):
    """The adapters."""

    object: Literal["list"]
    data: list[Model]


class FaultInfo(BaseModel):
    """Why a request was refused."""

    message: str = Field(examples=["input[3]: is blank, expected a text"])
    type: str = Field(examples=["BadRequestError"])
    param: str | None = None
    code: int = Field(examples=[400])


class VllmFault(BaseModel):
    """A request that was refused."""

    error: FaultInfo


def fault(why: Why, message: str) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body of an error."""
    status = STATUSES.get(why, why.value)
    said = {"message": message, "type": TYPES.get(why, "BadRequestError"), "param": None, "code": status}
    return status, {"error": said}


def router(service: Service, limits: Limits) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(route_class=JsonRoute, tags=["vLLM"], responses={"4XX": {"model": VllmFault}})
    started = int(time.time())

    @routes.post("/classify", response_model=ClassifyAnswer)
    @routes.post("/v1/classify", response_model=ClassifyAnswer)
    async def classify(request: Request, body: ClassifyRequest) -> Response:
        """Gives the most probable label of each text, and all probabilities."""
        items = body.items()
        check_items(items, "input", limits, one=isinstance(body.input, str))
        name = body.model or default_adapter(service)
        answers = await service.answer(questions_of(name, items))
        tokens = sum(answer.tokens for answer in answers)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        said = {"id": f"classify-{request.state.request_id}", "object": "list", "created": int(time.time())}
        data = [_classified(i, answer, body.raw) for i, answer in enumerate(answers)]
        nothing = {"completion_tokens": 0, "prompt_tokens_details": None}
        return JSONResponse(said | {"model": name, "data": data, "usage": usage | nothing})

    @routes.get("/v1/models", response_model=Models)
    async def models() -> Response:
        """Lists the adapters."""
        same = {"object": "model", "created": started, "owned_by": "bertlora", "parent": None}
        return JSONResponse(
            {"object": "list", "data": [{"id": name, "root": name} | same for name in service.fleet.names]}
        )

    return routes


def _classified(index: int, answer: Answer, raw: bool) -> dict[str, Any]:
    scores = scores_of(answer, raw)
    label = answer.served.labels[int(np.argmax(scores))]
    return {"index": index, "label": label, "probs": scores, "num_classes": len(scores)}
