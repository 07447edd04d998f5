"""Operations: every request is counted and has a line in the log; /metrics has the counts."""

import logging
import time
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bertlora.serving.metrics import Metrics, outcome
from bertlora.serving.record import Record, recording
from bertlora.serving.service import Service

LOG = logging.getLogger("bertlora.serving.requests")
METRICS = "/metrics"
# These ask all the time. They have a line only if they fail.
WATCHED = (METRICS, "/health", "/v2/health/live", "/v2/health/ready")
CLIENT_GONE = 499  # as nginx has it: nobody was there to be answered
# Names of adapters in a line.
NAMED = 16


def operate(app: FastAPI, service: Service) -> None:
    """Adds metrics and logs to an application, outside all that it has."""
    metrics = Metrics(service)
    service.seen = metrics.batch
    if service.shadows is not None:
        service.shadows.count = metrics.shadow
    app.include_router(router(metrics))
    app.add_middleware(Operations, metrics=metrics)


class Operations:
    """ASGI middleware, outside all others.

    Args:
        app: the application. It puts the request's id in `scope["state"]`, and the router puts its route in the scope.
        metrics: gets every request.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts and logs a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, began = CLIENT_GONE, time.perf_counter()

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"]
        with recording() as record:
            try:
                await self.app(scope, receive, answered)
            except Exception:
                status = 500  # whatever was sent, it is not whole
                raise
            finally:
                seconds = time.perf_counter() - began
                self.metrics.request(record, status, seconds)
                if status >= 400 or scope["path"] not in WATCHED:
                    LOG.log(level(status), "request", extra={"fields": fields(scope, method, record, status, seconds)})


def level(status: int) -> int:
    """Returns the level of a request's line: an error if the server failed, a warning if it could not answer."""
    if outcome(status) == "failed":
        return logging.ERROR
    return logging.WARNING if status in (429, CLIENT_GONE, 503) else logging.INFO


def fields(scope: Scope, method: str, record: Record, status: int, seconds: float) -> dict[str, Any]:
    """Returns what the line of a request says. The path stays out: a client may have put anything in it."""
    line = {
        "request_id": scope.get("state", {}).get("request_id"),
        "method": method,
        "route": getattr(scope.get("route"), "path", None),
        "status": status,
        "outcome": outcome(status),
        "ms": _ms(seconds),
    }
    if record.questions:
        names = sorted({question.adapter for question in record.questions})
        line |= {"adapters": names[:NAMED], "texts": len(record.questions)}
    if record.answers:
        line["tokens"] = sum(answer.tokens for answer in record.answers)
        slowest, stages = record.slowest, ("queue", "tokenization", "compute")
        line |= {f"{stage}_ms": _ms(getattr(slowest, f"{stage}_s")) for stage in stages}
    return line | ({"error": record.error} if record.error else {})


def router(metrics: Metrics) -> APIRouter:
    """Returns the route of the metrics."""
    routes = APIRouter(tags=["operations"])

    @routes.get(METRICS, response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def show() -> Response:
        """Gives the metrics in the text format of Prometheus."""
        # Some milliseconds. Under load another thread would wait far longer for its turn.
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return routes


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
