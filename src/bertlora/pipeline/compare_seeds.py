"""The runs of several seeds that `compare --seeds` takes, and the training of those that are missing."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bertlora.errors import InputError
from bertlora.run.folder import seed_folders
from bertlora.run.manifest import MANIFEST, read_manifest
from bertlora.training.events import Listener


def folders_of_seeds(
    runs: Sequence[str | Path],
    count: int,
    train_missing: bool,
    on_progress: Callable[[str], None],
    on_event: Listener,
) -> tuple[list[int], dict[str, list[Path]]]:
    """Returns the seeds, and the run folder of each seed by run. The first run's own seed is the first.

    Args:
        runs: the run folders.
        count: how many seeds.
        train_missing: train the seeds that a run does not have.
        on_progress: called with a line before a run is trained.
        on_event: called with what happens in training.

    Raises:
        RunError: a folder is not a finished run.
        InputError: a run begins with another seed, or seeds are missing and must not be trained.
    """
    first, *_ = (own := {str(run): read_manifest(Path(run)).seed for run in runs}).values()
    seeds = list(range(first, first + count))
    for name, seed in own.items():
        if seed != first:
            raise InputError(
                f"--seeds: {name} begins with the seed {seed}, and {runs[0]} with {first}; recipes are compared under "
                f"the same seeds: train {name} again with --seed {first} --seeds {count}"
            )
    folders = {name: seed_folders(Path(name), first, seeds) for name in own}
    lacking = {
        name: [s for s, path in group.items() if not (path / MANIFEST).is_file()] for name, group in folders.items()
    }
    lacking = {name: missing for name, missing in lacking.items() if missing}
    if lacking and not train_missing:
        raise InputError("; ".join(_fault(name, missing, count) for name, missing in lacking.items()))
    for name, missing in lacking.items():
        from bertlora.pipeline.train import train

        on_progress(f"training {name} with the seeds {', '.join(map(str, missing))}")
        train((), name, seeds=count, resume=True, on_event=on_event)
    return seeds, {name: list(group.values()) for name, group in folders.items()}


def _fault(name: str, missing: Sequence[int], count: int) -> str:
    return (
        f"--seeds: {name} has no run with the seed {' or '.join(map(str, missing))}; train with --train-missing, or by "
        f"'bertlora train --out {name} --resume --seeds {count}'"
    )
