"""Shadows: what the log of a candidate says is what a comparison on all rows says, and nothing reaches the answer."""

import asyncio
import json
import stat
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from command_line import answer, good
from helpers import TEXTS, adapted_of, save_tiny_run

from bertlora.confidence.predictions import Predictions
from bertlora.confidence.probabilities import softmax
from bertlora.errors import InputError, OutputError
from bertlora.evaluation.comparison import Comparison
from bertlora.pipeline.shadow_log import read_shadows
from bertlora.serving.batcher import Batch
from bertlora.serving.fleet import Fleet, Served
from bertlora.serving.questions import Answer, Question
from bertlora.serving.service import Service
from bertlora.serving.shadow import Shadows
from bertlora.serving.shadow_file import ShadowLog

LABELS = ["bad", "fine", "good"]
ROWS = 4000


def served(name: str, labels: list[str] = LABELS) -> Served:
    """Returns an adapter without a model."""
    run = SimpleNamespace(
        path=Path("runs") / name,
        manifest=SimpleNamespace(labels=labels, task="classification"),
        predictions=lambda: Predictions(labels, softmax),
    )
    return Served(name, cast(Any, run))


def outputs(right: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns true classes (N,), and logits (N, 3) whose largest is the true class in this share of the rows."""
    y_true = np.random.default_rng(0).integers(3, size=ROWS)
    random = np.random.default_rng(seed)
    shifted = np.where(random.random(ROWS) < right, y_true, (y_true + random.integers(1, 3, size=ROWS)) % 3)
    return y_true, np.eye(3)[shifted] + 0.1 * random.random((ROWS, 3))


def shadowed(file: Path, first: np.ndarray, second: np.ndarray, limit: int = 2**20) -> Counter[tuple[str, str]]:
    """Shows a shadow the answers of adapter and candidate, in two runs of a server; returns the counts."""
    counts: Counter[tuple[str, str]] = Counter()
    adapter, candidate = served("a"), served("b")
    for half in (range(ROWS // 2), range(ROWS // 2, ROWS)):
        shadows = Shadows({"a": candidate}, ShadowLog(file, limit))
        shadows.count = lambda *names: counts.update([names])
        for i in half:
            question = Question("a", f"text {i}")
            assert shadows.candidate(question) is candidate
            shadows.seen(question, Answer(adapter, first[i], 3), Answer(candidate, second[i], 3))
        shadows.close()
    return counts


def test_a_labelled_log_says_what_a_comparison_on_all_rows_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.jsonl"
    y_true, first = outputs(0.9, 1)
    _, second = outputs(0.93, 2)
    counts = shadowed(file, first, second)
    expected = Comparison.of(first.argmax(1) == y_true, second.argmax(1) == y_true)
    differ = int(np.sum(first.argmax(1) != second.argmax(1)))
    assert counts == {("a", "disagreed"): differ, ("a", "agreed"): ROWS - differ}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = good(capsys, "compare", file, "--json").json["shadows"][0]
    assert (found["decision"], found["comparison"], found["unlabelled"]) == ("undecided", None, differ)

    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if "label" in line:
            line["label"] = LABELS[y_true[int(line["text"].removeprefix("text "))]]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = good(capsys, "compare", file, "--json").json["shadows"][0]
    assert (found["texts"], found["labelled"], found["unlabelled"]) == (ROWS, differ, 0)
    assert found["agreement"] == 1 - differ / ROWS
    assert found["comparison"] == json.loads(json.dumps(expected.figures(("a", "runs/b"))))
    assert found["decision"] == "promote"
    shown = " ".join(good(capsys, "compare", file).out.split())
    assert f"a: promote: of {differ} labelled disagreements the candidate is right in" in shown
    assert "runs/b beats a by" in shown

    for line in [line for line in lines if "label" in line][::2]:
        line["label"] = ""
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    half = good(capsys, "compare", file, "--json").json["shadows"][0]
    assert half["labelled"] + half["unlabelled"] == differ
    assert half["comparison"]["rows"] == pytest.approx(ROWS / 2, abs=ROWS / differ)
    lines[-1]["label"] = "goood"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    refused = answer(capsys, "compare", file)
    assert refused.status == 2
    assert "label 'goood' is unknown, expected one of bad, fine, good; did you mean 'good'?" in refused.err
    assert "leave the options for runs" in answer(capsys, "compare", file, "--seeds", "3").err


def test_a_log_is_bounded_keeps_its_counts_and_has_one_writer(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    _, first = outputs(0.5, 1)
    _, second = outputs(0.5, 2)
    counts = shadowed(file, first, second, limit=20_000)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    kept = [line for line in lines if "shadow" not in line]
    assert 19_000 < sum(len(json.dumps(line)) + 1 for line in kept) <= 20_000
    assert sum(line["shadow"]["disagreed"] for line in lines if "shadow" in line) == counts["a", "disagreed"]
    log = ShadowLog(file)
    with pytest.raises(OutputError, match="another server writes it"):
        ShadowLog(file)
    log.close()
    (tmp_path / "notes.txt").write_text("mine\n")
    with pytest.raises(InputError, match="no log of shadows"):
        ShadowLog(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine\n"


def test_a_candidate_that_fails_is_counted_and_reaches_nothing(tmp_path: Path) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    log = ShadowLog(tmp_path / "log.jsonl")
    shadows = Shadows({"a": served("b")}, log)
    shadows.count = lambda *names: counts.update([names])
    question, right = Question("a", "text"), Answer(served("a"), np.array([0.0, 1.0, 2.0]), 3)
    shadows.seen(question, right, Answer(served("b"), np.array([0.0]), 3))
    shadows.seen(question, right, Answer(served("b", ["x", "y", "z"]), np.array([0.0, 1.0, 2.0]), 3))
    log.close()
    shadows.seen(question, right, Answer(served("b"), np.array([3.0, 1.0, 2.0]), 3))  # the file is gone: counted only
    assert counts == {("a", "failed"): 2, ("a", "disagreed"): 1}
    assert shadows.candidate(Question("a", "text", base=True)) is None
    assert shadows.candidate(Question("other", "text")) is None


def test_several_labels_are_right_if_all_of_them_are(tmp_path: Path) -> None:
    names = {"adapter": "a", "candidate": "runs/b"}
    counts = {"shadow": names | {"labels": ["x", "y"], "agreed": 90, "disagreed": 4}}
    answers = {"adapter_label": ["x", "y"], "candidate_label": ["y"]}
    given = [["y", "x"], "y", [], None, "x | y"]
    rows = [names | answers | {"text": f"text {min(i, 3)}", "label": label} for i, label in enumerate(given)]
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in [counts, *rows]))
    (found,) = read_shadows(tmp_path / "log.jsonl")
    assert found.right == [(True, False), (False, True), (False, False)]
    assert (found.unlabelled, found.repeated) == (1, 1)
    assert (found.agreed, found.disagreed) == (90, 4)


class Broken:
    """A model that fails when it computes."""

    def __init__(self, model: Any) -> None:
        self.reader = model.reader

    @contextmanager
    def ready(self, precision: str) -> Any:
        yield

    def logits(self, inputs: Any, precision: str = "fp32") -> Any:
        raise RuntimeError(f"it holds {inputs}")


@pytest.mark.parametrize("how", ["right", "broken", "busy"])
def test_clients_get_the_same_answers_whatever_a_candidate_does(
    how: str, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    save_tiny_run(tmp_path / "run", adapted_of(tiny("bert")))
    fleet = Fleet()
    own = fleet.load("a", tmp_path / "run")
    candidate = fleet.load_apart("a (shadow)", tmp_path / "run")
    if how == "broken":
        candidate = replace(candidate, run=replace(candidate.run, model=cast(Any, Broken(candidate.run.model))))
    service = Service(fleet, batch_s=1e-9 if how == "busy" else 60.0)
    shadows = service.shadows = Shadows({"a": candidate}, ShadowLog(tmp_path / "log.jsonl"))
    counts: Counter[str] = Counter()
    shadows.count = lambda _, outcome: counts.update([outcome])
    batches: list[Batch] = []
    service.seen = batches.append
    texts = TEXTS * (20 if how == "busy" else 1)
    answers = asyncio.run(service.answer([Question("a", text) for text in texts]))
    service.close()
    expected = own.run.model.logits(own.run.model.reader.read(texts, None))
    assert np.stack([one.logits for one in answers]) == pytest.approx(expected, abs=1e-5)
    if how == "right":
        assert [(one.texts, one.lanes) for one in batches] == [(2 * len(texts), 2)], "both are in one batch"
    if how == "busy":
        assert set(counts) == {"agreed", "dropped"}, "a request that fills batches takes few candidates along"
        assert counts["dropped"] > counts.total() * 0.9
    else:
        assert set(counts) == {"agreed" if how == "right" else "failed"}
    assert counts.total() == len(texts)
