"""What a run folder says about its run: run.json, and hashes of the texts that the run has met.

run.json is also the sign that a run is whole: it is written last, and has the SHA-256 of the other files. Evaluation
uses the hashes of texts: it says if its rows are not new to the run.

Letters: N rows.
"""

import importlib.metadata
import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from bertlora.confidence.calibration import reading
from bertlora.data.words import text_hash
from bertlora.errors import RunError
from bertlora.files import sync, write_whole, writing
from bertlora.hashes import RUN_MANIFEST, hashes_of, is_part, opened, sealed
from bertlora.task import CLASSIFICATION, MULTILABEL, REGRESSION, TASKS

FORMAT_VERSION = 2  # 1: without hashes of the files
MANIFEST, SEEN = RUN_MANIFEST, "seen.safetensors"
RECIPE = "recipe.toml"  # the first file of a run that trains
VERSIONS = ("bertlora", "torch", "transformers", "peft", "tokenizers", "numpy")

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Manifest:
    """run.json: all that must be restored on load.

    Attributes:
        labels: names in the order of the logits; the name of the number in a regression.
        source_labels: the same labels as the data has them.
        max_length: longest input in tokens.
        truncation: `right`, `left` or `head-tail`.
        long_texts: `truncate` or `windows`.
        temperature: logits are divided by it before softmax; `Calibration` uses it.
        pairs: whether it classifies pairs of texts.
        base: the base model's id, revision and SHA-256 of its weights.
        seed: draws the untrained head with which the base answers.
        data: fingerprint and folder of the prepared data.
        versions: of the libraries in training.
        label_kind: numpy's kind of the labels given to `LoraClassifier.fit`; U for text.
        task: what it predicts.
        target_mean: mean of the training targets of a regression. Without validation rows, only this file has it.
        target_scale: their standard deviation.
        temperatures: (K,) of a run whose texts may have several labels; `Thresholds` uses them. Else empty.
        thresholds: (K,) the probability from which on a text has a label. Else empty.
        files: SHA-256 of the other files of the folder, by name. Empty in runs of older versions.
    """

    labels: list[str]
    source_labels: list[str]
    max_length: int
    truncation: str
    pairs: bool
    base: dict[str, str]
    seed: int
    data: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    label_kind: str = "U"
    long_texts: str = "truncate"
    temperature: float = 1.0
    task: str = CLASSIFICATION
    target_mean: float = 0.0
    target_scale: float = 1.0
    temperatures: list[float] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Returns the file's text."""
        return sealed(asdict(self))

    def write(self, folder: Path, names: Iterable[str]) -> "Manifest":
        """Writes it to a folder as the sign that these files are whole, and returns it with their hashes.

        Raises:
            OutputError: it cannot be written.
        """
        names = list(names)
        with writing(folder):
            for name in names:
                sync(folder / name)
            whole = replace(self, files=hashes_of(folder, names))
        write_whole(folder / MANIFEST, whole.to_json())
        return whole


def read_manifest(path: Path) -> Manifest:
    """Returns the manifest of a finished run.

    Raises:
        RunError: the run is unfinished or of a newer format, or the folder holds no run.
    """
    if not (path / MANIFEST).is_file():
        if (path / RECIPE).is_file():
            raise RunError(f"{path}: the run did not finish; continue it by 'bertlora train ... --out {path} --resume'")
        raise RunError(
            f"{path}: is not a run folder (no {MANIFEST}) and not a PEFT adapter; name the folder given to train --out"
        )
    try:
        table = opened((path / MANIFEST).read_text(encoding="utf-8"))
        version = table["format_version"]
        if version > FORMAT_VERSION:
            raise RunError(
                f"{path}: format {version} is newer than this bertlora reads ({FORMAT_VERSION}); upgrade bertlora"
            )
        return _checked(Manifest(**table))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path / MANIFEST}: cannot be read ({error}); the run is damaged") from error


def _checked(manifest: Manifest) -> Manifest:
    """Returns the manifest, or raises ValueError if a value has the wrong type or range."""
    m = manifest
    fewest = 1 if m.task == REGRESSION else 2
    lists = all(isinstance(names, list) and len(names) >= fewest for names in (m.labels, m.source_labels))
    based = isinstance(m.base, dict) and {"id", "revision", "sha256"} <= m.base.keys()
    numbers = isinstance(m.max_length, int) and isinstance(m.seed, int)
    reads = m.truncation in ("right", "left", "head-tail") and m.long_texts in ("truncate", "windows")
    numbers = numbers and isinstance(m.temperature, int | float) and 0 < m.temperature < math.inf
    numbers = numbers and all(isinstance(x, int | float) and math.isfinite(x) for x in (m.target_mean, m.target_scale))
    chosen = m.temperatures, m.thresholds
    if m.task == MULTILABEL:
        numbers = numbers and all(len(each) == len(m.labels) and all(0 < x < math.inf for x in each) for each in chosen)
    covers = isinstance(m.files, dict)
    if not (lists and based and numbers and reads and covers and m.task in TASKS):
        raise ValueError("a value has the wrong type or range")
    return manifest


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries on which results depend."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in VERSIONS}


@dataclass(frozen=True)
class Seen:
    """Hashes of the texts of a run; a text of any other case or punctuation counts as another text.

    Attributes:
        train: sorted hashes of the texts that it was trained on.
        validation: of the texts on which its epoch and its calibration were chosen.
    """

    train: Hashes
    validation: Hashes

    @classmethod
    def of(cls, **splits: tuple[Sequence[str], Sequence[str] | None]) -> "Seen":
        """Returns the hashes of texts and second texts, by split."""
        return cls(**{name: np.unique(hashes(*splits[name])) for name in ("train", "validation")})

    def save(self, run: Path) -> None:
        """Writes RUN/seen.safetensors, 8 bytes a text."""
        (run / SEEN).write_bytes(save({"train": self.train, "validation": self.validation}))

    @classmethod
    def load(cls, run: Path) -> "Seen | None":
        """Returns what a run has met, or None if its folder does not say.

        Raises:
            RunError: its file is damaged.
        """
        file = run / SEEN
        if not is_part(file):
            return None
        with reading(file):
            found = load_file(file)
            return cls(found["train"], found["validation"])


def hashes(texts: Sequence[str], pairs: Sequence[str] | None = None) -> Hashes:
    """Returns the hash of each text or pair, (N,)."""
    seconds: Iterable[str] = [""] * len(texts) if pairs is None else pairs
    return np.array([text_hash(text, pair) for text, pair in zip(texts, seconds, strict=True)], np.uint64)
