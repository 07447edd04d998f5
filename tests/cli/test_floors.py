"""What a script requires: the exit status says whether a figure is high enough, and whether a run is worse."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import answer

import bertlora.pipeline.compare
import bertlora.pipeline.evaluate
from bertlora.evaluation.metrics import classification_metrics

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Puts an evaluation with an accuracy of 0.8 on 100 rows in the place of one that takes long."""
    import numpy as np

    y_true = np.repeat([0, 1], 50)
    logits = np.eye(2)[np.where(np.arange(100) % 5 == 0, 1 - y_true, y_true)]
    found = {
        "n": 100,
        "lora": classification_metrics(logits, y_true, ["a", "b"]),
        "where": "test split",
        "caution": "",
        "notes": [],
    }
    monkeypatch.setattr(bertlora.pipeline.evaluate, "evaluate", lambda run, **_: found)
    return found


@pytest.mark.parametrize(
    ("floors", "expected"),
    [
        ([], ""),
        (["accuracy=0.8", "macro_f1=0"], ""),
        (["accuracy_low=0.7"], ""),
        (["accuracy=0.81"], "accuracy 0.8000 is under 0.81 (LoRA on 100 rows, test split)"),
        (["accuracy_low=0.8", "accuracy=0.5"], "accuracy_low 0.7"),
        (["accuracy=0.9", "matthews=1"], "accuracy 0.8000 is under 0.9; matthews 0.6000 is under 1 ("),
        (["pearson=0.5"], "pearson is not known on these rows, expected 0.5 or more"),
        (["roc_auc_low=0.5"], "roc_auc_low is not known on these rows"),
    ],
)
def test_figures_under_their_floor(evaluated: dict[str, Any], capsys: Capsys, floors: list[str], expected: str) -> None:
    words = [word for floor in floors for word in ("--fail-under", floor)]
    found = answer(capsys, "evaluate", "run", "--json", *words)
    assert found.status == (1 if expected else 0)
    assert json.loads(found.out)["lora"] == evaluated["lora"]  # the figures are printed in any case
    assert expected in found.err
    assert found.err.count("\n") == (1 if expected else 0)


@pytest.mark.parametrize(
    ("floor", "expected"),
    [
        ("acuracy=0.8", "got 'acuracy', expected one of accuracy, "),
        ("loss=0.8", "got 'loss', expected one of accuracy, "),
        ("accuracy=85", "got 'accuracy=85', expected a number from 0 to 1 such as accuracy=0.85"),
        ("accuracy", "got 'accuracy', expected a number from 0 to 1"),
    ],
)
def test_floors_that_are_none(capsys: Capsys, floor: str, expected: str) -> None:
    found = answer(capsys, "evaluate", "nowhere", "--fail-under", floor)
    assert (found.status, found.out) == (2, "")
    assert f"--fail-under: {expected}" in found.err


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize(
    ("first", "gain", "significant", "status"),
    [
        ("a", 3.0, True, 1),
        ("a", 3.0, False, 0),
        ("a", -3.0, True, 0),
        ("b", -3.0, True, 1),
        ("b", 3.0, True, 0),
        ("c", 3.0, True, 0),  # another pair: the run in question is not in it
    ],
)
def test_a_run_that_is_worse(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: Capsys,
    first: str,
    gain: float,
    significant: bool,
    status: int,
    regression: bool,
) -> None:
    figure = {"gain": gain} if regression else {"tested": {"gain_points": gain}}
    pair = {"first": "a", "second": "b", "significant": significant, **figure, "verdict": "So."}
    monkeypatch.setattr(bertlora.pipeline.compare, "compare", lambda runs, **_: {"pairs": [pair]})
    others = [run for run in ("a", "b") if run != first]
    found = answer(capsys, "compare", first, *others, "--fail-if-worse", "--json")
    assert found.status == status
    assert found.err == (f"bertlora: {first} is worse: So.\n" if status else "")
    assert answer(capsys, "compare", first, *others, "--json").status == 0
