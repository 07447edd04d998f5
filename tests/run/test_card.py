"""The model card: metadata that the hub reads, and figures that were measured."""

import re
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from bertlora.confidence.calibration import Calibration
from bertlora.recipe import Recipe
from bertlora.run.card import model_card
from bertlora.run.manifest import Manifest

METRICS: dict[str, Any] = {
    "rivals": {"tfidf": {"seconds": 1.44, "strength": 1.0, "reads": "words", "validation_accuracy": 0.85}},
    "train": {"examples": 1200, "seconds": 12.4},
    "validation": {
        "accuracy": 0.875,
        "accuracy_ci95": [0.82, 0.92],
        "macro_f1": 0.8712,
        "matthews": 0.75,
        "roc_auc": None,
    },
}
CALIBRATION = Calibration(1.6, np.zeros((160, 2), dtype=np.float32), np.zeros(160, dtype=np.int64))


def card(data: tuple[str, ...] = ("/home/somewhere/reviews.csv",), **changes: Any) -> ModelCard:
    base = {"id": "some/bert", "revision": "", "sha256": "ab" * 32}
    facts = {"labels": ["bad", "good"], "source_labels": ["0", "1"], "max_length": 64, "truncation": "head-tail"}
    manifest = Manifest(
        **{"pairs": False, "base": base, "seed": 1, "versions": {"bertlora": "0.1.0"}, **facts, **changes}
    )
    return ModelCard(model_card(manifest, "some/bert", Recipe(data=data), METRICS, CALIBRATION))


def test_the_hub_reads_its_metadata() -> None:
    data = card().data
    assert (data.base_model, data.library_name, data.pipeline_tag) == ("some/bert", "peft", "text-classification")
    assert "lora" in (data.tags or [])
    assert data.datasets is None
    found = {result.metric_type: result for result in data.eval_results or []}
    # What was not measured is not there.
    assert {kind: result.metric_value for kind, result in found.items()} == {
        "accuracy": 0.875,
        "f1": 0.8712,
        "matthews_correlation": 0.75,
    }
    # The hub shows these figures without the card's text, so their names say it too.
    assert found["accuracy"].metric_name == "accuracy (the best epoch was chosen on these rows)"
    assert {(r.dataset_name, r.dataset_type, r.dataset_split) for r in found.values()} == {
        ("reviews.csv", "csv", "validation")
    }


def test_data_of_the_hub_are_named_by_their_id() -> None:
    data = card(data=("hub:nyu-mll/glue/sst2",)).data
    assert data.datasets == ["nyu-mll/glue"]
    assert {result.dataset_type for result in data.eval_results or []} == {"nyu-mll/glue"}


def test_no_folder_of_the_machine_is_named() -> None:
    assert "somewhere" not in card(data=("train=/home/somewhere/a.csv", "test=/home/somewhere/b.csv")).content


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "single texts; texts with more than 64 tokens are cut in the middle"),
        ({"truncation": "right", "pairs": True}, "pairs of texts; texts with more than 64 tokens are cut at the end"),
        ({"long_texts": "windows"}, "read in overlapping windows whose logits are averaged"),
    ],
)
def test_it_says_how_texts_are_read(changes: dict[str, Any], wanted: str) -> None:
    assert wanted in card(**changes).text


def test_labels_are_shown_as_they_are() -> None:
    labels = ["<script>alert(1)</script>", "[a](http://evil)", "```\n# heading", "a\x1b[31m | `b`"]
    lines = card(labels=labels, source_labels=list("0123")).text.splitlines()
    (shown,) = [line for line in lines if "order of the logits" in line]
    assert re.findall(r"(?<!\\)[<>`\[|]", shown) == []
    assert shown.isprintable()
    assert not any(line.startswith("# heading") for line in lines)


def test_it_says_what_was_measured() -> None:
    text = card().text
    for wanted in (
        "1,200 examples",
        "160 validation texts, on which the best epoch was also chosen:",
        "| macro F1 | 0.8712 |",
        "fitted in 1.4 s | 0.8500 |",
        "0.8200 to 0.9200",
        "by 1.600",
    ):
        assert wanted in text
    assert "ROC AUC" not in text
