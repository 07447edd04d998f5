"""Readers of runs: run.json, tensors, calibration, certificate, PEFT's config; and the client, which reads answers."""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from bertlora.client import connection
from bertlora.client.client import Client
from bertlora.confidence.calibration import Calibration
from bertlora.confidence.spread import Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.export.certificate import Certificate
from bertlora.model.adapter_files import adapter_classes, read_adapter_config
from bertlora.rivals.probe import Probe
from bertlora.rivals.tfidf import Tfidf
from bertlora.run.manifest import Manifest, Seen, read_manifest
from fuzzing.engine import Target

RNG = np.random.default_rng(0)
BASE = {"id": "minilm", "revision": "", "sha256": "0" * 64}
LINEAR: dict[str, Any] = {"weight": np.ones((2, 3), np.float32), "bias": np.zeros(2), "temperature": np.ones(1)}


def manifests(folder: Path) -> Target:
    """run.json."""
    seeds = [
        asdict(Manifest(["n", "y"], ["n", "y"], 128, "right", False, BASE, 42, temperature=1.5)),
        asdict(Manifest(["x"], ["x"], 128, "head-tail", True, BASE, 1, task="regression", target_mean=0.5)),
        asdict(
            Manifest(
                ["a", "b"],
                ["a", "b"],
                9,
                "left",
                False,
                BASE,
                1,
                task="multilabel",
                temperatures=[1, 2.0],
                thresholds=[0.5, 0.1],
            )
        ),
    ]

    def call(data: bytes) -> None:
        (folder / "run.json").write_bytes(data)
        found = read_manifest(folder)
        found.to_json()

    return Target(call, [json.dumps(seed).encode() for seed in seeds])


def learned(folder: Path) -> list[tuple[type[Any], bytes, bytes]]:
    """Small calibrations of each kind, as JSON and tensors."""
    logits, chosen = RNG.normal(size=(3, 2)).astype(np.float32), np.array([[True, False], [False, False], [True, True]])
    kinds: list[Any] = [
        Calibration(1.5, logits, np.array([0, 1, 1])),
        Spread(0.5, 2.0, logits[:, 0], np.array([1.0, 2.0, 3.0])),
    ]
    several = Thresholds(np.ones(2), np.array([0.5, 0.4]), logits, chosen)
    found: list[tuple[type[Any], bytes, bytes]] = []
    for one in (*kinds, several):
        one.save(folder)
        facts, tensors = (folder / name for name in ("calibration.json", "validation.safetensors"))
        found.append((type(one), facts.read_bytes(), tensors.read_bytes()))
    return found


def calibrations(folder: Path) -> Target:
    """calibration.json of each kind; the first byte says which."""
    kinds = learned(folder)

    def call(data: bytes) -> None:
        kind, _, tensors = kinds[sum(data[:1]) % 3]
        (folder / "calibration.json").write_bytes(data[1:])
        (folder / "validation.safetensors").write_bytes(tensors)
        found = kind.load(folder)
        assert found.rows == 3
        json.dumps(found.facts())

    return Target(call, [bytes([i]) + text for i, (_, text, _) in enumerate(kinds)])


def tensors(folder: Path) -> Target:
    """Every file of tensors that a run has; the first byte says which."""
    kinds = learned(folder)
    readers: list[tuple[str, Callable[[Path], Any], bytes]] = [
        ("validation.safetensors", kind.load, content) for kind, _, content in kinds
    ]
    terms = np.frombuffer(b"a\nb\nc", np.uint8)
    words: dict[str, Any] = {"terms": terms, "idf": np.ones(3), "characters": np.zeros(1, bool)}
    seen = {"train": np.arange(3, dtype=np.uint64), "validation": np.arange(2, dtype=np.uint64)}
    readers += [
        ("probe.safetensors", Probe.load, save(LINEAR | {"only_mean": np.zeros(1, bool)})),
        ("tfidf.safetensors", Tfidf.load, save(words | LINEAR)),
        ("seen.safetensors", Seen.load, save(seen)),
        ("adapter_model.safetensors", adapter_classes, save({"base.classifier.weight": np.ones((2, 3), np.float32)})),
    ]

    def call(data: bytes) -> None:
        which = sum(data[:1]) % len(readers)
        name, load, _ = readers[which]
        if which < len(kinds):
            (folder / "calibration.json").write_bytes(kinds[which][1])
        (folder / name).write_bytes(data[1:])
        load(folder)

    return Target(call, [bytes([i]) + content for i, (*_, content) in enumerate(readers)])


