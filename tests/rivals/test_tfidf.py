"""TF-IDF: scikit-learn's weights, whole texts, and a model that comes back from its file."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from bertlora.confidence.probabilities import softmax
from bertlora.errors import RunError
from bertlora.rivals import tfidf as module
from bertlora.rivals.regression import Regression
from bertlora.rivals.tfidf import Tfidf, fit_tfidf

pytestmark = pytest.mark.usefixtures("every_strength")

GOOD = ["a fine film", "a fine, warm film", "fine acting and a warm story", "warm and fine"]
BAD = ["a dull film", "a dull, cold film", "dull acting and a cold story", "cold and dull"]
TEXTS, LABELS = GOOD + BAD, np.array([1] * 4 + [0] * 4)


def fitted(texts: list[str], labels: np.ndarray = LABELS, pairs: list[str] | None = None) -> Tfidf:
    found = fit_tfidf(texts, pairs, labels, 2, seed=0)
    assert found is not None
    return found


def test_words_and_pairs_of_words_equal_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CHARACTERS", 0)
    found = fitted(TEXTS)
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    theirs = LogisticRegression(C=found.regression.strength).fit(vectoriser.fit_transform(TEXTS), LABELS)
    assert not found.characters
    assert found.terms == vectoriser.get_feature_names_out().tolist()
    new = ["A FINE, dull film", "nothing known"]
    # So few rows give no temperature.
    assert softmax(found.logits(new)) == pytest.approx(theirs.predict_proba(vectoriser.transform(new)), abs=1e-3)


def test_parts_of_words_count_as_often_as_the_word() -> None:
    texts = ["warm, warm rain", "a warmer rain, and a warm one", "", "!"]
    vectoriser = TfidfVectorizer(analyzer=module._with_parts, sublinear_tf=True).fit(texts)
    terms = vectoriser.get_feature_names_out().tolist()
    direction = np.random.default_rng(0).normal(size=(len(terms), 2))
    found = Tfidf(terms, vectoriser.idf_, Regression(direction.T, np.zeros(2), 1.0, 0.1), True)
    assert found.logits(texts) == pytest.approx(vectoriser.transform(texts) @ direction)
    assert found.logits(["!", ""]) == pytest.approx(np.zeros((2, 2)))


def test_it_comes_back_from_its_file_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    found = fitted(TEXTS)
    assert Tfidf.load(tmp_path) is None
    found.save(tmp_path)
    again = Tfidf.load(tmp_path)
    assert again is not None
    assert again.logits(TEXTS) == pytest.approx(found.logits(TEXTS), abs=1e-6)
    file = tmp_path / module.FILE
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"tfidf\.safetensors: cannot be read"):
        Tfidf.load(tmp_path)


def test_parts_of_words_are_read_where_they_help() -> None:
    """Each text has a word of its own, but its ending tells the class."""
    random = np.random.default_rng(0)
    stems = ["".join(random.choice(list("bcdfgklmnprst"), 6)) for _ in range(240)]
    labels = np.arange(240) % 2
    texts = [f"the {stem}{'ous' if label else 'ity'}" for stem, label in zip(stems, labels, strict=True)]
    found = fitted(texts[:200], labels[:200])
    assert found.characters
    assert (found.logits(texts[200:]).argmax(axis=1) == labels[200:]).mean() > 0.95


def test_the_second_text_and_the_end_of_a_long_text_are_read() -> None:
    filler = ["it has a plot and a cast"] * 8
    for texts, pairs in ((filler, TEXTS), ([f"{'and so on ' * 300}{text}" for text in TEXTS], None)):
        found = fitted(texts, pairs=pairs)
        assert (found.logits(texts, pairs).argmax(axis=1) == LABELS).all()


def test_there_is_no_model_without_two_classes_or_without_words() -> None:
    assert fit_tfidf(TEXTS, None, np.zeros(8, np.int64), 2, seed=0) is None
    assert fit_tfidf([":-)", ":-("] * 4, None, LABELS, 2, seed=0) is None
