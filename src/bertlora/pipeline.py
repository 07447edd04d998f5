"""The whole story, from prepared data to a run folder: read, train, probe, save."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from bertlora.data.inputs import Inputs
from bertlora.data.prepared import Prepared
from bertlora.data.token_files import kept_tokens, tokenizer_key
from bertlora.data.tokens import TokenTable, token_chunks
from bertlora.errors import InputError, RecipeError
from bertlora.evaluation.advice import Evidence, advise
from bertlora.evaluation.calibration import calibrate
from bertlora.evaluation.metrics import judge
from bertlora.evaluation.probe import MAX_ROWS, CurvePoint, FrozenView, fit_probe, frozen_views, learning_curve
from bertlora.evaluation.report import report_training
from bertlora.evaluation.seeds import summarise
from bertlora.files import write_whole, writing
from bertlora.model.adapted import Adapted
from bertlora.model.head import aim_head
from bertlora.model.predict import Reader
from bertlora.recipe import Recipe
from bertlora.run import MANIFEST, Calibration, Probe, Run, save_run, write_history
from bertlora.training.checkpoints import drop_checkpoint
from bertlora.training.events import Evaluation, Examples, Probing, Step
from bertlora.training.loop import Training
from bertlora.training.trackers import check_tracker, tracking

Listener = Callable[[Probing | Step | Evaluation], None]


@dataclass(frozen=True)
class Beside:
    """What goes beside an adapter: the probe and its learning curve from before training, calibration from after."""

    probe: Probe | None = None
    curve: Sequence[CurvePoint] = ()
    calibration: Calibration | None = None


def train_run(
    data: Prepared, recipe: Recipe, out: Path, *, resume: bool = False, on_event: Listener = lambda _: None
) -> dict[str, Any]:
    """Trains on prepared data and writes the run folder.

    Args:
        data: the prepared data; the validation split, if there is one, chooses the best adapter.
        recipe: how.
        out: the run folder; see `run.vacant`.
        resume: go on from the checkpoint in `out`.
        on_event: called before the probe, and with each step and each evaluation.

    Returns:
        What `train --json` prints.

    Raises:
        BertloraError: bad data, recipe or base, before anything is written; or training that cannot succeed.
    """
    check_tracker(recipe)
    labels = shown_labels(recipe, data.labels)
    adapted = Adapted.fresh(recipe, labels)
    adapted.pairs = data.has_pairs
    train, validation = (split_examples(adapted.reader, data, split) for split in ("train", "validation"))
    samples = [] if data.has_pairs else list(recipe.samples)
    before = adapted.probabilities(samples, base=True)
    training = Training(adapted, recipe, train, validation, out, resume, data.fingerprint)
    # Of several processes one alone probes and writes; making `training` has waited for all.
    main = training.accelerator.is_main_process
    if main:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "recipe.toml", recipe.to_toml())
    beside = _probed(adapted, training, on_event) if main else Beside()
    with tracking(recipe, out) as track:
        for event in training.run():
            on_event(event)
            if isinstance(event, Evaluation):
                track(event)
                if main:
                    write_history(out, training.progress.history)
    metrics = {"run": str(out), **training_metrics(training)}
    beside = replace(beside, calibration=calibrated(adapted, training))
    metrics["samples"] = _sample_lines(labels, samples, before, adapted.probabilities(samples))
    if main:
        _finish(training, adapted, data, out, metrics, beside)
    training.accelerator.wait_for_everyone()
    return metrics


def _probed(adapted: Adapted, training: Training, on_event: Listener) -> Beside:
    """Turns the head, and fits the probe and its learning curve, so that features need not be kept while it trains."""
    on_event(Probing(min(len(training.train), MAX_ROWS)))
    frozen = frozen_start(adapted, training)
    return Beside(fit_probe(frozen), learning_curve(frozen, training.recipe.seed))


def _finish(
    training: Training,
    adapted: Adapted,
    data: Prepared,
    out: Path,
    metrics: dict[str, Any],
    beside: Beside,
) -> None:
    """Adds the advice to `metrics`, and writes the run folder with all that goes beside the adapter."""
    recipe, validation = training.recipe, training.validation
    metrics["advice"] = advise(
        Evidence(
            recipe,
            adapted.labels,
            metrics["epochs"],
            training.train,
            validation.labels,
            training.best_scores / adapted.temperature,
            beside.curve,
        )
    )
    manifest = save_run(
        out,
        adapted,
        recipe,
        metrics,
        source_labels=list(data.labels),
        pairs=data.has_pairs,
        data={"fingerprint": data.fingerprint, "folder": _folder_from(out, data.folder)},
        probe=beside.probe,
        calibration=beside.calibration,
    )
    drop_checkpoint(out)
    report_training(Run(out, manifest, adapted, beside.probe, beside.calibration), data, training.train.inputs)


def train_seeds(
    data: Prepared, recipe: Recipe, out: Path, count: int, *, resume: bool = False, on_event: Listener = lambda _: None
) -> dict[str, Any]:
    """Trains a recipe under `count` seeds: its own in `out`, the next ones in `out/seeds`, a run folder each.

    What is in `out` was chosen by no result; the other runs tell how far it depends on luck. Of several processes all
    train, and the main one alone judges and writes.

    Args:
        data: the prepared data.
        recipe: how; its seed is the first.
        out: the run folder.
        count: how many seeds.
        resume: leave finished runs as they are, and go on with the one that is not.
        on_event: as `train_run`.

    Returns:
        The metrics of the first, and where there are several, in `seeds` (of the main process), how all of them do on
        the test split (the validation split where there is none): `values`, `split`, and what `SeedSummary.figures`
        gives.

    Raises:
        BertloraError: as `train_run`; or there are no rows to judge by.
    """
    split = next((name for name in ("test", "validation") if data.rows.get(name)), "")
    if count > 1 and not split:
        raise InputError(f"--seeds {count}: the data has neither test nor validation rows to judge by; split some off")
    folders = {seed: out / "seeds" / str(seed) for seed in range(recipe.seed, recipe.seed + count)}
    folders[recipe.seed] = out
    trained = {
        seed: train_run(data, recipe.replace(seed=seed), folder, resume=resume, on_event=on_event)
        for seed, folder in folders.items()
        if not (folder / MANIFEST).is_file()
    }
    metrics = trained.get(recipe.seed) or Run.load(out).metrics()
    # Judging takes no part in any exchange, so that the other processes need not wait for it.
    if count > 1 and PartialState(cpu=not torch.cuda.is_available()).is_main_process:
        accuracies = [_accuracy(Run.load(folder), data, split) for folder in folders.values()]
        metrics["seeds"] = {"values": list(folders), "split": split, **summarise(accuracies).figures()}
        write_whole(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def _accuracy(run: Run, data: Prepared, split: str) -> float:
    """Returns a run's accuracy on a split, in the precision that `evaluate` takes where none is named."""
    rows = split_examples(run.adapted.reader, data, split)
    return float(np.mean(run.adapted.logits(rows.inputs).argmax(axis=1) == rows.labels))


