"""What /metrics says, in the text format of Prometheus. docs/operations.md has the table."""

from collections import Counter as Counts
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bertlora.serving.batcher import Batch
from bertlora.serving.record import Record
from bertlora.serving.service import Service

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ADAPTER = "adapter"  # a label
STAGES = {"queue": "Time in the queue", "tokenization": "Time of tokenisation", "compute": "Time of the batch"}
SIZES = tuple(2**power for power in range(15))
# Status → outcome; other statuses are the next lower hundred's.
OUTCOMES = {200: "answered", 400: "invalid", 401: "no_key", 403: "forbidden", 404: "unknown", 413: "too_large"}
OUTCOMES |= {424: "failed", 429: "overloaded", 499: "client_gone", 500: "failed", 503: "not_ready"}


class Metrics:
    """The metrics of a server, in a registry of their own. Its methods are safe for threads.

    Args:
        service: what is measured.
    """

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        count = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        seconds = partial(Histogram, registry=self.registry, buckets=SECONDS)
        sizes = partial(Histogram, registry=self.registry, buckets=SIZES)
        self._requests = count("bertlora_requests", "Requests.", [ADAPTER, "outcome"])
        self._texts = count("bertlora_texts", "Texts that were answered.", [ADAPTER])
        self._tokens = count("bertlora_tokens", "Tokens of the texts that were answered.", [ADAPTER])
        self._shadows = count("bertlora_shadow_texts", "Texts of a candidate.", [ADAPTER, "outcome"])
        self._whole = seconds("bertlora_request_seconds", "Time of a request with answers.")
        self._stages = {
            stage: seconds(f"bertlora_{stage}_seconds", f"{text} of a request's slowest text.")
            for stage, text in STAGES.items()
        }
        self._batch_tokens = sizes("bertlora_batch_tokens", "Tokens of a batch.")
        self._batch_texts = sizes("bertlora_batch_texts", "Texts of a batch.")
        self._batch_adapters = sizes("bertlora_batch_adapters", "Adapters of a batch.")
        gauge("bertlora_queue_texts", "Texts that wait for a batch.").set_function(lambda: service.batcher.waiting[0])
        gauge("bertlora_accepted_texts", "Texts that are not answered yet.").set_function(lambda: service.accepted)
        gauge("bertlora_adapters", "Adapters that clients may ask for.").set_function(lambda: len(service.fleet.names))
        gauge("bertlora_adapters_loaded", "Adapters in memory.").set_function(lambda: len(service.fleet.loaded))
        gauge(
            "bertlora_compute_deaths", "Times that the thread that computes died, and another one took its place."
        ).set_function(lambda: service.batcher.deaths)
        gauge("bertlora_ready", "1 if the server takes questions.").set_function(lambda: float(service.ready))

    def request(self, record: Record, status: int, seconds: float) -> None:
        """Counts a request, once for each adapter that it asked; with an empty adapter if it asked none that exists."""
        for adapter in {question.adapter for question in record.questions} or {""}:
            self._requests.labels(adapter, outcome(status)).inc()
        if not record.answers:
            return
        self._whole.observe(seconds)
        slowest = record.slowest
        for stage, histogram in self._stages.items():
            histogram.observe(getattr(slowest, f"{stage}_s"))
        texts, tokens = Counts[str](), Counts[str]()
        for answer in record.answers:
            texts[answer.served.name] += 1
            tokens[answer.served.name] += answer.tokens
        for adapter, count in texts.items():
            self._texts.labels(adapter).inc(count)
            self._tokens.labels(adapter).inc(tokens[adapter])

    def batch(self, batch: Batch) -> None:
        """Notes a batch."""
        self._batch_tokens.observe(batch.tokens)
        self._batch_texts.observe(batch.texts)
        self._batch_adapters.observe(batch.lanes)

    def shadow(self, adapter: str, outcome: str) -> None:
        """Counts a text of a shadow."""
        self._shadows.labels(adapter, outcome).inc()

    def text(self) -> bytes:
        """Returns all metrics."""
        return generate_latest(self.registry)


def outcome(status: int) -> str:
    """Returns what a status of HTTP says about a request."""
    return OUTCOMES.get(status) or OUTCOMES.get(100 * (status // 100), OUTCOMES[200])
