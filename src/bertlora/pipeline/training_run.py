"""One training: prepared data → rivals → training loop → run folder; and the same under several seeds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from bertlora.confidence.learned import Learned
from bertlora.confidence.thresholds import Thresholds
from bertlora.data.prepared import Prepared
from bertlora.data.reader import split_examples
from bertlora.errors import InputError, RecipeError
from bertlora.evaluation.advice import Evidence, advise
from bertlora.evaluation.report import report_training
from bertlora.evaluation.seeds import summarise
from bertlora.files import write_whole, writing
from bertlora.model.adapted import Adapted
from bertlora.model.base import longest_input
from bertlora.pipeline.training_figures import Samples, leading_figure, training_metrics
from bertlora.recipe import Recipe
from bertlora.rivals.fitted import Rivals, Texts
from bertlora.rivals.probe import MAX_ROWS
from bertlora.run.folder import save_run, seed_folders, write_history
from bertlora.run.loaded import Run
from bertlora.run.manifest import MANIFEST, Seen
from bertlora.task import REGRESSION
from bertlora.training.accelerator import check_tracker, tracking
from bertlora.training.checkpoints import drop_checkpoint
from bertlora.training.events import Evaluation, Listener, Probing
from bertlora.training.loop import Training


def train_run(
    data: Prepared,
    recipe: Recipe,
    out: Path,
    *,
    name: Path | None = None,
    resume: bool = False,
    on_event: Listener = lambda _: None,
) -> dict[str, Any]:
    """Trains on prepared data and writes the run folder.

    Args:
        data: the prepared data. The validation split, if there is one, chooses the best adapter.
        recipe: all options.
        out: the run folder; see `run.folder.check_run_folder`.
        name: the name that the folder gets when it is finished, if it is another.
        resume: continue from the checkpoint in `out`.
        on_event: called before the linear probe, and with each step and each evaluation.

    Returns:
        What `train --json` prints.

    Raises:
        BertloraError: bad data, recipe or base, before anything is written; or training that cannot succeed.
    """
    check_tracker(recipe)
    recipe = recipe.for_task(data.task)
    labels = shown_labels(recipe, data.labels)
    adapted = Adapted.fresh(recipe, labels, data.has_pairs)
    train, validation = (split_examples(adapted.reader, data, split) for split in ("train", "validation"))
    samples = Samples.of(adapted, () if data.has_pairs else recipe.samples)
    training = Training(adapted, recipe, train, validation, out, resume, data.fingerprint)
    recipe = training.recipe
    # With several processes, only the main one fits the rivals and writes. `Training` has waited for all.
    main = training.accelerator.is_main_process
    if main:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "recipe.toml", recipe.to_toml())
        on_event(Probing(min(len(train), MAX_ROWS)))
        rivals = fitted_rivals(adapted, training, split_texts(data, "train"), split_texts(data, "validation"))
    with tracking(recipe, out) as track:
        for event in training.run():
            on_event(event)
            if isinstance(event, Evaluation):
                track(event)
                if main:
                    write_history(out, training.progress.history)
    metrics = {"run": str(name or out), "rows": dict(data.rows), **training_metrics(training)}
    calibration = training.learned()
    metrics["samples"] = samples.after_training(adapted, calibration)
    if main:
        metrics["rivals"] = rivals.figures(validation.labels)
        metrics["advice"] = _advice(training, adapted, metrics, calibration, rivals)
        manifest = save_run(
            out,
            adapted,
            recipe,
            metrics,
            source_labels=list(data.labels),
            data={"fingerprint": data.fingerprint, "folder": _folder_from(out, data.folder)},
            calibration=calibration,
            rivals=rivals,
            seen=Seen.of(train=split_texts(data, "train"), validation=split_texts(data, "validation")),
        )
        drop_checkpoint(out)
        report_training(Run(out, manifest, adapted, calibration), data, train.inputs)
    training.accelerator.wait_for_everyone()
    return metrics


def _advice(
    training: Training,
    adapted: Adapted,
    metrics: dict[str, Any],
    calibration: Learned,
    rivals: Rivals,
) -> list[dict[str, str]]:
    """Returns what to do next."""
    ours = {"lora": calibration.thresholds} if isinstance(calibration, Thresholds) else {}
    return advise(
        Evidence(
            training.recipe,
            adapted.labels,
            metrics["epochs"],
            training.trace,
            training.train,
            training.validation.labels,
            calibration.outputs(training.best_logits),
            rivals.curve,
            longest_input(adapted.base),
            rivals.on_validation,
            rivals.thresholds | ours,
        )
    )


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
    kept = Run.load(out).metrics() if (out / MANIFEST).is_file() else {}
    trained = {
        seed: train_run(data, recipe.replace(seed=seed), folder, name=names[seed], resume=resume, on_event=on_event)
        for seed, folder in folders.items()
        if not (folder / MANIFEST).is_file()
    }
    metrics = trained.get(recipe.seed, kept)
    # The evaluation exchanges nothing with the other processes, so they need not wait for it.
    if count > 1 and PartialState(cpu=not torch.cuda.is_available()).is_main_process:
        runs = [Run.load(folder) for folder in folders.values()]
        found = [leading_figure(run, split_examples(run.adapted.reader, data, split)) for run in runs]
        summary = summarise([value for _, value in found], found[0][0], data.task != REGRESSION)
        metrics["seeds"] = {"values": list(folders), "split": split, **summary.figures()}
        write_whole(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def shown_labels(recipe: Recipe, labels: Sequence[str]) -> list[str]:
    """Returns the names to show: the recipe's `label_names`, or the data's own."""
    if not recipe.label_names:
        return list(labels)
    if len(recipe.label_names) != len(labels):
        raise RecipeError(f"label_names: got {len(recipe.label_names)}, expected one for each of {', '.join(labels)}")
    if len(set(recipe.label_names)) < len(recipe.label_names):
        raise RecipeError(f"label_names: got {', '.join(recipe.label_names)}, expected names that differ")
    return list(recipe.label_names)


def fitted_rivals(adapted: Adapted, training: Training, train: Texts, validation: Texts) -> Rivals:
    """Fits the rivals before training, so that training need not keep the features. They may aim the head.

    Args:
        adapted: the model that will be trained.
        training: the training, before its first step.
        train: the training texts.
        validation: the validation texts; there may be none.
    """
    recipe, start = training.recipe, not training.progress.step
    aim = start and recipe.head_start == "probe"
    rows = (training.train, train), (training.validation, validation)
    return Rivals.fit(adapted, *rows, recipe.seed, training.precision, aim)


def split_texts(data: Prepared, split: str) -> Texts:
    """Returns the texts and second texts of a split, which may have no rows."""
    rows = data.split(split) if split in data.rows else None
    return ([], None) if rows is None else (rows.texts, rows.pairs)


def _folder_from(out: Path, folder: Path) -> str:
    """Returns `folder` relative to the run if it lies inside, so that the run can be moved."""
    inside = folder.absolute().is_relative_to(out.absolute())
    return str(folder.absolute().relative_to(out.absolute()) if inside else folder.absolute())
