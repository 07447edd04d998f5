"""TF-IDF with softmax or ridge regression: no encoder, and fitted in seconds. LoRA must beat it.

It reads whole texts, also what the encoder's maximum length cuts off.

Letters: N training rows, V terms, K classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from bertlora.confidence.calibration import reading
from bertlora.confidence.probabilities import Array, Labels
from bertlora.data.words import words_of
from bertlora.hashes import is_part
from bertlora.rivals.regression import MANY_CLASSES, Regression, Weights, fit_linear

FILE = "tfidf.safetensors"
STRENGTHS = tuple(10.0 ** (half / 2) for half in range(-2, 6))
MOST_TERMS = 100_000
# Terms times classes: they are in memory at once. A few thousand terms are kept in any case.
MOST_WEIGHTS, FEWEST_TERMS = 20_000_000, 5_000
# In more rows than this, a term of a single text says nothing about others.
ROWS_FOR_RARE_TERMS = 100
# Character terms are tried on no more text than this: they help where there are few texts. On SST-2's 67,349 phrases
# they take twice the time, and the log loss of held-out rows rises from 0.20 to 0.27.
MOST_CHARACTERS = 2_000_000
LENGTHS = (3, 4, 5)
# A term that is in a text n times counts 1 + log n.
SUBLINEAR = True


@dataclass(frozen=True)
class Tfidf:
    """A fitted TF-IDF model.

    Attributes:
        terms: the V terms: words, pairs of words, and perhaps parts of words.
        idf: (V,) inverse document frequencies.
        regression: softmax regression on the weighted terms.
        characters: whether parts of words are terms.
    """

    terms: list[str]
    idf: npt.NDArray[np.float64]
    regression: Regression
    characters: bool

    @property
    def reads(self) -> str:
        """What it reads, in words."""
        return f"words, pairs of words{' and parts of words' if self.characters else ''}: {len(self.terms):,} terms"

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Array:
        """Returns calibrated logits (B, K) of texts, or of pairs of texts."""
        from sklearn.feature_extraction.text import TfidfTransformer

        weighted = TfidfTransformer(sublinear_tf=SUBLINEAR)
        weighted.idf_ = self.idf
        return self.regression.logits(weighted.transform(self._counts(_joined(texts, pairs))))

    def _counts(self, texts: list[str]) -> Any:
        """Returns how often each term is in each text, (B, V); each distinct word is taken apart once."""
        from sklearn.feature_extraction.text import CountVectorizer

        counts = CountVectorizer(analyzer=_words, vocabulary=self.terms).transform(texts)
        if not self.characters:
            return counts
        every = CountVectorizer(analyzer=words_of)
        try:
            words = every.fit_transform(texts)
        except ValueError:  # there are none
            return counts
        parts = CountVectorizer(analyzer=_parts, vocabulary=self.terms)
        return counts + words @ parts.transform(every.get_feature_names_out())

    def save(self, run: Path) -> None:
        """Writes RUN/tfidf.safetensors."""
        tensors: dict[str, npt.NDArray[Any]] = {
            "terms": np.frombuffer("\n".join(self.terms).encode(), np.uint8),
            "idf": self.idf,
            "characters": np.array([self.characters]),
        }
        fitted = self.regression.tensors()
        (run / FILE).write_bytes(save(tensors | fitted | {"weight": fitted["weight"].astype(np.float32)}))

    @classmethod
    def load(cls, run: Path) -> "Tfidf | None":
        """Returns the TF-IDF model of a run folder, or None if the folder has none.

        Raises:
            RunError: its file is damaged.
        """
        file = run / FILE
        if not is_part(file):
            return None
        with reading(file):
            found = load_file(file)
            terms = found["terms"].tobytes().decode().split("\n")
            return cls(terms, found["idf"], Regression.of(found), bool(found["characters"][0]))


def fit_tfidf(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    y_true: Labels,
    classes: int,
    seed: int,
    characters: int | None = None,
    weights: Weights = None,
) -> Tfidf | None:
    """Fits TF-IDF with words and pairs of words, and with parts of words too where these help.

    Terms are weighted by 1 + log(frequency) times the inverse document frequency, and each row has length 1. Of more
    than 100,000 terms the most frequent are kept; with over 200 classes of 20 million / K, and 5,000 or more. Parts of
    words are tried up to 100 classes, and 2 million characters of all texts together.

    Args:
        texts: (N,) the training texts, whole.
        pairs: (N,) the second texts, or None.
        y_true: (N,) class of each row, 0..K-1; (N, K) which labels it has; or (N,) float64 numbers.
        classes: K; 1 for numbers.
        seed: the same seed gives the same model.
        characters: of all texts, where these are a sample of them; it decides whether parts of words are tried.
        weights: (N,) how much each row counts; see `fit_linear`.

    Returns:
        The model with the lower cross-validated log loss; None if there is a single class, or no term.
    """
    joined = _joined(texts, pairs)
    most = MOST_CHARACTERS if classes <= MANY_CLASSES else 0
    short = (sum(map(len, joined)) if characters is None else characters) <= most
    ways = (False, True) if short else (False,)
    found = [_fit(joined, y_true, classes, parts, seed, weights) for parts in ways]
    fitted = [model for model in found if model is not None]
    return min(fitted, key=lambda model: model.regression.loss, default=None)


def out_of_fold_tfidf(
    texts: Sequence[str], pairs: Sequence[str] | None, y_true: Labels, fold: Labels, classes: int, seed: int
) -> Array:
    """Returns calibrated logits (N, K); each row's come from a model that was fitted on the other folds.

    A fold whose other rows have a single class, or no term, gets logits of 0.

    Args:
        texts: (N,) the texts, whole.
        pairs: (N,) the second texts, or None.
        y_true: (N,) class of each row, 0..K-1.
        fold: (N,) fold of each row, from 0.
        classes: K.
        seed: the same seed gives the same logits.
    """
    joined, logits = _joined(texts, pairs), np.zeros((len(texts), classes))
    for k in range(int(fold.max()) + 1):
        learned, held_out = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        fitted = fit_tfidf([joined[i] for i in learned], None, y_true[learned], classes, seed)
        if fitted is not None:
            logits[held_out] = fitted.logits([joined[i] for i in held_out])
    return logits


def _fit(texts: list[str], y_true: Labels, classes: int, characters: bool, seed: int, weights: Weights) -> Tfidf | None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    rare = 2 if len(texts) > ROWS_FOR_RARE_TERMS else 1
    most = min(MOST_TERMS, max(MOST_WEIGHTS // classes, FEWEST_TERMS))
    terms = _with_parts if characters else _words
    vectoriser = TfidfVectorizer(analyzer=terms, sublinear_tf=SUBLINEAR, min_df=rare, max_features=most)
    try:
        features = vectoriser.fit_transform(texts)
    except ValueError:  # no term occurs often enough
        return None
    regression = fit_linear(features, y_true, classes, STRENGTHS, seed, weights)
    if regression is None:
        return None
    return Tfidf(vectoriser.get_feature_names_out().tolist(), vectoriser.idf_, regression, characters)


def _joined(texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    return list(texts) if pairs is None else [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)]


def _words(text: str) -> list[str]:
    """Returns the words and the pairs of neighbouring words of a text."""
    words = words_of(text)
    return [*words, *map(" ".join, pairwise(words))]


def _with_parts(text: str) -> list[str]:
    """Returns the words, their pairs, and the parts of words with 3 to 5 characters; a space marks a word's end."""
    return [*_words(text), *(part for word in words_of(text) for part in _parts(word))]


def _parts(word: str) -> Iterator[str]:
    edged = f" {word} "
    for length in LENGTHS:
        for start in range(len(edged) - length + 1):
            yield f"_{edged[start : start + length]}"
