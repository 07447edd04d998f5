"""Whether a folder can take a run."""

from collections.abc import Sequence
from pathlib import Path

from bertlora.data.prepared import source_paths
from bertlora.errors import OutputError, RunError
from bertlora.files import check_vacant
from bertlora.run.manifest import MANIFEST


def check_run_folder(
    out: Path, resume: bool, overwrite: bool, inputs: Sequence[str] = (), several: bool = False
) -> None:
    """Raises RunError or OutputError when `out` cannot take a run: it holds one, something else, or the run's data.

    `inputs` are sources as `prepare` takes them; of `several` seeds, one may be finished when the others are resumed.
    """
    finished, begun = (out / MANIFEST).is_file(), (out / "recipe.toml").is_file()
    if resume and finished and not several:
        raise RunError(f"{out}: the run is finished, there is nothing to resume; name another folder for a new one")
    if resume and not begun:
        raise RunError(f"{out}: holds no run to resume; leave out --resume")
    if begun and not (finished or resume or overwrite):
        raise OutputError(f"{out}: holds a run that did not finish; give --resume to continue it, or --overwrite")
    if not resume:
        check_vacant(out, overwrite, source_paths(inputs))
