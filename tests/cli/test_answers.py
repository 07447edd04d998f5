"""What `predict` answers: calibrated, raw, with abstention, and with sets of labels."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import Answer, answer, good
from helpers import cover_again
from scipy.special import softmax

from bertlora.confidence.calibration import Calibration
from bertlora.errors import InputError, RunError
from bertlora.run.loaded import Run

Capsys = pytest.CaptureFixture[str]
TEXTS = ["a joy from start to finish", "dull and lifeless", "i loved it", "wonderful mess"]


@pytest.fixture
def run(run_of_reviews: Path, tmp_path: Path) -> Path:
    """Returns a tiny run with the calibration of an overconfident model, right on 320 of 400 rows."""
    out = shutil.copytree(run_of_reviews, tmp_path / "run")
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, size=400)
    logits = np.zeros((400, 2), dtype=np.float32)
    sure = random.uniform(0, 6, size=400)
    right = random.random(400) < softmax(np.stack([sure / 3, np.zeros(400)], axis=1), axis=1)[:, 0]
    logits[np.arange(400), np.where(right, labels, 1 - labels)] = sure
    Calibration(3.0, logits, labels).save(out)
    for manifest in (out / "run.json", out / "adapter" / "run.json"):
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"temperature": 3.0}))
    cover_again(out)
    return out


def predicted(run: Path, capsys: Capsys, *flags: object) -> Answer:
    return good(capsys, "predict", run, *TEXTS, *flags)


def test_probabilities_are_calibrated_unless_raw(run: Path, capsys: Capsys) -> None:
    adapted = Run.load(run).adapted
    scores = adapted.logits(adapted.reader.read(TEXTS))
    for flags, temperature in (([], 3.0), (["--raw"], 1.0)):
        found = [
            [line["probabilities"][name] for name in adapted.labels] for line in predicted(run, capsys, *flags).lines
        ]
        assert np.allclose(found, softmax(scores / temperature, axis=1), atol=1e-6)
    assert [line["label"] for line in predicted(run, capsys).lines] == [
        adapted.labels[k] for k in scores.argmax(axis=1)
    ]


def test_the_temperature_is_saved_in_the_adapter(run: Path, tmp_path: Path, capsys: Capsys) -> None:
    good(capsys, "export", run, "--to", tmp_path / "out", "--format", "adapter")
    whole = predicted(run, capsys).lines
    assert predicted(run / "adapter", capsys).lines == whole
    assert predicted(tmp_path / "out", capsys).lines == whole


def test_a_calibration_of_another_training_is_refused(run: Path, capsys: Capsys) -> None:
    found = Calibration.load(run)
    assert found is not None
    dataclasses.replace(found, temperature=2.0).save(run)
    refused = answer(capsys, "predict", run, *TEXTS)
    assert refused.status == 2
    assert "calibration.json: is damaged, or belongs to another folder" in refused.err


def test_a_text_with_low_confidence_gets_no_label(run: Path, capsys: Capsys) -> None:
    found = predicted(run, capsys, "--abstain", "coverage=0.5")
    assert "probability of at least 0.5" in found.err
    threshold = Run.load(run).predictions(abstain="coverage=0.5").threshold
    assert threshold is not None
    for line in found.lines:
        assert line["abstained"] == (line["confidence"] < threshold.value)
        assert (line["label"] is None) == line["abstained"]


def test_sets_contain_the_label_and_grow_with_the_coverage(run: Path, capsys: Capsys) -> None:
    sizes = []
    for coverage in ("0.5", "0.9", "0.999"):
        lines = predicted(run, capsys, "--sets", coverage).lines
        assert all(line["labels"][0] == line["label"] for line in lines)
        sizes.append(sum(len(line["labels"]) for line in lines))
    assert sizes[0] <= sizes[1] <= sizes[2] == 2 * len(TEXTS)


def test_a_guaranteed_accuracy_holds_on_the_validation_rows(run: Path) -> None:
    threshold = Run.load(run).predictions(abstain="accuracy=0.7").threshold
    assert threshold is not None
    assert threshold.accuracy is not None
    assert threshold.accuracy >= 0.7
    assert 0 < threshold.coverage <= 1


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--abstain", "sometimes"], "expected accuracy=A or coverage=C"),
        (["--abstain", "accuracy=much"], "expected accuracy=A or coverage=C"),
        (["--abstain", "coverage=1.5"], "expected a fraction between 0 and 1"),
        (["--abstain", "accuracy=0.9999"], "no threshold guarantees it on 400 validation rows"),
        (["--sets", "0"], "expected a fraction between 0 and 1"),
        (
            ["--raw", "--sets", "0.9"],
            "raw probabilities are not calibrated, which abstain and sets need; leave one out",
        ),
        (["--base", "--abstain", "coverage=0.5"], "leave --base out"),
    ],
)
def test_bad_flags_get_one_clear_line(flags: list[str], wanted: str, run: Path, capsys: Capsys) -> None:
    found = answer(capsys, "predict", run, *TEXTS, *flags)
    assert (found.status, found.out) == (2, "")
    assert found.err.count("\n") == 1
    assert wanted in found.err


def test_a_run_without_validation_rows_is_refused(run: Path) -> None:
    for name in ("calibration.json", "validation.safetensors"):
        (run / name).unlink()
    with pytest.raises(RunError, match=r"lacks calibration\.json"):
        Run.load(run)
    cover_again(run)
    bare = Run.load(run)
    assert bare.calibration.temperature == 3.0
    with pytest.raises(InputError, match="chosen on validation rows, and the run has none; train with some"):
        bare.predictions(sets=0.9)
