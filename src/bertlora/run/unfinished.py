"""Where a run is written until it is finished.

RUN                      without --overwrite: the run is written in place
.RUN.unfinished/RUN      with --overwrite: the new run is written here, and takes its place only when it is finished

So an interrupt or a full disk never costs the old run. `--resume` continues the new run if there is one, otherwise RUN.

A run is finished when it has run.json and no checkpoints any more. A kill leaves files that have no name yet, which
begin with a dot; the next process that writes the run removes them.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertlora.data.folder import is_prepared
from bertlora.files import replace_folder
from bertlora.run.manifest import MANIFEST, RECIPE

CHECKPOINTS = "checkpoints"
# In a run that a new one is about to replace: a kill after both have changed places must not bring it back.
REPLACED = ".replaced"
DATA = "data"


def beside(out: Path) -> Path:
    """Returns the folder in which a run is written that will replace `out`, or the target of that link."""
    real = out.resolve()
    # The last part is the run's own name, which its report shows.
    return real.parent / f".{real.name}.unfinished" / real.name


def is_begun(folder: Path) -> bool:
    """Returns whether a folder holds a run, finished or not."""
    return (folder / RECIPE).is_file()


def is_finished(folder: Path) -> bool:
    """Returns whether a folder holds a run that is finished."""
    return (folder / MANIFEST).is_file() and not (folder / CHECKPOINTS).exists()


def new_begun(out: Path) -> bool:
    """Returns whether a new run was begun that is to replace `out`."""
    return is_begun(beside(out)) and not (beside(out) / REPLACED).exists()


def place_of(out: Path, resume: bool, overwrite: bool) -> Path:
    """Returns the folder in which the run for `out` is written. Each process of a training gets the same answer."""
    return beside(out) if overwrite or (resume and new_begun(out)) else out


def clear_leftovers(out: Path, killed: bool) -> None:
    """Removes what a killed process left: files without a name, the data of a run that was not begun, a replaced run.

    Only for a process that holds the lock of `out`.

    Args:
        out: the run folder.
        killed: whether a process was killed while it wrote `out`. Otherwise its folders may be the user's own.
    """
    real, new = out.resolve(), beside(out)
    (real / REPLACED).unlink(missing_ok=True)
    if new.parent.exists() and not new_begun(out):
        shutil.rmtree(new.parent, ignore_errors=True)
    for folder in (real, new):
        if is_begun(folder) or killed:
            for path in [*folder.rglob(".*.partial-*"), *folder.rglob(".*.old-*")]:
                _remove(path)
    if killed and real.exists():
        for path in real.parent.glob(f".{real.name}.old-*"):
            _remove(path)
        if not is_begun(real) and is_prepared(real / DATA) and len(list(real.iterdir())) == 1:
            shutil.rmtree(real / DATA, ignore_errors=True)


@contextmanager
def until_finished(place: Path, out: Path, resume: bool) -> Iterator[None]:
    """Inside, the run for `out` is written to `place`, which takes the name `out` at the end.

    If the block fails, `out` is as before. A run that was begun stays in `place`, for `resume`; anything less is
    deleted.
    """
    replaces, real = place != out, place.resolve()
    if replaces and not resume:
        shutil.rmtree(real.parent, ignore_errors=True)  # of an earlier run that nobody continued
    there = real.is_dir()
    try:
        yield
    except BaseException:
        if not is_begun(real):
            shutil.rmtree(real.parent if replaces else real, ignore_errors=True)
            if there and not replaces:
                real.mkdir()
        raise
    if replaces:
        if out.is_dir():
            (out / REPLACED).touch()
        replace_folder(real, out)
        real.parent.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
