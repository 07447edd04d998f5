"""A server in a process of its own, seen by its client, its metrics, its log and its shadow."""

import json
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import numpy as np
import pytest
from command_line import start
from helpers import adapted_of, randomise, save_tiny_run
from prometheus_client.parser import text_string_to_metric_families

from bertlora import Client, Run
from bertlora.cli.remote import Described, explanation_of
from bertlora.errors import InputError, ServerError
from bertlora.model.explain import explain
from bertlora.pipeline.shadow_log import read_shadows
from bertlora.serving.logs import WAITING, AsideHandler, JsonFormatter

KEY = "a-key-that-no-log-has"
WORDS = [
    "the",
    "film",
    "plot",
    "was",
    "dull",
    "bright",
    "slow",
    "good",
    "bad",
    "joy",
    "mess",
    "never",
    "ending",
    "music",
]


class Served(NamedTuple):
    """A server: its URL, its adapter and the candidate, the log of the shadow, and how to end it."""

    url: str
    run: Run
    candidate: Run
    log: Path
    end: Callable[[], tuple[int, str]]


@pytest.fixture
def served(tiny: Callable[[str], Path], tmp_path: Path) -> Iterator[Served]:
    """Starts a server of an adapter with a candidate. The test ends it."""
    for name, seed in (("a", 1), ("b", 2)):
        adapted = adapted_of(tiny("bert"))
        randomise(adapted.model, seed)
        adapted.model.eval()
        save_tiny_run(tmp_path / name, adapted)
    log, key = tmp_path / "log.jsonl", tmp_path / "key"
    key.write_text(f"{KEY}\n")
    words = ("serve", f"stars={tmp_path / 'a'}", "--port", 0, "--key-file", key, "--precision", "fp32", "--json")
    with start(*words, "--shadow", f"stars={tmp_path / 'b'}", "--shadow-log", log) as process:
        assert process.stdout is not None
        line = process.stdout.readline()

        def end() -> tuple[int, str]:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate()
            assert process.returncode is not None
            return process.returncode, err.decode()

        if not line:
            raise AssertionError(end()[1])
        url = json.loads(line)["url"]
        yield Served(url, Run.load(tmp_path / "a"), Run.load(tmp_path / "b"), log, end)
        if process.returncode is None:
            end()


def texts_of(count: int) -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, size=random.integers(2, 9))) for _ in range(count)]


def metrics_of(url: str) -> dict[tuple[str, ...], float]:
    """Returns the value of each sample, by its name and the values of its labels."""
    request = Request(f"{url}/metrics", headers={"Authorization": f"Bearer {KEY}"})
    with urlopen(request) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_client_metrics_log_and_shadow_say_the_same(served: Served) -> None:
    texts = texts_of(60)
    with Client(served.url, KEY) as client:
        assert client.adapters() == ["stars"]
        answers = [line for text in texts for line in client.predict([text])]
        assert client.predict_proba(texts[:9], adapter="stars") == pytest.approx(
            served.run.predict_proba(texts[:9]), abs=1e-5
        )
        expected = served.run.predict(texts)
        assert [line["label"] for line in answers] == [line["label"] for line in expected]
        assert [line.keys() for line in answers] == [line.keys() for line in expected]
        check_explanation(client, served.run, texts[0])
        with pytest.raises(InputError, match="no adapter is called 'a text by mistake'"):
            client.predict(["x"], adapter="a text by mistake")
    with Client(served.url) as stranger, pytest.raises(ServerError, match="status 401"):
        stranger.adapters()

    found = metrics_of(served.url)
    requests = {key[1:]: value for key, value in found.items() if key[0] == "bertlora_requests_total"}
    assert requests[("stars", "answered")] == len(texts) + 2
    assert requests[("", "unknown")] == 1
    assert requests[("", "no_key")] == 1
    assert {adapter for adapter, _ in requests} == {"stars", ""}, "names that do not exist are no labels"
    assert found[("bertlora_texts_total", "stars")] == len(texts) + 10
    assert found[("bertlora_request_seconds_count",)] == len(texts) + 2
    stages = ("queue", "tokenization", "compute")
    assert sum(found[(f"bertlora_{stage}_seconds_sum",)] for stage in stages) < found[("bertlora_request_seconds_sum",)]
    shadowed = {key[2]: value for key, value in found.items() if key[0] == "bertlora_shadow_texts_total"}
    assert sum(shadowed.values()) == len(texts) + 10
    assert found[("bertlora_batch_tokens_sum",)] > found[("bertlora_tokens_total", "stars")], "candidates read too"
    assert (found[("bertlora_adapters_loaded",)], found[("bertlora_queue_texts",)]) == (1, 0)

    status, err = served.end()
    assert status == 0
    check_log(err, texts)
    check_shadow(served, texts, expected, shadowed)