def certificates(folder: Path) -> Target:
    """A certificate: the first byte says whether its facts or its tensors come."""
    facts = json.dumps(
        {"format": "run", "tolerance": 1e-3, "files": {"adapter/a": "0" * 64}, "made_on": {"torch": "2"}}
    )
    names = {"first.ids": np.arange(6, dtype=np.int32), "first.offsets": np.array([0, 2, 6]), "logits": np.ones((2, 2))}
    good = {"certificate.json": facts.encode(), "certificate.safetensors": save(names)}
    pairs = save(names | {"second.ids": names["first.ids"], "second.offsets": names["first.offsets"]})

    def call(data: bytes) -> None:
        for i, (name, content) in enumerate(good.items()):
            (folder / name).write_bytes(data[1:] if sum(data[:1]) % 2 == i else content)
        found = Certificate.load(folder)
        assert found is not None
        found.allowed("bf16")
        found.check_files(folder)

    return Target(call, [b"\0" + good["certificate.json"], b"\1" + good["certificate.safetensors"], b"\1" + pairs])


def adapter_configs(folder: Path) -> Target:
    """adapter_config.json, as PEFT writes it."""
    some = {"peft_type": "LORA", "task_type": "SEQ_CLS", "r": 8, "lora_alpha": 16, "target_modules": ["query"]}
    seeds = [
        some,
        some | {"base_model_name_or_path": "x", "rank_pattern": {"query": 4}, "modules_to_save": ["classifier"]},
    ]
    (folder / "adapter_model.safetensors").write_bytes(save({"a": np.ones(1)}))

    def call(data: bytes) -> None:
        (folder / "adapter_config.json").write_bytes(data)
        with warnings.catch_warnings(action="ignore"):  # PEFT warns of keys that it does not know
            read_adapter_config(folder)

    return Target(call, [json.dumps(seed).encode() for seed in seeds])


def client_answers(folder: Path) -> Target:
    """What a server, or something else, answers the client; the first byte is a status."""
    statuses = (200, 200, 200, 400, 413, 422, 500, 301, 429)
    line = {"label": "y", "confidence": 0.9, "probabilities": {"n": 0.1, "y": 0.9}}
    answers: list[Any] = [
        {"predictions": [line], "tokens": 3, "notes": ["a"]},
        {"adapters": ["a"]},
        {"name": "a", "task": "classification", "labels": ["n", "y"], "pairs": False, "max_length": 9},
        {"error": "texts: is empty", "reason": "empty"},
    ]

    class Fixed(connection.Connection):
        answer: tuple[int, Any, bytes] = (200, {}, b"")

        def _once(self, *_: Any) -> tuple[int, Any, bytes]:
            return self.answer

    client = Client("http://127.0.0.1:1", retries=0)
    client._connection = Fixed("http://127.0.0.1:1", "", 1.0, 0)
    calls: list[Callable[[], Any]] = [
        lambda: client.predict(["t"], adapter="a"),
        client.adapters,
        lambda: client.predict_proba(["t"], adapter="a"),
        lambda: client.describe("a"),
        lambda: client.explain(["t"], adapter="a"),
        lambda: client.predict(["t"]),
    ]

    def call(data: bytes) -> None:
        status = statuses[sum(data[:1]) % len(statuses)]
        Fixed.answer = (status, {"Retry-After": data[1:4].decode("latin-1")}, data[2:])
        calls[sum(data[1:2]) % len(calls)]()

    seeds = [bytes([i % 9, i // 2]) + json.dumps(answer).encode() for i, answer in enumerate(answers * 3)]
    return Target(call, seeds)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "run.json": manifests,
    "calibration.json": calibrations,
    "tensors": tensors,
    "certificate": certificates,
    "adapter_config.json": adapter_configs,
    "client": client_answers,
}
