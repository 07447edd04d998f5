"""LoraMultilabelClassifier: scikit-learn's conventions for several labels, forms of y, and saving."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone, is_classifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import cross_val_score
from sklearn.utils import get_tags
from small_training import GOOD, TEXTS

from bertlora import LoraClassifier, LoraMultilabelClassifier
from bertlora.errors import DataError, RunError

LABELS = ["good", "short", "v"]
MARKS = np.array([[text in GOOD, len(text) < 11, "v" in text] for text in TEXTS])
LISTS = [[label for label, mark in zip(LABELS, row, strict=True) if mark] for row in MARKS]
Make = Callable[..., LoraMultilabelClassifier]


@pytest.fixture(scope="module")
def make(tiny: Callable[[str], Path]) -> Make:
    def classifier(**keys: Any) -> LoraMultilabelClassifier:
        settings = {"batch_size": 8, "epochs": 1, "max_length": 32, "precision": "fp32", "learning_rate": 1e-2}
        return LoraMultilabelClassifier(model=str(tiny("bert")), **(settings | keys))

    return classifier


@pytest.fixture(scope="module")
def fitted(make: Make) -> LoraMultilabelClassifier:
    return make(epochs=15).fit(TEXTS, LISTS, validation=(TEXTS, LISTS))


def test_it_follows_the_conventions(fitted: LoraMultilabelClassifier, make: Make) -> None:
    assert is_classifier(fitted)
    assert get_tags(fitted).classifier_tags.multi_label
    assert clone(fitted).get_params() == fitted.get_params()
    assert fitted.classes_.tolist() == LABELS
    predicted, probabilities = fitted.predict(TEXTS), fitted.predict_proba(TEXTS)
    assert np.array_equal(predicted, probabilities >= fitted.thresholds_.thresholds)
    assert fitted.score(TEXTS, MARKS) == accuracy_score(MARKS, predicted) > 0.7
    assert fitted.predict([]).shape == fitted.predict_proba([]).shape == (0, 3)
    scores = cross_val_score(make(max_steps=1), TEXTS, MARKS.astype(int), cv=2, scoring="f1_macro")
    assert np.isfinite(scores).all()


def test_every_form_of_y_trains_the_same_model(make: Make) -> None:
    marks = MARKS.astype(int)
    forms = [marks, marks.tolist(), csr_array(marks), pd.DataFrame(marks, columns=LABELS), LISTS]
    forms[1] = np.array(forms[1], dtype=object)
    found = [make(max_steps=2).fit(TEXTS, y) for y in forms]
    for one in found[1:]:
        assert np.array_equal(one.predict_proba(TEXTS), found[0].predict_proba(TEXTS))
    assert [one.classes_.tolist() for one in found] == [[0, 1, 2], [0, 1, 2], [0, 1, 2], LABELS, LABELS]


def test_it_is_saved_as_a_run_that_a_classifier_refuses(fitted: LoraMultilabelClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "run")
    loaded = LoraMultilabelClassifier.load(tmp_path / "run")
    assert loaded.predict_proba(TEXTS) == pytest.approx(fitted.predict_proba(TEXTS), abs=1e-6)
    assert np.array_equal(loaded.predict(TEXTS), fitted.predict(TEXTS))
    with pytest.raises(RunError, match="does multilabel, which LoraClassifier does not"):
        LoraClassifier.load(tmp_path / "run")


def test_what_is_wrong_with_y_is_named(make: Make) -> None:
    for y, fault in (
        (["good"] * 16, "y: row 0 is 'good', expected a list of labels"),
        (MARKS * 2, "y: row 0, column 0 is 2, expected 0 or 1"),
        ([["good"]] * 16, "y: got 1 label, expected at least 2"),
        (LISTS[:3], "X has 16 texts and y 3 labels"),
        (np.hstack([MARKS, np.zeros((16, 1))]), "y: no training row has the label 3"),
        ([["a", None], *LISTS[1:]], "y: row 1 has no label"),
    ):
        with pytest.raises(DataError, match=fault):
            make().fit(TEXTS, y)
    with pytest.raises(DataError, match="validation: label 'other' is not among the labels of y"):
        make().fit(TEXTS, LISTS, validation=(["a"], [["other"]]))
