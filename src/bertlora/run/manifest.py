"""run.json: what must be restored on load, and the sign that a run is whole."""

import importlib.metadata
import json
import math
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bertlora.errors import RunError

FORMAT_VERSION = 1
MANIFEST = "run.json"
VERSIONS = ("bertlora", "torch", "transformers", "peft", "tokenizers", "numpy")


@dataclass(frozen=True)
class Manifest:
    """run.json: all that must be restored on load.

    Attributes:
        labels: names in the order of the logits.
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
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Returns the file's text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Returns the manifest of a finished run.

    Raises:
        RunError: the run is unfinished or of a newer format, or the folder holds no run.
    """
    if not (path / MANIFEST).is_file():
        if (path / "recipe.toml").is_file():
            raise RunError(f"{path}: the run did not finish; continue it by 'bertlora train ... --out {path} --resume'")
        raise RunError(
            f"{path}: is not a run folder (no {MANIFEST}) and not a PEFT adapter; name the folder given to train --out"
        )
    try:
        table = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version = table["format_version"]
        if version > FORMAT_VERSION:
            raise RunError(
                f"{path}: format {version} is newer than this bertlora reads ({FORMAT_VERSION}); upgrade bertlora"
            )
        return _checked(Manifest(**table))
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path / MANIFEST}: cannot be read ({error}); the run is damaged") from error


def _checked(manifest: Manifest) -> Manifest:
    """Returns the manifest, or raises ValueError if a value has the wrong type or range."""
    m = manifest
    lists = all(isinstance(names, list) and len(names) > 1 for names in (m.labels, m.source_labels))
    based = isinstance(m.base, dict) and {"id", "revision", "sha256"} <= m.base.keys()
    numbers = isinstance(m.max_length, int) and isinstance(m.seed, int)
    reads = m.truncation in ("right", "left", "head-tail") and m.long_texts in ("truncate", "windows")
    numbers = numbers and isinstance(m.temperature, int | float) and 0 < m.temperature < math.inf
    if not (lists and based and numbers and reads):
        raise ValueError("a value has the wrong type or range")
    return manifest


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries on which results depend."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in VERSIONS}
