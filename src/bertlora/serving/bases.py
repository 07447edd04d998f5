"""The bases in memory, each shared by the adapters that were trained on it."""

from pathlib import Path

from bertlora.errors import NotMixableError
from bertlora.model.adapter_files import is_adapter, read_adapter_config
from bertlora.model.base import Base, find_base
from bertlora.model.mixed import MixedBase
from bertlora.run.loaded import Run
from bertlora.run.manifest import MANIFEST, read_manifest
from bertlora.run.parts import its_base


class Bases:
    """Loads runs, on a shared base if they can. It is not safe for threads.

    Args:
        precision: `fp32`, `bf16`, `int8` or `auto`.
    """

    def __init__(self, precision: str) -> None:
        self._precision = precision
        self._shared: dict[str, MixedBase | None] = {}  # by the SHA-256 of the weights; None if it cannot be shared

    def load(self, path: Path, model: str) -> Run:
        """Returns a run. One that cannot share a base, such as an export or DoRA, has a model of its own.

        Raises:
            RunError, InputError: see `Run.load`.
        """
        shared = self._base(path, model)
        if shared is None:
            return Run.load(path, model)
        try:
            run = Run.load(path, model, on=shared)
        except NotMixableError:
            return Run.load(path, model)
        # `auto` is fp32 for an adapter whose certificate does not hold in the bf16 of the base.
        return run if run.choose_precision(self._precision) == shared.precision else Run.load(path, model)

    def _base(self, path: Path, model: str) -> MixedBase | None:
        base = base_of(path, model)
        if base is None:
            return None
        key = base.sha256()
        if key not in self._shared:
            try:
                self._shared[key] = MixedBase(base, self._precision)
            except NotMixableError:
                self._shared[key] = None
        return self._shared[key]


def base_of(path: Path, model: str) -> Base | None:
    """Returns the base of a run or adapter; None for an export, and for a folder that is neither.

    Raises:
        RunError, ModelError: the run is damaged, or its base is missing or another one.
    """
    if not (is_adapter(path) or is_adapter(path / "adapter")):
        return None
    if (path / MANIFEST).is_file():
        return its_base(path, read_manifest(path), model)
    return find_base(model or str(read_adapter_config(path).base_model_name_or_path))
