"""The parts of a run that are checked when it is loaded: its base, and what its validation rows taught."""

from pathlib import Path

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.learned import Learned, load_learned
from bertlora.confidence.spread import Spread
from bertlora.errors import ModelError, RunError
from bertlora.model.base import Base, find_base
from bertlora.run.manifest import Manifest
from bertlora.task import REGRESSION


def its_calibration(path: Path, manifest: Manifest) -> Learned:
    """Returns what a run learned from its validation rows; what run.json says if it had none.

    Raises:
        RunError: a file is damaged, or does not fit run.json.
    """
    m = manifest
    found = load_learned(path, m.task)
    if found is None:
        if m.task == REGRESSION:
            return Spread.without_rows(m.target_mean, m.target_scale)
        return Calibration.without_rows(len(m.labels), m.temperature)
    if isinstance(found, Spread):
        same = (found.mean, found.scale) == (m.target_mean, m.target_scale)
    else:
        same = found.temperature == m.temperature and found.logits.shape[1] == len(m.labels)
    if not same:
        raise RunError(f"{path}: its calibration belongs to another training; the run is damaged")
    return found


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