def check_explanation(client: Client, run: Run, text: str) -> None:
    """The server explains as the run does, and nothing of an explanation is lost on the way."""
    local = explain(run.adapted, [text])[0]
    (found,) = client.explain([text])
    described = Described(run.manifest.labels, run.manifest.task, run.manifest.pairs)
    assert explanation_of(local.to_json(), described, text, None) == local
    ours = explanation_of(found, described, text, None)
    assert ours.label == local.label
    assert [word.text for word in ours.words] == [word.text for word in local.words]
    attributions = [word.attribution for word in local.words]
    assert [word.attribution for word in ours.words] == pytest.approx(attributions, abs=1e-3)


def check_log(err: str, texts: list[str]) -> None:
    """The log is JSON, has a line for each request, and has no text, no key and no name that a client made up."""
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["logger"] == "bertlora.serving.requests"]
    predictions = [line for line in requests if line["route"] == "/v1/adapters/{name}/predict"]
    outcomes = Counter(line["outcome"] for line in predictions)
    assert outcomes == {"answered": len(texts) + 2, "unknown": 1}
    assert all(line["request_id"] for line in requests)
    assert len({line["request_id"] for line in requests}) == len(requests)
    answered = [line for line in predictions if line["outcome"] == "answered"]
    assert sum(line["texts"] for line in answered) == len(texts) + 10
    assert all(line["adapters"] == ["stars"] and line["tokens"] > 3 * line["texts"] for line in answered)
    assert all(line["queue_ms"] + line["tokenization_ms"] + line["compute_ms"] <= line["ms"] + 0.1 for line in answered)
    for secret in (KEY, "by mistake", *(text for text in texts if len(text.split()) > 3)):
        assert secret not in err


def check_shadow(served: Served, texts: list[str], expected: list[dict[str, Any]], counts: dict[str, float]) -> None:
    """The log of the shadow has the texts that both runs label differently, as far as candidates were not dropped."""
    (shadow,) = read_shadows(served.log)
    assert (shadow.agreed, shadow.disagreed) == (counts.get("agreed", 0), counts.get("disagreed", 0))
    assert shadow.agreed > 0
    assert shadow.disagreed > 0
    differ = {
        text
        for text, one, other in zip(texts, expected, served.candidate.predict(texts), strict=True)
        if one["label"] != other["label"]
    }
    kept = {text for text, _ in shadow.texts}
    assert kept <= differ
    if not counts.get("dropped") and not counts.get("failed"):
        assert kept == differ


@pytest.mark.parametrize("name", ["bertlora.serving", "uvicorn.error", "asyncio"])
def test_an_exception_is_logged_by_its_type_and_place_without_its_words(name: str) -> None:
    stream = StringIO()
    handler, logger = logging.StreamHandler(stream), logging.Logger(name)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    try:
        raise ValueError("it quotes a text of a user")
    except ValueError as error:
        words = "a batch failed" if name.startswith("bertlora") else f"unhandled {error!r}"
        logger.error(words, exc_info=True)
    line = json.loads(stream.getvalue())
    assert "quotes" not in stream.getvalue()
    assert (line["level"], line["logger"]) == ("error", name)
    assert line["cause"].startswith(f"ValueError at {__file__}:")


def test_logs_nobody_reads_stop_nothing_and_are_counted() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb", 0) as kept:
        handler = AsideHandler(stream)

        def log() -> None:
            for number in range(3 * WAITING):
                handler.emit(logging.LogRecord("bertlora", logging.INFO, "", 0, f"line {number}", None, None))

        logging_thread = Thread(target=log, daemon=True)
        logging_thread.start()
        logging_thread.join(60)
        assert not logging_thread.is_alive()
        data = b""
        for awaited in ("lines were lost", "the last"):
            while awaited.encode() not in data:
                data += kept.read() or b""
                time.sleep(0.001)
            handler.emit(logging.LogRecord("bertlora", logging.WARNING, "", 0, "the last", None, None))
        handler.close()
        data += kept.read() or b""
        messages = [json.loads(line)["message"] for line in data.decode().splitlines()]
        lost = sum(int(message.split()[0]) for message in messages if message.endswith("lines were lost"))
        assert lost > WAITING
        assert lost + sum(message.startswith("line ") for message in messages) == 3 * WAITING
        assert messages[-2:] == ["the last", "the last"]
