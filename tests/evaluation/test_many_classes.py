"""Many classes: time, memory and JSON grow with N K and not with K², and what people read has the worst first."""

import json
import time
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, top_k_accuracy_score
from sklearn.preprocessing import label_binarize

from bertlora.evaluation.choice import choose
from bertlora.evaluation.class_tables import class_rows, confusion_rows, confusion_sentence
from bertlora.evaluation.gains import score_gains
from bertlora.evaluation.metrics import classification_metrics
from bertlora.evaluation.scores import Confusion


def scored_rows(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K) that are right about half of the time, and the right classes; each class has rows if K <= N."""
    random = np.random.default_rng(seed)
    y_true = random.permutation(np.arange(rows) % classes)
    logits = random.normal(size=(rows, classes))
    logits[np.arange(rows), y_true] += 3.0
    return logits, y_true


def test_figures_of_4000_classes_need_no_table_of_classes_by_classes() -> None:
    rows, classes = 300, 4000
    logits, y_true = scored_rows(rows, classes)
    second = scored_rows(rows, classes, 1)[0].argmax(axis=1)
    tracemalloc.start()
    began = time.process_time()
    figures = classification_metrics(logits, y_true, [f"topic {k}" for k in range(classes)])
    score_gains(y_true, logits.argmax(axis=1), second, classes)
    choose(y_true, {"a": logits.argmax(axis=1), "b": second}, classes, "macro_f1")
    took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * classes**2 * 0.9  # a table of float64 has more
    assert took < 20
    assert figures["confusion"] is None
    assert len(json.dumps(figures)) < 150 * classes


def test_figures_of_20_classes_are_scikit_learns() -> None:
    logits, y_true = scored_rows(400, 20)
    logits = logits.round(1)  # so that some are equal
    figures = classification_metrics(logits, y_true, [str(k) for k in range(20)])
    odds = np.stack(
        [logits[:, k] - np.log(np.exp(np.delete(logits, k, axis=1)).sum(axis=1)) for k in range(20)], axis=1
    ).round(9)
    marked = label_binarize(y_true, classes=range(20))
    assert figures["roc_auc"] == pytest.approx(roc_auc_score(marked, odds, average="macro"), abs=1e-9)
    assert figures["average_precision"] == pytest.approx(average_precision_score(marked, odds), abs=1e-9)
    # scikit-learn puts the last of equal logits first, bertlora the first, as argmax does.
    for k in (3, 5):
        expected = top_k_accuracy_score(19 - y_true, logits[:, ::-1], k=k)
        assert figures[f"top_{k}_accuracy"] == pytest.approx(expected)
        low, high = figures[f"top_{k}_accuracy_ci95"]
        assert low < figures[f"top_{k}_accuracy"] < high
    assert figures["accuracy"] < figures["top_3_accuracy"] < figures["top_5_accuracy"]
    assert "top_3_accuracy" not in classification_metrics(logits[:, :9], y_true % 9, [str(k) for k in range(9)])


def test_tables_show_the_worst_first_and_count_the_rest() -> None:
    logits, y_true = scored_rows(600, 60)
    predicted, labels = logits.argmax(axis=1), [f"topic {k}" for k in range(61)]  # the last class has no rows
    figures = classification_metrics(np.eye(61)[predicted], y_true, labels)
    f1 = [float(row[3]) for row in class_rows(figures["per_class"])]
    assert f1[:-1] == sorted(f1[:-1])
    assert class_rows(figures["per_class"])[-1][0] == "topic 60"
    found = confusion_rows(figures)
    counts = [int(row[2]) for row in found]
    assert counts == sorted(counts, reverse=True)
    table = np.array(figures["confusion"])
    for true, name, count, share in found:
        i, j = labels.index(true), labels.index(name)
        assert (int(count), share) == (table[i, j], f"{100 * table[i, j] / table[i].sum():.1f} %")
    others = int((predicted != y_true).sum()) - sum(counts)
    assert figures["other_confusions"] == others
    assert f"{others:,} more wrong rows" in confusion_sentence(figures)
    whole = Confusion.of(y_true, predicted, 61)
    assert whole.hits.sum() + sum(counts) + others == len(y_true)
