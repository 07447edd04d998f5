"""Which texts a run has met: hashes of its training and validation rows. An evaluation on such rows says so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from bertlora.data.words import text_hash
from bertlora.errors import RunError

FILE = "seen.safetensors"
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Seen:
    """Hashes of the texts of a run; a text of any other case or punctuation counts as another text.

    Attributes:
        train: sorted hashes of the texts that it was trained on.
        validation: of the texts on which its epoch and its temperature were chosen.
    """

    train: Hashes
    validation: Hashes

    @classmethod
    def of(cls, **splits: tuple[Sequence[str], Sequence[str] | None]) -> "Seen":
        """Returns the hashes of texts and second texts, by split."""
        return cls(**{name: np.unique(hashes(*splits[name])) for name in ("train", "validation")})

    def save(self, run: Path) -> None:
        """Writes RUN/seen.safetensors, 8 bytes a text."""
        (run / FILE).write_bytes(save({"train": self.train, "validation": self.validation}))

    @classmethod
    def load(cls, run: Path) -> "Seen | None":
        """Returns what a run has met, or None if its folder does not say.

        Raises:
            RunError: its file is damaged.
        """
        file = run / FILE
        if not file.is_file():
            return None
        try:
            found = load_file(file)
            return cls(found["train"], found["validation"])
        except (OSError, SafetensorError, KeyError) as error:
            raise RunError(f"{file}: cannot be read ({error}); the run is damaged") from error


def hashes(texts: Sequence[str], pairs: Sequence[str] | None = None) -> Hashes:
    """Returns the hash of each text or pair, (N,)."""
    seconds: Iterable[str] = [""] * len(texts) if pairs is None else pairs
    return np.array([text_hash(text, pair) for text, pair in zip(texts, seconds, strict=True)], np.uint64)
