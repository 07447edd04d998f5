"""The report of a run that gives several labels: its numbers are those of the evaluation, and texts are escaped."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_page import Page

from bertlora.confidence.probabilities import sigmoid
from bertlora.confidence.thresholds import Thresholds
from bertlora.evaluation.cautions import Met
from bertlora.evaluation.multilabel import EvaluatedLabels
from bertlora.evaluation.report import Material, facts_of, render, worst_rows
from bertlora.evaluation.report.multilabel import LABEL_SECTIONS
from bertlora.evaluation.slices import Slice, slice_figures
from bertlora.run.loaded import Run
from bertlora.task import MULTILABEL

LABELS = ["<b>food</b>", "price & value", "staff", "absent"]
HOSTILE = "<script>document.title = 'taken'</script>"


@pytest.fixture(scope="module")
def run(run_of_reviews: Path) -> Run:
    run = Run.load(run_of_reviews)
    return replace(run, manifest=replace(run.manifest, task=MULTILABEL, labels=LABELS, source_labels=LABELS))


@pytest.fixture(scope="module")
def evaluated() -> EvaluatedLabels:
    draw = np.random.default_rng(0)
    log_odds = 3 * draw.normal([0.0, -0.5, -1.0, -60.0], 1, size=(240, 4))
    y_true = draw.random(log_odds.shape) < sigmoid(log_odds)
    logits = {name: log_odds + noise * draw.normal(size=log_odds.shape) for name, noise in (("tfidf", 3), ("lora", 2))}
    learned = Thresholds.fit(logits["lora"], y_true)
    return EvaluatedLabels(LABELS, y_true, logits, learned, {"tfidf": np.full(4, 0.4)}, "test rows")


def test_the_page_shows_the_figures_and_the_worst_rows(run: Run, evaluated: EvaluatedLabels) -> None:
    texts = [f"{HOSTILE} text {i}" for i in range(240)]
    slices = slice_figures(evaluated.right("lora"), [Slice("word", f"word '{HOSTILE}'", np.arange(240) % 2 == 0)])
    material = Material(evaluated, "test split", Met(240, 0, 240, MULTILABEL), texts, slices=slices)
    facts = json.loads(json.dumps(facts_of(run, material), allow_nan=False))
    page = Page(render(facts))
    assert [one["id"] for one in page.of("section")] == list(LABEL_SECTIONS)
    assert not page.of("script")
    lora = evaluated.figures("lora")
    assert f"Give texts any of 4 labels: macro F1 {lora['macro_f1']:.3f} on 240 test rows" in page.text
    for label in LABELS[:3]:
        assert f"{label}, {lora['per_label'][label]['f1']:.3f}" in page.text  # in the chart
    assert "absent, 0.000" not in page.text
    chosen = evaluated.chosen("lora")
    missed, added = evaluated.y_true & ~chosen, chosen & ~evaluated.y_true
    assert facts["labels"]["missed"] == dict(zip(LABELS, missed.sum(axis=0).tolist(), strict=True))
    for one in facts["labels"]["exchanged"]:
        first, second = LABELS.index(one["missed"]), LABELS.index(one["added"])
        assert one["rows"] == (missed[:, first] & added[:, second]).sum() > 0
    assert "The epoch, the temperatures and the thresholds were chosen on these rows" in page.text
    assert f"{facts['errors']['count']} of 240 rows do not get exactly their labels" in page.text
    worst = worst_rows(evaluated)
    assert [one["row"] for one in facts["errors"]["shown"]] == worst
    for row in worst:
        assert not evaluated.right("lora")[row]
        assert texts[row] in page.quoted


def test_a_page_without_rows_says_so(run: Run) -> None:
    page = Page(render(facts_of(run, Material())))
    assert page.text.count("No labelled rows were evaluated.") >= 4
    assert "Give texts any of 4 labels" in page.text
