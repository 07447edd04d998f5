"""The Open Inference Protocol, version 2, which KServe and Triton speak, with its binary extension.

A model is an adapter. The inputs are BYTES tensors, `text` and for pairs `text_pair`.
`specification/protocol/inference_rest.md` of kserve/open-inference-protocol has the shapes.
"""

import json
from importlib.metadata import version
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bertlora.serving.bodies import JsonRequest, JsonRoute, check_encoding, faults_like
from bertlora.serving.contracts.asked import Item, by_version, check_items, logits_of, questions_of
from bertlora.serving.contracts.shapes.open_inference import (
    InferAnswer,
    InferFault,
    InferRequest,
    Live,
    ModelFacts,
    ModelReady,
    Ready,
    ServerFacts,
)
from bertlora.serving.contracts.tensors import Column, Tail, check_shape, texts_of_bytes, texts_of_json
from bertlora.serving.fleet import Served
from bertlora.serving.limits import Limits
from bertlora.serving.questions import Answer
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.service import Service
from bertlora.task import MULTILABEL, REGRESSION

PATHS = ("/v2",)
STATUSES = {Why.INVALID: 400, Why.BACKEND: 500}
LENGTH = "inference-header-content-length"
TEXT, PAIR = "text", "text_pair"


def fault(why: Why, message: str) -> tuple[int, dict[str, Any]]:
    """Returns the status and the body of an error."""
    return STATUSES.get(why, why.value), {"error": message}


class _InferRequest(JsonRequest):
    """A request whose JSON may have the bytes of tensors behind it."""

    async def json(self) -> Any:
        """Returns the value of the JSON."""
        return self.parsed((await self.body())[: self.json_bytes])

    @property
    def json_bytes(self) -> int | None:
        """The length of the JSON; None if it is the whole body."""
        given = self.headers.get(LENGTH)
        if given is not None and not given.isdecimal():
            raise RequestError(Why.INVALID, f"{LENGTH}: expected a number of bytes")
        return None if given is None else int(given)

    async def tail(self) -> Tail:
        """Returns what is behind the JSON."""
        return Tail(memoryview(await self.body())[self.json_bytes :] if LENGTH in self.headers else memoryview(b""))


class _InferRoute(JsonRoute):
    """Clients of the protocol send no content type, or any."""

    def opened(self, request: Request) -> JsonRequest:
        """Returns the request, checked."""
        check_encoding(request)
        found = _InferRequest({**request.scope, "headers": list(request.scope["headers"])}, request.receive)
        MutableHeaders(scope=found.scope)["content-type"] = "application/json"
        _ = found.json_bytes
        return found


