"""Where a run is written until it is finished.

RUN                      without --overwrite: the run is written in place
.RUN.unfinished/RUN      with --overwrite: the new run is written here, and takes its place only when it is finished

So an interrupt or a full disk never costs the old run. `--resume` continues the new run if there is one, otherwise RUN.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertlora.files import replace_folder

RECIPE = "recipe.toml"  # the first file of a run that trains


def beside(out: Path) -> Path:
    """Returns the folder in which a run is written that will replace `out`, or the target of that link."""
    real = out.resolve()
    # The last part is the run's own name, which its report shows.
    return real.parent / f".{real.name}.unfinished" / real.name


def is_begun(folder: Path) -> bool:
    """Returns whether a folder holds a run, finished or not."""
    return (folder / RECIPE).is_file()


def place_of(out: Path, resume: bool, overwrite: bool) -> Path:
    """Returns the folder in which the run for `out` is written. Each process of a training gets the same answer."""
    new = beside(out)
    return new if overwrite or (resume and is_begun(new)) else out


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
        replace_folder(real, out)
        real.parent.rmdir()
