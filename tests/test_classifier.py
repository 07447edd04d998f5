"""LoraClassifier: scikit-learn's conventions, labels in and out in their own type, and inputs that are refused."""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from small_training import BAD, GOOD

from bertlora import LoraClassifier
from bertlora.classifier import typed_labels
from bertlora.errors import DataError, InputError, OutputError, RecipeError, RunError
from bertlora.recipe import recipe_keys
from bertlora.run.loaded import Run
from bertlora.run.manifest import read_manifest

TEXTS = [*GOOD, *BAD]
LABELS = ["good"] * len(GOOD) + ["bad"] * len(BAD)
Make = Callable[..., LoraClassifier]


@pytest.fixture(scope="session")
def make(tiny: Callable[[str], Path]) -> Make:
    """Returns a function that makes an unfitted classifier on the tiny BERT."""

    def classifier(**keys: Any) -> LoraClassifier:
        settings = {"batch_size": 8, "epochs": 1, "max_length": 32, "precision": "fp32", "learning_rate": 1e-2}
        return LoraClassifier(model=str(tiny("bert")), **(settings | keys))

    return classifier


@pytest.fixture(scope="session")
def fitted(make: Make) -> LoraClassifier:
    return make(epochs=10).fit(TEXTS, LABELS)


@pytest.mark.parametrize("place", ["bertlora.training.loop.descend", "bertlora.rivals.fitted.fit_tfidf"])
def test_fit_starts_clean_after_an_interrupt(make: Make, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """As in a notebook: the cell is stopped in a step or before, and run again."""
    expected = make().fit(TEXTS, LABELS).predict_proba(TEXTS)
    classifier, before = make(), surroundings()
    with monkeypatch.context() as patch:
        patch.setattr(place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            classifier.fit(TEXTS, LABELS)
    assert surroundings() == before
    assert np.array_equal(classifier.fit(TEXTS, LABELS).predict_proba(TEXTS), expected)


def interrupted(*_: object, **__: object) -> float:
    """Ctrl-C comes, and the code goes on as far as it may."""
    signal.raise_signal(signal.SIGINT)
    return 0.0


def surroundings() -> tuple[object, ...]:
    """What belongs to the program and not to a training."""
    handlers = [signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)]
    drawn = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
    return handlers, drawn, torch.get_num_threads(), torch.is_grad_enabled()


# scikit-learn's conventions


def test_parameters_are_the_recipes_keys() -> None:
    classifier = LoraClassifier(rank=4, targets=("key",))
    assert set(classifier.get_params()) == {"recipe", *recipe_keys()}
    assert classifier.get_params()["rank"] == 4
    assert classifier.get_params()["alpha"] is None
    assert classifier.set_params(rank=2, epochs=5) is classifier
    assert (classifier.rank, classifier.epochs) == (2, 5)
    assert clone(classifier).get_params() == classifier.get_params()
    assert "rank=2" in repr(classifier)
    assert is_classifier(classifier)


def test_making_one_reads_and_loads_nothing() -> None:
    assert vars(LoraClassifier(model="no/such-model", recipe="no such recipe", rank=-1)).keys() == {
        "recipe",
        *recipe_keys(),
    }


def test_an_unknown_parameter_is_a_type_error_with_a_suggestion() -> None:
    with pytest.raises(TypeError, match="no parameter 'lerning_rate'; did you mean 'learning_rate'"):
        LoraClassifier(lerning_rate=1e-3)
    with pytest.raises(ValueError, match="Invalid parameter 'depth'"):
        LoraClassifier().set_params(depth=3)


def test_values_are_checked_by_fit(make: Make) -> None:
    with pytest.raises(RecipeError, match="rank: got 0, expected a whole number"):
        make(rank=0).fit(TEXTS, LABELS)
    with pytest.raises(RecipeError, match=r"recipe 'defalt' is not one of .* did you mean 'default'"):
        make(recipe="defalt").fit(TEXTS, LABELS)


def test_fit_resolves_recipe_and_keys(make: Make, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("rank = 3\nalpha = 5.0\n")
    classifier = make(recipe=str(tmp_path / "mine.toml"), alpha=7.0).fit(TEXTS, LABELS)
    assert (classifier.recipe_.rank, classifier.recipe_.alpha) == (3, 7.0)
    assert classifier.alpha == 7.0
    assert classifier.rank is None


def test_class_weights_are_named_by_labels_and_kept_in_the_run(make: Make, tmp_path: Path) -> None:
    classifier = make(class_weights={1: 5.0}).fit(TEXTS, [1] * len(GOOD) + [0] * len(BAD))
    assert clone(classifier).class_weights == {1: 5.0}
    classifier.save(tmp_path / "run")
    assert LoraClassifier.load(tmp_path / "run").recipe_.class_weights == {"1": 5.0}
    with pytest.raises(RecipeError, match="class_weights: 'god' is not one of the classes 'bad', 'good'; did you mean"):
        make(class_weights={"god": 2.0}).fit(TEXTS, LABELS)


def test_not_fitted(make: Make, tmp_path: Path) -> None:
    for use in (lambda c: c.predict(["x"]), lambda c: c.predict_proba(["x"]), lambda c: c.save(tmp_path / "run")):
        with pytest.raises(NotFittedError):
            use(make())
    assert not (tmp_path / "run").exists()


def test_fit_learns_and_score_is_the_accuracy(fitted: LoraClassifier) -> None:
    assert fitted.score(TEXTS, LABELS) == np.mean(fitted.predict(TEXTS) == np.array(LABELS)) == 1.0
    assert len(fitted.history_) == 10


def test_fit_again_starts_from_the_beginning(make: Make) -> None:
    classifier = make().fit(TEXTS, LABELS)
    first = classifier.predict_proba(TEXTS)
    assert np.array_equal(classifier.fit(TEXTS, LABELS).predict_proba(TEXTS), first)
    assert list(classifier.fit(TEXTS, [0, 1, 2, 3] * 4).classes_) == [0, 1, 2, 3]


def test_in_a_pipeline(make: Make) -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = Pipeline([("lower", lower), ("classifier", make(epochs=10))]).fit([t.upper() for t in TEXTS], LABELS)
    assert pipeline.score(TEXTS, LABELS) == 1.0
    assert pipeline.set_params(classifier__rank=2).get_params()["classifier__rank"] == 2


def test_cross_val_score(make: Make) -> None:
    scores = cross_val_score(make(epochs=4), TEXTS, LABELS, cv=2)
    assert scores.shape == (2,)
    assert ((scores >= 0) & (scores <= 1)).all()
    losses = cross_val_score(make(), np.array(TEXTS), np.array(LABELS), cv=2, scoring="neg_log_loss")
    assert (losses < 0).all()


def test_grid_search(make: Make) -> None:
    search = GridSearchCV(make(), {"rank": [1, 2], "learning_rate": [1e-2]}, cv=2).fit(TEXTS, LABELS)
    assert search.best_params_["rank"] in (1, 2)
    assert search.best_estimator_.recipe_.rank == search.best_params_["rank"]
    assert set(search.predict(TEXTS)) <= {"good", "bad"}


# Labels and probabilities


LABEL_KINDS: dict[str, tuple[Any, Any]] = {
    "text": ("bad", "good"),
    "whole numbers": (-1, 7),
    "booleans": (False, True),
    "fractions": (0.5, 1.25),
}


CONTAINERS: list[Callable[..., Any]] = [list, np.array, pd.Series, lambda y: pd.Series(y, dtype=object)]


# Each kind in two containers, and each container with two kinds.
@pytest.mark.parametrize(
    ("kind", "container"), [(kind, CONTAINERS[(i + j) % 4]) for i, kind in enumerate(LABEL_KINDS) for j in range(2)]
)
def test_labels_come_back_in_their_type(make: Make, tmp_path: Path, kind: str, container: Callable[..., Any]) -> None:
    values = LABEL_KINDS[kind]
    classifier = make(epochs=10).fit(TEXTS, container([values[1]] * len(GOOD) + [values[0]] * len(BAD)))
    classifier.save(tmp_path / "run")
    for one in (classifier, LoraClassifier.load(tmp_path / "run")):
        predicted = one.predict(TEXTS)
        assert one.classes_.tolist() == list(values)
        assert predicted.dtype == one.classes_.dtype == np.array(values).dtype
        assert predicted.tolist() == [values[1]] * len(GOOD) + [values[0]] * len(BAD)
        assert {type(label) for label in predicted.tolist()} == {type(values[0])}


def test_typed_labels() -> None:
    assert typed_labels(["10", "-2"], "i").tolist() == [10, -2]
    assert typed_labels(["0.1", "1e-05"], "f").tolist() == [0.1, 1e-05]
    assert typed_labels(["False", "True"], "b").tolist() == [False, True]
    assert typed_labels(["1", "True"], "U").tolist() == ["1", "True"]


def test_whole_numbers_are_ordered_as_numbers(make: Make) -> None:
    assert make().fit(TEXTS[:9], [10, 9, 100] * 3).classes_.tolist() == [9, 10, 100]


def test_probabilities_have_a_column_a_class(fitted: LoraClassifier) -> None:
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.shape == (len(TEXTS), 2)
    assert probabilities.dtype == np.float64
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(TEXTS)))
    assert fitted.classes_.tolist() == ["bad", "good"]
    assert fitted.classes_[probabilities.argmax(axis=1)].tolist() == fitted.predict(TEXTS).tolist() == LABELS


