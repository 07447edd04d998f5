"""The same training under several seeds, which shows how much a run depends on chance."""

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from bertlora.data.prepared import Prepared
from bertlora.errors import InputError
from bertlora.evaluation.seeds import leading_figure, summarise
from bertlora.pipeline.training_run import train_run
from bertlora.recipe import Recipe
from bertlora.run.folder import rewrite_metrics, seed_folders
from bertlora.run.loaded import Run
from bertlora.run.unfinished import is_finished
from bertlora.training.events import Listener


def train_seeds(
    data: Prepared,
    recipe: Recipe,
    out: Path,
    count: int,
    *,
    name: Path | None = None,
    resume: bool = False,
    on_event: Listener = lambda _: None,
) -> dict[str, Any]:
    """Trains a recipe under `count` seeds: its own in `out`, the next ones in `out/seeds`, one run folder each.

    No result chooses the run in `out`. The other runs show how much it depends on chance. With several processes all
    train, and only the main one evaluates and writes.

    Args:
        data: the prepared data.
        recipe: all options; its seed is the first.
        out: the run folder.
        count: how many seeds.
        name: as in `train_run`.
        resume: keep finished runs, and continue the unfinished one.
        on_event: as in `train_run`.

    Returns:
        The metrics of the first run. With several seeds also `seeds` (in the main process), all runs on the test
        split, or on the validation split if there is no test split: `values`, `split`, and `SeedSummary.figures`.

    Raises:
        BertloraError: as in `train_run`; or there are no rows to evaluate on.
    """
    split = next((name for name in ("test", "validation") if data.rows.get(name)), "")
    if count > 1 and not split:
        raise InputError(f"--seeds {count}: the data has no test and no validation rows to evaluate on; split some off")
    seeds = range(recipe.seed, recipe.seed + count)
    folders, names = (seed_folders(root, recipe.seed, seeds) for root in (out, name or out))
    # Read now: the other processes must not look for the folder when the main one renames it.
    kept = Run.load(out).metrics() if is_finished(out) else {}
    trained = {
        seed: train_run(data, recipe.replace(seed=seed), folder, name=names[seed], resume=resume, on_event=on_event)
        for seed, folder in folders.items()
        if not is_finished(folder)
    }
    metrics = trained.get(recipe.seed, kept)
    # The evaluation exchanges nothing with the other processes, so they need not wait for it.
    if count > 1 and PartialState(cpu=not torch.cuda.is_available()).is_main_process:
        runs = [Run.load(folder) for folder in folders.values()]
        found = [leading_figure(run, data, split) for run in runs]
        summary = summarise([value for _, value in found], found[0][0])
        metrics["seeds"] = {"values": list(folders), "split": split, **summary.figures()}
        rewrite_metrics(out, metrics)
    return metrics
