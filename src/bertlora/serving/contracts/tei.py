"""The contract of text-embeddings-inference: `POST /predict`, `/info` and `/health`.

`docs/openapi.json` of that project has the shapes. Its aliases at `/` are left out: the playground is there. Clients of
Hugging Face's inference API post to the same path; they send `parameters`, and get a list for every text.
"""

import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from bertlora.serving.bodies import JsonRoute, faults_like
from bertlora.serving.contracts.asked import Item, check_items, default_adapter, questions_of, scores_of
from bertlora.serving.contracts.shapes.tei import Health, Info, Parameters, Score, TeiFault, TeiRequest
from bertlora.serving.fleet import Served
from bertlora.serving.limits import Limits
from bertlora.serving.questions import Answer
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.service import TOKENIZING_THREADS, Service
from bertlora.task import CLASSIFICATION, MULTILABEL, REGRESSION

PATHS = ("/predict", "/info", "/health")
# Its servers write the types like this; some of its examples have small letters.
TYPES = {Why.EMPTY: "Empty", Why.BACKEND: "Backend", Why.OVERLOADED: "Overloaded", Why.NOT_READY: "Unhealthy"}
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
FUNCTIONS = {CLASSIFICATION: "softmax", MULTILABEL: "sigmoid", REGRESSION: "none"}

NAME = Query(None, description="the adapter; without it the first one answers")


def fault(why: Why, message: str) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body of an error."""
    return why.value, {"error": message, "error_type": TYPES.get(why, "Validation")}


def router(service: Service, limits: Limits) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(
        route_class=JsonRoute,
        tags=["text-embeddings-inference"],
        responses=faults_like(TeiFault),
    )

    @routes.post("/predict", response_model=list[Score] | list[list[Score]])
    async def predict(body: TeiRequest, adapter: str | None = NAME) -> Response:
        """Gives the score of every label, the highest first; for a batch a list of these."""
        start = time.perf_counter()
        items, batch = body.items()
        check_items(items, "inputs", limits, one=not batch)
        name = adapter or default_adapter(service)
        answers = await service.answer(questions_of(name, items, body.truncation))
        ranked = _ranked(answers, body)
        content = ranked if batch or body.parameters is not None else ranked[0]
        return JSONResponse(content, headers=_headers(items, answers, time.perf_counter() - start))

    @routes.get("/info", response_model=Info)
    async def info(adapter: str | None = NAME) -> Response:
        """Says what an adapter predicts, and the limits."""
        name = adapter or default_adapter(service)
        return JSONResponse(_info(await service.adapter(name), limits))

    @routes.get("/health", response_model=Health)
    async def health() -> Response:
        """Says whether the server answers questions."""
        if not service.ready:
            raise RequestError(Why.NOT_READY, "unhealthy: no adapter is loaded, or the server ends")
        return JSONResponse({"status": "ok"})

    return routes


def _ranked(answers: Sequence[Answer], body: TeiRequest) -> list[list[dict[str, Any]]]:
    """Returns the labels with their scores for each answer, the highest first."""
    asked = body.parameters or Parameters.model_validate({})
    raw, function = body.raw_scores or asked.function_to_apply == "none", FUNCTIONS[answers[0].served.task]
    if asked.function_to_apply not in (None, "none", function):
        message = f"parameters.function_to_apply: this adapter has {function}; expected {function} or none"
        raise RequestError(Why.INVALID, message)
    found = []
    for answer, scores in zip(answers, scores_of(answers, raw), strict=True):
        best = sorted(zip(scores, answer.served.labels, strict=True), key=lambda one: -one[0])[: asked.top_k]
        found.append([{"score": score, "label": label} for score, label in best])
    return found


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


def _info(served: Served, limits: Limits) -> dict[str, Any]:
    manifest = served.run.manifest
    ids = {label: i for i, label in enumerate(served.labels)}
    classifier = {"id2label": {str(i): label for label, i in ids.items()}, "label2id": ids}
    return {
        "model_id": served.name,
        "model_sha": manifest.base.get("sha256"),
        "model_dtype": DTYPES[served.precision],
        "model_type": {"classifier": classifier},
        "max_concurrent_requests": limits.questions,
        "max_input_length": manifest.max_length,
        "max_batch_tokens": limits.questions * manifest.max_length,
        "max_batch_requests": None,
        "max_client_batch_size": limits.questions,
        "auto_truncate": True,
        "tokenization_workers": TOKENIZING_THREADS,
        "version": version("bertlora"),
        "sha": None,
        "docker_label": None,
    }
