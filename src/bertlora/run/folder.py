"""The run folder: written when training ends, and checked when it is loaded.

RUN/
  recipe.toml     every option as it was resolved
  adapter/        PEFT's layout, the tokenizer, README.md, a run.json of its own
  history.jsonl   one line an evaluation
  metrics.json    what `train --json` prints
  probe.safetensors
  calibration.json  validation.safetensors    the temperature, and the validation logits that it was fitted on
  report.html
  run.json        written last; no run.json: the run did not finish
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertlora.data.folder import is_prepared
from bertlora.errors import ModelError, RunError
from bertlora.files import write_whole, writing
from bertlora.model.adapted import Adapted, adapter_classes, is_adapter, read_adapter_config
from bertlora.model.base import Base, find_base, longest_input
from bertlora.model.predict import Reader
from bertlora.recipe import Recipe
from bertlora.run.calibration import FILES as CALIBRATION_FILES
from bertlora.run.calibration import Calibration
from bertlora.run.card import model_card
from bertlora.run.manifest import MANIFEST, Manifest, read_manifest, versions
from bertlora.run.probe import FILE as PROBE_FILE
from bertlora.run.probe import Probe

REPORT = "report.html"


@dataclass
class Run:
    """A finished run, or an adapter of PEFT's, loaded and ready to predict."""

    path: Path
    manifest: Manifest
    adapted: Adapted
    probe: Probe | None = None
    calibration: Calibration | None = None

    @classmethod
    def load(cls, path: Path | str, model: str = "") -> "Run":
        """Loads a run folder, its `adapter/` alone, or a folder with an adapter that PEFT saved.

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
            base = find_base(model) if model else find_base(manifest.base["id"], manifest.base["revision"])
        except ModelError as error:
            if model:
                raise
            raise RunError(f"{path}: its base is not at hand ({error}); name it by --model") from error
        if base.sha256() != manifest.base["sha256"]:
            raise RunError(
                f"{path}: was trained on {manifest.base['id']} with SHA-256 {manifest.base['sha256'][:12]}..., but "
                f"{base.folder} has {base.sha256()[:12] or 'no weights'}...; name the right base by --model"
            )
        adapter = path / "adapter" if (path / "adapter").is_dir() else path
        reader = Reader.of(
            Base(base.id, adapter).tokenizer(), manifest.max_length, manifest.truncation, manifest.long_texts
        )
        adapted = Adapted.load(adapter, base, manifest.labels, reader, manifest.seed)
        adapted.pairs = manifest.pairs
        calibration = Calibration.load(path)
        adapted.temperature = manifest.temperature
        if calibration is not None and not calibration.fits(manifest):
            raise RunError(f"{path}: its calibration is of another training; the run is damaged")
        return cls(path, manifest, adapted, Probe.load(path), calibration)

    @property
    def data_folder(self) -> Path | None:
        """The prepared data that it was trained on, None where these are not at hand."""
        folder = self.path / self.manifest.data.get("folder", "")
        return folder if self.manifest.data and is_prepared(folder) else None

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
    calibration: Calibration | None = None,
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
        calibration: the temperature, and the validation rows that it was fitted on.

    Raises:
        OutputError: something cannot be written; then there is no run.json.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        (path / MANIFEST).unlink(missing_ok=True)
        for name in (PROBE_FILE, *CALIBRATION_FILES, REPORT):
            (path / name).unlink(missing_ok=True)
        adapted.save(path / "adapter")
        if probe is not None:
            probe.save(path)
        if calibration is not None:
            calibration.save(path)
    framing = adapted.reader.framing
    manifest = Manifest(
        labels=adapted.labels,
        source_labels=source_labels or adapted.labels,
        max_length=framing.max_length,
        truncation=framing.truncation,
        long_texts=framing.long_texts,
        temperature=adapted.temperature,
        pairs=pairs,
        base=_identity(adapted.base),
        seed=recipe.seed,
        data=data or {},
        versions=versions(),
        label_kind=label_kind,
    )
    # The adapter may leave its run: labels, length and the base's hash go with it.
    alone = replace(manifest, data={key: value for key, value in manifest.data.items() if key != "folder"})
    card = model_card(manifest, adapted.base.origin["id"], recipe, metrics, calibration)
    write_whole(path / "adapter" / MANIFEST, alone.to_json())
    write_whole(path / "adapter" / "README.md", card)
    write_whole(path / "recipe.toml", recipe.to_toml())
    write_history(path, metrics["epochs"])
    write_whole(path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_whole(path / MANIFEST, manifest.to_json())
    return manifest


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Writes RUN/history.jsonl, a line an evaluation."""
    write_whole(path / "history.jsonl", "".join(json.dumps(line) + "\n" for line in history))


def _identity(base: Base) -> dict[str, str]:
    return {"id": base.id, "revision": base.revision, "sha256": base.sha256()}
