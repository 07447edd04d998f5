"""The run folder: written when training ends, and checked when it is loaded.

RUN/
  recipe.toml     every option as it was resolved
  adapter/        PEFT's layout, the tokenizer, README.md
  history.jsonl   one line an evaluation
  metrics.json    what `train --json` prints
  run.json        written last; no run.json: the run did not finish
"""

import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from bertlora.errors import ModelError, RunError
from bertlora.files import write_whole, writing
from bertlora.model.adapted import Adapted, adapter_classes, is_adapter, read_adapter_config
from bertlora.model.base import Base, find_base, longest_input
from bertlora.model.predict import Reader
from bertlora.recipe import Recipe

FORMAT_VERSION = 1
MANIFEST = "run.json"
VERSIONS = ("bertlora", "torch", "transformers", "peft", "tokenizers", "numpy")


@dataclass(frozen=True)
class Manifest:
    """run.json: all that must come back by itself.

    Attributes:
        labels: names in the order of the logits.
        source_labels: the same labels as the data have them.
        max_length: longest input in tokens.
        truncation: `right`, `left` or `head-tail`.
        pairs: whether it classifies pairs of texts.
        base: the base model's id, revision and SHA-256 of its weights.
        seed: draws the untrained head that the base alone answers with.
        data: fingerprint and folder of the prepared data.
        versions: of the libraries it was trained with.
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
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Probe:
    """A linear probe: softmax regression on what the frozen encoder makes of a text.

    Attributes:
        weight: (K, F), on standardised features folded in.
        bias: (K,).
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]

    def logits(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Returns (B, K) for features (B, F)."""
        return np.asarray(features @ self.weight.T + self.bias)


@dataclass
class Run:
    """A finished run, or an adapter of PEFT's, loaded and ready to predict."""

    path: Path
    manifest: Manifest
    adapted: Adapted
    probe: Probe | None = None

    @classmethod
    def load(cls, path: Path | str, model: str = "") -> "Run":
        """Loads a run folder, or a folder with an adapter that PEFT saved.

        Args:
            path: the folder.
            model: where the base lies now, if not where it was; its weights must be the same.

        Raises:
            RunError: the run is unfinished, of a newer format, damaged, or the base is another than it was trained on.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"{path}: no such run folder; 'bertlora train DATA --out {path}' makes one")
        if not (path / MANIFEST).is_file() and is_adapter(path):
            return cls._of_peft(path, model)
        manifest = read_manifest(path)
        try:
            base = find_base(model or manifest.base["id"])
        except ModelError as error:
            if model:
                raise
            raise RunError(f"{path}: its base is not at hand ({error}); name it by --model") from error
        if base.sha256() != manifest.base["sha256"]:
            raise RunError(
                f"{path}: was trained on {manifest.base['id']} with SHA-256 {manifest.base['sha256'][:12]}..., but "
                f"{base.folder} has {base.sha256()[:12] or 'no weights'}...; name the right base by --model"
            )
        reader = Reader.of(base.tokenizer(), manifest.max_length, manifest.truncation)
        adapted = Adapted.load(path / "adapter", base, manifest.labels, reader, manifest.seed)
        return cls(path, manifest, adapted, _read_probe(path))

    def metrics(self) -> dict[str, Any]:
        """Returns metrics.json, what training measured; empty for an adapter that PEFT trained."""
        file = self.path / "metrics.json"
        table: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return table

    @classmethod
    def _of_peft(cls, path: Path, model: str) -> "Run":
        """Loads an adapter that PEFT saved: labels, length and truncation come from its tokenizer and the base."""
        config = read_adapter_config(path)
        base = find_base(model or str(config.base_model_name_or_path))
        classes = adapter_classes(path)
        named = base.config().id2label
        labels = (
            [str(named[i]) for i in range(classes)] if len(named) == classes else [f"LABEL_{i}" for i in range(classes)]
        )
        own = (path / "tokenizer_config.json").is_file()
        tokenizer = Base(base.id, path if own else base.folder).tokenizer()
        longest = min(int(tokenizer.model_max_length), longest_input(base.config()))
        manifest = Manifest(labels, labels, longest, tokenizer.truncation_side, False, _identity(base), seed=42)
        reader = Reader.of(tokenizer, longest, tokenizer.truncation_side)
        return cls(path, manifest, Adapted.load(path, base, labels, reader, manifest.seed))


def save_run(
    path: Path,
    adapted: Adapted,
    recipe: Recipe,
    metrics: dict[str, Any],
    *,
    source_labels: list[str] | None = None,
    pairs: bool = False,
    label_kind: str = "U",
    data: dict[str, str] | None = None,
    probe: Probe | None = None,
) -> Manifest:
    """Writes a run folder, run.json last.

    Args:
        path: the folder; what is there under the same names is replaced.
        adapted: the trained model.
        recipe: as it was resolved.
        metrics: what `train --json` prints; its `epochs` become history.jsonl.
        source_labels: the labels as the data have them, where they are shown under other names.
        pairs: whether it classifies pairs.
        label_kind: numpy's kind of the labels as they were given.
        data: fingerprint and folder of the data.
        probe: the linear probe fitted on the same training rows.

    Raises:
        OutputError: something cannot be written; then there is no run.json.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        (path / MANIFEST).unlink(missing_ok=True)
        (path / "probe.safetensors").unlink(missing_ok=True)
        adapted.save(path / "adapter")
        if probe is not None:
            (path / "probe.safetensors").write_bytes(save({"weight": probe.weight, "bias": probe.bias}))
    framing = adapted.reader.framing
    manifest = Manifest(
        labels=adapted.labels,
        source_labels=source_labels or adapted.labels,
        max_length=framing.max_length,
        truncation=framing.truncation,
        pairs=pairs,
        base=_identity(adapted.base),
        seed=recipe.seed,
        data=data or {},
        versions=versions(),
        label_kind=label_kind,
    )
    write_whole(path / "adapter" / "README.md", _card(manifest, recipe, metrics))
    write_whole(path / "recipe.toml", recipe.to_toml())
    write_whole(path / "history.jsonl", "".join(json.dumps(line) + "\n" for line in metrics["epochs"]))
    write_whole(path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_whole(path / MANIFEST, json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n")
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Returns the manifest of a finished run.

    Raises:
        RunError: the run is unfinished, of a newer format, or no run at all.
    """
    if not (path / MANIFEST).is_file():
        if (path / "recipe.toml").is_file():
            raise RunError(f"{path}: the run did not finish; continue it by 'bertlora train ... --out {path} --resume'")
        raise RunError(
            f"{path}: is no run folder (no {MANIFEST}) and no PEFT adapter; name the folder given to train --out"
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
    """Returns the manifest, or raises ValueError where a value is not of its kind."""
    m = manifest
    lists = all(isinstance(names, list) and len(names) > 1 for names in (m.labels, m.source_labels))
    based = isinstance(m.base, dict) and {"id", "revision", "sha256"} <= m.base.keys()
    numbers = isinstance(m.max_length, int) and isinstance(m.seed, int)
    if not (lists and based and numbers and m.truncation in ("right", "left", "head-tail")):
        raise ValueError("a value is not of its kind")
    return manifest


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that decide the result."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in VERSIONS}


def _identity(base: Base) -> dict[str, str]:
    return {"id": base.id, "revision": base.revision, "sha256": base.sha256()}


def _read_probe(path: Path) -> Probe | None:
    file = path / "probe.safetensors"
    if not file.is_file():
        return None
    try:
        tensors = load_file(file)
    except Exception as error:  # safetensors raises its own type, which it does not export
        raise RunError(f"{file}: cannot be read ({error}); the run is damaged") from error
    return Probe(tensors["weight"], tensors["bias"])


def _card(manifest: Manifest, recipe: Recipe, metrics: dict[str, Any]) -> str:
    """Returns the adapter's README: what it is, on what, and what was measured."""
    validation = metrics.get("validation") or {}
    accuracy = validation.get("accuracy")
    judged = "no validation texts were given" if accuracy is None else f"validation accuracy {accuracy:.4f}"
    return f"""---
base_model: {"sentence-transformers/all-MiniLM-L6-v2" if manifest.base["id"] == "minilm" else manifest.base["id"]}
library_name: peft
pipeline_tag: text-classification
tags: [lora, text-classification, bertlora]
---

A LoRA adapter for text classification, trained with bertlora {manifest.versions["bertlora"]}.

- labels, in the order of the logits: {", ".join(manifest.labels)}
- input: at most {manifest.max_length} tokens, truncation {manifest.truncation}
- LoRA: rank {recipe.rank}, alpha {recipe.alpha:g}, variant {recipe.variant}, on {", ".join(recipe.targets)}
- base weights: SHA-256 {manifest.base["sha256"]}
- trained on {metrics["train"]["examples"]} examples in {metrics["train"]["seconds"]:.0f} s; {judged}

```python
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

base = AutoModelForSequenceClassification.from_pretrained("BASE", num_labels={len(manifest.labels)})
model = PeftModel.from_pretrained(base, "THIS FOLDER")
```
"""