def shown_labels(recipe: Recipe, labels: Sequence[str]) -> list[str]:
    """Returns the names to show: the recipe's `label_names`, or the data's own."""
    if not recipe.label_names:
        return list(labels)
    if len(recipe.label_names) != len(labels):
        raise RecipeError(f"label_names: got {len(recipe.label_names)}, expected one for each of {', '.join(labels)}")
    if len(set(recipe.label_names)) < len(recipe.label_names):
        raise RecipeError(f"label_names: got {', '.join(recipe.label_names)}, expected names that differ")
    return list(recipe.label_names)


def split_examples(reader: Reader, data: Prepared, split: str) -> Examples:
    """Returns a split of prepared data, tokenised once and then read from disk; empty where it has no such split."""
    if not data.rows.get(split):
        return Examples(reader.read([]), np.zeros(0, dtype=np.int64))
    folder = data.folder / "tokens" / tokenizer_key(reader.tokenizer)

    def tokens(column: str) -> TokenTable:
        name = f"{split}.{column}"
        return kept_tokens(folder, name, lambda: token_chunks(reader.tokenizer, data.stream(split, column)))

    second = tokens("text_pair") if data.has_pairs else None
    return Examples(Inputs(reader.framing, tokens("text"), second), data.label_ids(split))


def frozen_start(adapted: Adapted, training: Training) -> FrozenView:
    """Turns the head of a training yet to begin as its recipe says.

    Returns:
        The frozen encoder's features of training rows.
    """
    at_head, features = frozen_views(adapted, training.train, training.recipe.seed, training.precision)
    aimed = training.recipe.head_start == "probe" and not training.progress.step
    if aimed and (probe := fit_probe(at_head)) is not None:
        aim_head(adapted.model, probe.weight)
    return features


def calibrated(adapted: Adapted, training: Training) -> Calibration | None:
    """Fits the temperature of a trained adapter to its validation rows; None, and no change, where there are none."""
    calibration = calibrate(training.best_scores, training.validation.labels)
    adapted.temperature = 1.0 if calibration is None else calibration.temperature
    return calibration


def training_metrics(training: Training) -> dict[str, Any]:
    """Returns the figures of a finished training; `validation` is the evaluation whose adapter is kept."""
    history = training.progress.history
    best = max((e for e in history if e["best"]), key=lambda e: e["step"])
    validation = {"accuracy": best["accuracy"], "loss": best["validation_loss"], "epoch": best["epoch"]}
    if len(given := training.validation.labels):
        classes = [str(k) for k in range(training.best_scores.shape[1])]
        figures = judge(training.best_scores, given, classes)
        validation |= {key: figures[key] for key in ("accuracy_ci95", "macro_f1", "matthews", "roc_auc")}
    return {"train": training.summary(), "validation": validation, "epochs": history}


def _sample_lines(labels: list[str], texts: list[str], before: Any, after: Any) -> list[dict[str, Any]]:
    return [
        {
            "text": text,
            "before": labels[int(b.argmax())],
            "after": labels[int(a.argmax())],
            "confidence": float(a.max()),
        }
        for text, b, a in zip(texts, before, after, strict=True)
    ]


def _folder_from(out: Path, folder: Path) -> str:
    """Returns `folder` relative to the run where it lies inside, so that the run can be moved."""
    inside = folder.absolute().is_relative_to(out.absolute())
    return str(folder.absolute().relative_to(out.absolute()) if inside else folder.absolute())
