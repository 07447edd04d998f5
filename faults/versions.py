"""Adapters in two versions whose answers are known: an answer that was crossed with another one shows."""

import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from conftest import tiny_model
from helpers import adapted_of, randomise, save_tiny_run

from bertlora.confidence.probabilities import Array
from bertlora.run.loaded import Run

NAMES = ("x", "y", "z")
# An answer is right within this; the answers of two texts differ by ten times as much at least.
CLOSE = 1e-5
LONGEST = 60  # words


@dataclass(frozen=True)
class Known:
    """Runs in a folder, each in two versions, and texts with what each run says of them.

    Attributes:
        folder: has the runs `x0`, `x1`, `y0`, ...; the names of their labels begin with the run's name.
        texts: the texts.
        expected: run → (texts, K) probabilities.
    """

    folder: Path
    texts: list[str]
    expected: Mapping[str, Array]

    @classmethod
    def make(cls, folder: Path, count: int, seed: int = 0) -> "Known":
        """Writes the base and the runs, and computes the answers."""
        (folder / "base").mkdir()
        base, runs = tiny_model("bert", folder / "base"), folder / "runs"
        for i, name in enumerate(NAMES):
            for version in (0, 1):
                adapted = adapted_of(base, [f"{name}{version}-{k}" for k in range(3 + i)])
                randomise(adapted.model, seed=2 * i + version)
                save_tiny_run(runs / f"{name}{version}", adapted)
        draw, found = random.Random(seed), {path.name: Run.load(path) for path in sorted(runs.iterdir())}
        words = [word for word in found["x0"].model.reader.tokenizer.pieces() if word.isalpha()]
        lengths = [1 + int(LONGEST * draw.random() ** 3) for _ in range(count)]
        texts = [" ".join(draw.choices(words, k=length)) for length in lengths]
        answers = {name: run.predict_proba(texts) for name, run in found.items()}
        kept = [i for i in range(count) if all(_alone(rows, i) for rows in answers.values())]
        return cls(runs, [texts[i] for i in kept], {name: rows[kept] for name, rows in answers.items()})

    def wrong(self, adapter: str, texts: Sequence[int], labels: Sequence[str], rows: Sequence[Sequence[float]]) -> bool:
        """Returns whether an answer is not that of one version of an adapter for these texts.

        Args:
            adapter: the name that was asked.
            texts: numbers of the texts.
            labels: the labels in the order of the columns.
            rows: the probabilities that came.
        """
        version = labels[0].partition("-")[0]
        right = self.expected.get(version)
        if right is None or version[:-1] != adapter or len(rows) != len(texts):
            return True
        order = [int(label.partition("-")[2]) for label in labels]
        return not np.allclose(np.array(rows), right[list(texts)][:, order], rtol=0, atol=CLOSE)


def _alone(rows: Array, i: int) -> bool:
    """Returns whether the answer to a text differs from those to all texts before it."""
    return not i or float(np.abs(rows[:i] - rows[i]).max(1).min()) > 10 * CLOSE