def test_no_texts_give_no_rows(fitted: LoraClassifier) -> None:
    assert fitted.predict([]).shape == (0,)
    assert fitted.predict_proba([]).shape == (0, 2)


def test_a_texts_neighbours_do_not_matter(fitted: LoraClassifier) -> None:
    together = fitted.predict_proba(TEXTS)
    alone = np.concatenate([fitted.predict_proba([text]) for text in TEXTS])
    assert together == pytest.approx(alone, abs=1e-6)


# Kinds of input


@pytest.mark.parametrize(
    "container",
    [tuple, np.array, pd.Series, lambda t: np.array(t, dtype=object), lambda t: np.array(t)[:, None], pd.DataFrame],
    ids=["tuple", "array", "series", "objects", "column", "frame"],
)
def test_containers_of_texts(fitted: LoraClassifier, container: Callable[..., Any]) -> None:
    assert np.array_equal(fitted.predict_proba(container(TEXTS)), fitted.predict_proba(TEXTS))


def test_pairs(make: Make, tmp_path: Path) -> None:
    pairs = [(a, b) for a in (GOOD[0], BAD[0]) for b in (GOOD[1], BAD[1])]
    agree = [True, False, False, True]
    classifier = make(epochs=60, targets=("all-linear",)).fit(pairs, agree)
    probabilities = classifier.predict_proba(pairs)
    assert classifier.predict(pairs).tolist() == agree
    assert not np.allclose(probabilities, classifier.predict_proba([(b, b) for _, b in pairs]))
    classifier.save(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["pairs"] is True
    assert np.array_equal(LoraClassifier.load(tmp_path / "run").predict_proba(pairs), probabilities)
    short = make(max_steps=1).fit(pairs, agree).predict_proba(pairs)
    for container in (np.array, pd.DataFrame):
        assert np.array_equal(classifier.predict_proba(container(pairs)), probabilities)
        assert np.array_equal(make(max_steps=1).fit(container(pairs), agree).predict_proba(pairs), short)


def test_validation_chooses_the_adapter(make: Make) -> None:
    wrong = ["bad"] * len(GOOD) + ["good"] * len(BAD)
    classifier = make(epochs=6).fit(TEXTS, LABELS, validation=(TEXTS, wrong))
    accuracies = [line["accuracy"] for line in classifier.history_]
    assert accuracies[-1] < max(accuracies)
    assert classifier.score(TEXTS, wrong) == max(accuracies)
    assert make(epochs=6).fit(TEXTS, LABELS).score(TEXTS, wrong) == accuracies[-1]  # the last one


def test_validation_takes_series_and_whole_numbers(make: Make) -> None:
    ids = pd.Series([1] * len(GOOD) + [0] * len(BAD))
    classifier = make(epochs=2).fit(pd.Series(TEXTS), ids, validation=(pd.Series(TEXTS), ids))
    assert all(line["accuracy"] is not None for line in classifier.history_)


def test_rows_are_held_out_for_validation_and_progress_is_shown(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"{text}, {i}" for i in range(20) for text in TEXTS]
    classifier = make(batch_size=64).fit(texts, LABELS * 20, verbose=1)
    shown = capsys.readouterr()
    assert classifier.calibration_.rows == 32  # two of the 20 of each text
    assert "epoch 1  train loss" in shown.err
    assert "accuracy" in shown.err
    assert (shown.out, make().fit(TEXTS, LABELS).calibration_.rows, capsys.readouterr().err) == ("", 0, "")
    with pytest.raises(RecipeError, match=r"early_stopping_patience: .* give validation=\(texts, labels\) to fit"):
        make(early_stopping_patience=1).fit(TEXTS, LABELS)


# Refused


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (TEXTS, ["good"] * len(TEXTS), "y: got 1 class, expected at least 2"),
        ([], [], "y: got 0 class"),
        (TEXTS, LABELS[:-1], "X has 16 texts and y 15 labels"),
        ("a joy", LABELS, "X: got a single string, expected a list of texts"),
        (["a joy", 3], ["good", "bad"], "X: row 1 holds a value of type int, expected a text"),
        (["a joy", ["b"]], ["good", "bad"], "X: row 1 holds a value of type list, expected a text"),
        (["a joy", None], ["good", "bad"], "X: row 1 has no text; leave such rows out"),
        (pd.Series(["a joy", float("nan")]), ["good", "bad"], "X: row 1 has no text"),
        (pd.Series(["a joy", pd.NA], dtype="string"), ["good", "bad"], "X: row 1 has no text"),
        ([("a", "b"), ("c", 3)], ["good", "bad"], "X: row 1 holds a value of type int, expected a text"),
        ([("a", "b", "c")] * 2, ["good", "bad"], r"X: got shape \(2, 3\), expected"),
        (["a", "b"], np.array([["good"], ["bad"]]), r"y: got shape \(2, 1\), expected \(N,\) labels"),
        (["a", "b"], [["good"], ["bad"]], "y: row 0 holds a list, expected one label a row"),
        (["a", "b"], pd.Series([["good"], ["good", "bad"]]), "y: row 0 holds a list, expected one label a row"),
        (["a", "b", "c"], [["good"], ["good", "bad"], []], "y: row 0 holds a list"),
        (["a", "b", "c"], ["good", "bad", pd.NA], "y: row 2 has no label; leave such rows out"),
        (["a", "b", "c"], pd.Series([0, 1, None], dtype="Int64"), "y: row 2 has no label"),
        (["a", "b", "c"], pd.Series(["good", "bad", None], dtype="category"), "y: row 2 has no label"),
        (["a", "b"], pd.to_datetime(pd.Series(["2026-01-01", None])).astype(object), "y: row 1 has no label"),
        (["a", "b", "c"], ["good", 1, 2.5], r"y: got labels of types str \(row 0\), number \(row 1\), expected one"),
        (["a", "b"], [True, 1], r"y: got labels of types bool \(row 0\), number \(row 1\)"),
        (["a", "b", "c"], ["good", "bad", None], "y: row 2 has no label"),
        (["a", "b", "c"], [0.0, 1.0, float("nan")], "y: row 2 has no label"),
        (["a", "b"], pd.Series(["good", 1], dtype=object), r"y: got labels of types str \(row 0\), number \(row 1\)"),
    ],
)
def test_fit_refuses(make: Make, texts: Any, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make().fit(texts, labels)


def test_predict_refuses(fitted: LoraClassifier) -> None:
    with pytest.raises(DataError, match="got a single string"):
        fitted.predict("a joy")
    with pytest.raises(InputError, match="X: row 0 holds a value of type int"):
        fitted.predict_proba([5])


def test_validation_refuses(make: Make) -> None:
    with pytest.raises(DataError, match="validation: label 'fine' is not among the labels of y"):
        make().fit(TEXTS, LABELS, validation=(["x"], ["fine"]))
    with pytest.raises(DataError, match="X has 2 texts and y 1 labels"):
        make().fit(TEXTS, LABELS, validation=(["x", "y"], ["good"]))
    with pytest.raises(DataError, match="validation: row 0 has no label"):
        make().fit(TEXTS, LABELS, validation=(["x"], [pd.NA]))


# Saved and loaded


def test_load_gives_identical_probabilities(fitted: LoraClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "run")
    loaded = LoraClassifier.load(str(tmp_path / "run"))
    assert np.array_equal(loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    assert loaded.recipe_ == fitted.recipe_
    assert loaded.classes_.tolist() == fitted.classes_.tolist()
    assert loaded.score(TEXTS, LABELS) == 1.0
    assert Run.load(tmp_path / "run").manifest.labels == ["bad", "good"]


def test_a_loaded_one_saves_again(fitted: LoraClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "first")
    LoraClassifier.load(tmp_path / "first").save(tmp_path / "second")
    again = LoraClassifier.load(tmp_path / "second")
    assert np.array_equal(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    first, second = (tmp_path / name for name in ("first", "second"))
    assert (second / "history.jsonl").read_text() == (first / "history.jsonl").read_text()
    manifests = [read_manifest(run) for run in (first, second)]
    for manifest in manifests:
        del manifest.files["metrics.json"]  # it names its folder
    assert manifests[0] == manifests[1]


def test_a_loaded_one_keeps_its_history(fitted: LoraClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "run")
    assert LoraClassifier.load(tmp_path / "run").history_ == fitted.history_


def test_an_adapter_that_peft_trained_predicts_and_is_not_saved_as_a_run(
    fitted: LoraClassifier, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "run")
    loaded = LoraClassifier.load(tmp_path / "run" / "adapter")
    assert loaded.predict_proba(TEXTS) == pytest.approx(fitted.predict_proba(TEXTS), abs=1e-6)
    with pytest.raises(OutputError, match="copy its folder"):
        loaded.save(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_shown_names_and_own_labels(make: Make, tmp_path: Path) -> None:
    classifier = make(label_names=("Negative", "Positive")).fit(TEXTS, [1] * len(GOOD) + [0] * len(BAD))
    classifier.save(tmp_path / "run")
    assert Run.load(tmp_path / "run").manifest.labels == ["Negative", "Positive"]
    assert LoraClassifier.load(tmp_path / "run").classes_.tolist() == [0, 1]


def test_save_replaces_a_run_with_all_that_belongs_to_it(make: Make, fitted: LoraClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "run")
    (tmp_path / "run" / "probe.safetensors").write_bytes(b"of the run before")
    make().fit(TEXTS, [0, 1, 2, 3] * 4).save(tmp_path / "run")
    run = Run.load(tmp_path / "run")
    assert run.manifest.labels == ["0", "1", "2", "3"]
    assert run.rivals.probe is not None
    assert len(run.rivals.probe.regression.bias) == 4


def test_a_full_disk_keeps_the_run_that_was_there(
    make: Make, fitted: LoraClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fitted.save(tmp_path / "run")
    monkeypatch.setattr("bertlora.model.adapted.Adapted.save", full)
    with pytest.raises(OutputError, match=r"/run: cannot be written \(No space left on device\); nothing was kept"):
        make().fit(TEXTS, LABELS).save(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    loaded = LoraClassifier.load(tmp_path / "run")
    assert np.array_equal(loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS))


def test_the_record_names_the_run_it_lies_in(fitted: LoraClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "first")
    LoraClassifier.load(tmp_path / "first").save(tmp_path / "second")
    for name in ("first", "second"):
        assert Run.load(tmp_path / name).metrics()["run"] == str(tmp_path / name)


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on a file's size")
@pytest.mark.parametrize("most_bytes", [1_000, 100_000], ids=["adapter does not fit", "tokenizer does not fit"])
def test_a_file_that_cannot_be_written_is_an_output_error(
    fitted: LoraClassifier, tmp_path: Path, most_bytes: int
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            fitted.save(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "run" / "run.json").exists()
    fitted.save(tmp_path / "whole")
    assert (tmp_path / "whole" / "run.json").exists()


def test_save_refuses_a_foreign_folder(fitted: LoraClassifier, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="holds something already"):
        fitted.save(tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        fitted.save(tmp_path / "letter.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    (tmp_path / "empty").mkdir()
    fitted.save(tmp_path / "empty")
    assert (tmp_path / "empty" / "run.json").is_file()


def test_load_refuses_what_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        LoraClassifier.load(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is not a run folder"):
        LoraClassifier.load(tmp_path)
