"""The parts of a run that are checked when it is loaded: its base, and what its validation rows taught."""

from collections.abc import Callable
from pathlib import Path

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.learned import Learned, load_learned
from bertlora.confidence.spread import Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.errors import ModelError, RunError
from bertlora.model.base import Base, find_base
from bertlora.run.manifest import Manifest
from bertlora.task import CLASSIFICATION, MULTILABEL, REGRESSION


def its_calibration(path: Path, manifest: Manifest) -> Learned:
    """Returns what a run learned from its validation rows; what run.json says if it had none.

    Raises:
        RunError: a file is damaged, or does not fit run.json.
    """
    found = load_learned(path, manifest.task)
    if found is None:
        return WITHOUT_ROWS[manifest.task](manifest)
    if any(getattr(manifest, key) != value for key, value in found.facts().items()):
        raise RunError(f"{path}: its calibration belongs to another training; the run is damaged")
    return found


WITHOUT_ROWS: dict[str, Callable[[Manifest], Learned]] = {
    CLASSIFICATION: lambda m: Calibration.without_rows(len(m.labels), m.temperature),
    MULTILABEL: lambda m: Thresholds.without_rows(len(m.labels), m.temperatures, m.thresholds),
    REGRESSION: lambda m: Spread.without_rows(m.target_mean, m.target_scale),
}


def its_base(path: Path, manifest: Manifest, model: str) -> Base:
    """Returns the base of a run, checked by the hash of its weights."""
    try:
        base = find_base(model) if model else find_base(manifest.base["id"], manifest.base["revision"])
    except ModelError as error:
        if model:
            raise
        raise RunError(f"{path}: its base is missing ({error}); name it by --model") from error
    if base.sha256() != manifest.base["sha256"]:
        raise RunError(
            f"{path}: was trained on {manifest.base['id']} with SHA-256 {manifest.base['sha256'][:12]}..., but "
            f"{base.folder} has {base.sha256()[:12] or 'no weights'}...; name the right base by --model"
        )
    return base
