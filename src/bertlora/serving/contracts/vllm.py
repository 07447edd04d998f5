"""The contract of vLLM: `POST /classify`, also at `/v1/classify`, and `GET /v1/models`. A model is an adapter.

`vllm/entrypoints/pooling/classify/protocol.py` of that project has the shapes. As there, fields that are not known are
ignored.
"""

import time
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bertlora.serving.bodies import JsonRoute, faults_like
from bertlora.serving.contracts.asked import check_items, default_adapter, questions_of, scores_of
from bertlora.serving.contracts.shapes.vllm import ClassifyAnswer, ClassifyRequest, Models, VllmFault
from bertlora.serving.limits import Limits
from bertlora.serving.questions import Answer
from bertlora.serving.refused import Why
from bertlora.serving.service import Service

PATHS = ("/classify", "/v1/classify", "/v1/models")
# Why → its status and type, where they differ from ours.
STATUSES = {Why.INVALID: 400, Why.BACKEND: 500}
TYPES = {
    Why.NO_KEY: "AuthenticationError",
    Why.FORBIDDEN: "PermissionDeniedError",
    Why.UNKNOWN: "NotFoundError",
    Why.OVERLOADED: "RateLimitError",
    Why.BACKEND: "InternalServerError",
    Why.NOT_READY: "ServiceUnavailableError",
}


def fault(why: Why, message: str) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body of an error."""
    status = STATUSES.get(why, why.value)
    said = {"message": message, "type": TYPES.get(why, "BadRequestError"), "param": None, "code": status}
    return status, {"error": said}


def router(service: Service, limits: Limits) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(route_class=JsonRoute, tags=["vLLM"], responses=faults_like(VllmFault))
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
        rows = zip(answers, scores_of(answers, body.raw), strict=True)
        data = [_classified(i, answer, scores) for i, (answer, scores) in enumerate(rows)]
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


def _classified(index: int, answer: Answer, scores: list[float]) -> dict[str, Any]:
    label = answer.served.labels[scores.index(max(scores))]
    return {"index": index, "label": label, "probs": scores, "num_classes": len(scores)}