def router(service: Service, limits: Limits) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(
        route_class=_InferRoute,
        tags=["Open Inference Protocol"],
        responses=faults_like(InferFault),
    )

    @routes.get("/v2", response_model=ServerFacts)
    async def server() -> Response:
        """Names the server."""
        return JSONResponse({"name": "bertlora", "version": version("bertlora"), "extensions": ["binary_tensor_data"]})

    @routes.get("/v2/health/live", response_model=Live)
    async def live() -> Response:
        """Says that the server hears requests."""
        return JSONResponse({"live": True})

    @routes.get("/v2/health/ready", response_model=Ready, responses={503: {"model": Ready}})
    async def ready() -> Response:
        """Says whether the server answers questions."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @routes.get("/v2/models/{name}", response_model=ModelFacts)
    async def model(name: str) -> Response:
        """Names the tensors of an adapter."""
        return JSONResponse(_facts(await service.adapter(name)))

    @routes.get("/v2/models/{name}/ready", response_model=ModelReady)
    async def model_ready(name: str) -> Response:
        """Says whether an adapter answers questions."""
        service.fleet.check(name)
        return JSONResponse({"name": name, "ready": service.ready}, 200 if service.ready else 503)

    @routes.post("/v2/models/{name}/infer", response_model=InferAnswer)
    async def infer(name: str, request: Request, body: InferRequest) -> Response:
        """Predicts texts, or pairs of texts."""
        assert isinstance(request, _InferRequest)
        items = _items(body, await request.tail())
        check_items(items, f"inputs '{TEXT}'", limits)
        columns = _columns(await service.answer(questions_of(name, items)))
        return _answer(name, body, columns)

    return routes


def _items(body: InferRequest, tail: Tail) -> list[Item]:
    """Returns the texts, or pairs of texts, of the tensors."""
    names = [tensor.name for tensor in body.inputs]
    if names not in ([TEXT], [TEXT, PAIR], [PAIR, TEXT]):
        raise RequestError(Why.INVALID, f"inputs: expected a tensor '{TEXT}', and for pairs also one '{PAIR}'")
    sizes = {tensor.name: tensor.parameters.get("binary_data_size") for tensor in body.inputs}
    if not all(size is None or (type(size) is int and size >= 0) for size in sizes.values()):
        raise RequestError(Why.INVALID, "binary_data_size: expected a number of bytes")
    binary = [name for name in names if sizes[name] is not None]
    contents = dict(zip(binary, tail.cut([sizes[name] or 0 for name in binary]), strict=True))
    columns = {}
    for tensor in body.inputs:
        name = tensor.name
        texts = texts_of_bytes(name, contents[name]) if name in contents else texts_of_json(name, tensor.data)
        check_shape(name, tensor.shape, len(texts))
        columns[name] = texts
    texts, pairs = columns[TEXT], columns.get(PAIR)
    if pairs is None:
        return [(text, None) for text in texts]
    if len(pairs) != len(texts):
        message = f"inputs: got {len(texts):,} texts and {len(pairs):,} second texts; expected as many of each"
        raise RequestError(Why.INVALID, message)
    return list(zip(texts, pairs, strict=True))


def _facts(served: Served) -> dict[str, Any]:
    """Returns the tensors of an adapter."""
    texts = (TEXT, PAIR) if served.run.manifest.pairs else (TEXT,)
    labels = len(served.labels)
    outputs: dict[str, tuple[str, list[int]]]
    outputs = {"label": ("BYTES", [-1]), "confidence": ("FP64", [-1]), "probabilities": ("FP64", [-1, labels])}
    if served.task == MULTILABEL:
        outputs = {"chosen": ("BOOL", [-1, labels]), "probabilities": ("FP64", [-1, labels])}
    outputs |= {"labels": ("BYTES", [labels])}
    if served.task == REGRESSION:
        outputs = {"value": ("FP64", [-1])}
    return {
        "name": served.name,
        "platform": "bertlora",
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in texts],
        "outputs": [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in outputs.items()],
    }


def _columns(answers: list[Answer]) -> list[Column]:
    """Returns all tensors of the answers; see `_facts`. The columns of `probabilities` are those of `labels`."""
    served = answers[-1].served
    if any(answer.served.labels != served.labels or answer.served.task != served.task for answer in answers):
        raise RequestError(Why.NOT_READY, "the adapter was replaced by one with other labels; try again", 1.0)
    found: dict[int, dict[str, Any]] = {}
    for version_of_it, places in by_version(answers):
        said = version_of_it.lines(logits_of([answers[i] for i in places]))
        found.update(zip(places, said, strict=True))
    lines = [found[i] for i in range(len(answers))]
    if served.task == REGRESSION:
        return [Column("value", np.array([line["value"] for line in lines], np.float64))]
    probabilities = np.array([list(line["probabilities"].values()) for line in lines], np.float64)
    shared = [Column("probabilities", probabilities), Column("labels", np.array(served.labels, object))]
    if served.task == MULTILABEL:
        chosen = np.array([[label in line["labels"] for label in served.labels] for line in lines], bool)
        return [Column("chosen", chosen), *shared]
    label = Column("label", np.array([line["label"] for line in lines], object))
    return [label, Column("confidence", np.array([line["confidence"] for line in lines], np.float64)), *shared]


def _answer(name: str, body: InferRequest, columns: list[Column]) -> Response:
    """Returns the tensors that are wanted, each in JSON or in bytes."""
    known = {column.name: column for column in columns}
    default = body.parameters.get("binary_data_output") is True
    wanted = {one.name: one.parameters.get("binary_data", default) is True for one in body.outputs or ()}
    wanted = wanted or dict.fromkeys(known, default)
    if not wanted.keys() <= known.keys():
        raise RequestError(Why.INVALID, f"outputs: has an unknown name; expected some of {', '.join(known)}")
    tail = {one: known[one].to_bytes() for one, binary in wanted.items() if binary}
    outputs = [
        known[one].facts | {"parameters": {"binary_data_size": len(tail[one])}} if binary else known[one].to_json()
        for one, binary in wanted.items()
    ]
    said = {"model_name": name} | ({} if body.id is None else {"id": body.id}) | {"outputs": outputs}
    if not tail:
        return JSONResponse(said)
    head = json.dumps(said, allow_nan=False).encode()
    headers = {LENGTH: str(len(head))}
    return Response(b"".join([head, *tail.values()]), headers=headers, media_type="application/octet-stream")
