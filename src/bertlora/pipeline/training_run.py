"""One training: prepared data → rivals → training loop → run folder."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.confidence.agreement import agreement_figures
from bertlora.confidence.label_agreement import LabelAgreement
from bertlora.confidence.learned import Learned
from bertlora.confidence.probabilities import Array
from bertlora.confidence.spread import Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.data.prepared import Prepared
from bertlora.data.reader import split_examples
from bertlora.errors import RecipeError
from bertlora.evaluation.advice import Evidence, advise
from bertlora.evaluation.metrics import classification_metrics
from bertlora.evaluation.report import report_training
from bertlora.evaluation.scores import choosing_score, value_of
from bertlora.files import write_whole, writing
from bertlora.model.adapted import Adapted
from bertlora.model.base import longest_input
from bertlora.model.state import load_trained_state, trained_state
from bertlora.pipeline.failed_rows import failed_rows_kept
from bertlora.recipe import Recipe
from bertlora.rivals.fitted import Rivals, Texts
from bertlora.rivals.probe import MAX_ROWS, probe_precision
from bertlora.run.folder import save_run, write_history
from bertlora.run.loaded import Run
from bertlora.run.manifest import RECIPE, Seen
from bertlora.task import CLASSIFICATION
from bertlora.training.accelerator import check_tracker, tracking
from bertlora.training.checkpoints import drop_checkpoints
from bertlora.training.events import Evaluation, Listener, Probing, Resumed
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
        resume: continue from the newest checkpoint in `out`.
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
        write_whole(out / RECIPE, recipe.to_toml())
        if resume:
            write_history(out, training.progress.history)  # a kill may have come between checkpoint and history
            if training.progress.step or training.saving.notes:
                on_event(Resumed(training.progress.step, training.steps, training.saving.notes))
        texts = split_texts(data, "train"), split_texts(data, "validation")
        rivals, seen = fitted_rivals(adapted, training, *texts, on_event), Seen.of(train=texts[0], validation=texts[1])
        del texts  # training does not need them
    kept = failed_rows_kept(out, data, main)
    with tracking(recipe, out) as track, kept, closing(training.run()) as events:
        for event in events:
            on_event(event)
            if isinstance(event, Evaluation):
                track(event)
                if main:
                    write_history(out, training.progress.history)
    calibration = training.learned()
    metrics = {"run": str(name or out), "rows": dict(data.rows), **training_metrics(training, calibration)}
    metrics["samples"] = samples.after_training(adapted, calibration)
    if main:
        metrics["rivals"] = _rival_figures(rivals, training)
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
            seen=seen,
        )
        report_training(Run(out, manifest, adapted, calibration), data, train.inputs)
        drop_checkpoints(out)  # last: until then the run can be resumed
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


def _rival_figures(rivals: Rivals, training: Training) -> dict[str, Any]:
    """Returns how the rivals were fitted and how good they are; classes also by the score that chose LoRA's epoch."""
    recipe, y_true = training.recipe, training.validation.labels
    found, metric = rivals.figures(y_true), choosing_score(recipe.best_metric)
    if recipe.task == CLASSIFICATION and metric != "accuracy":
        for name, logits in rivals.on_validation.items():
            value = value_of(metric, y_true, logits.argmax(axis=1), logits.shape[1])
            found[name][f"validation_{metric}"] = value
    return found


def shown_labels(recipe: Recipe, labels: Sequence[str]) -> list[str]:
    """Returns the names to show: the recipe's `label_names`, or the data's own."""
    if not recipe.label_names:
        return list(labels)
    if len(recipe.label_names) != len(labels):
        raise RecipeError(f"label_names: got {len(recipe.label_names)}, expected one for each of {', '.join(labels)}")
    if len(set(recipe.label_names)) < len(recipe.label_names):
        raise RecipeError(f"label_names: got {', '.join(recipe.label_names)}, expected names that differ")
    return list(recipe.label_names)


def fitted_rivals(
    adapted: Adapted,
    training: Training,
    train: Texts,
    validation: Texts,
    on_event: Listener = lambda _: None,
) -> Rivals:
    """Fits the rivals before training, so that training need not keep the features. They may aim the head.

    A training that resumes takes the rivals that were fitted before it stopped.

    Args:
        adapted: the model that will be trained.
        training: the training, before its first step.
        train: the training texts.
        validation: the validation texts; there may be none.
        on_event: called before the linear probe.
    """
    recipe, start = training.recipe, not training.progress.step
    aim, kept = start and recipe.head_start == "probe", training.saving.kept("rivals")
    found = None if kept is None else Rivals.kept(kept)
    if found is not None and (found[1] or not aim):
        if aim:
            load_trained_state(adapted.model, found[1])
        return found[0]
    on_event(Probing(min(len(training.train), MAX_ROWS)))
    rows = (training.train, train), (training.validation, validation)
    rivals = Rivals.fit(adapted, *rows, recipe.seed, probe_precision(adapted, training.precision), aim)
    if kept is not None:
        rivals.keep(kept, trained_state(adapted.model) if aim else {})
    return rivals


def split_texts(data: Prepared, split: str) -> Texts:
    """Returns the texts and second texts of a split, which may have no rows."""
    rows = data.split(split) if split in data.rows else None
    return ([], None) if rows is None else (rows.texts, rows.pairs)


def _folder_from(out: Path, folder: Path) -> str:
    """Returns `folder` relative to the run if it lies inside, so that the run can be moved."""
    inside = folder.absolute().is_relative_to(out.absolute())
    return str(folder.absolute().relative_to(out.absolute()) if inside else folder.absolute())


def training_metrics(training: Training, learned: Learned) -> dict[str, Any]:
    """Returns the figures of a finished training; `validation` is the evaluation of the kept adapter.

    Args:
        training: the training.
        learned: what its validation rows taught.
    """
    history = training.progress.history
    best = max((e for e in history if e["best"]), key=lambda e: e["step"])
    y_true = training.validation.labels
    validation = {key: best[key] for key in training.objective.figures}
    validation |= {"loss": best["validation_loss"], "epoch": best["epoch"]}
    if len(y_true):
        validation |= _with_intervals(learned, training.best_logits, y_true)
    chosen_by = training.recipe.best_metric
    return {"train": training.summary(), "validation": validation, "best_metric": chosen_by, "epochs": history}


def _with_intervals(learned: Learned, outputs: Array, y_true: npt.NDArray[Any]) -> dict[str, Any]:
    """Returns the figures of the validation rows with their intervals."""
    if isinstance(learned, Spread):
        return agreement_figures(learned.values.astype(np.float64), y_true)
    if isinstance(learned, Thresholds):
        return LabelAgreement(learned.chosen(outputs), learned.probabilities(outputs), y_true).with_intervals()
    figures: dict[str, Any] = classification_metrics(outputs, y_true, [str(k) for k in range(outputs.shape[1])])
    return {key: figures[key] for key in ("accuracy_ci95", "macro_f1", "matthews", "roc_auc")}


@dataclass(frozen=True)
class Samples:
    """Texts that are predicted before and after training."""

    texts: Sequence[str]
    before: Array

    @classmethod
    def of(cls, adapted: Adapted, texts: Sequence[str]) -> "Samples":
        """Predicts the texts with the base and its untrained head."""
        logits = adapted.logits(adapted.reader.read(texts), base=True) if texts else np.empty((0, 0))
        return cls(texts, logits)

    def after_training(self, adapted: Adapted, calibration: Learned) -> list[dict[str, Any]]:
        """Returns `text`, `before`, `after` and `confidence` for each text; only classes have a confidence."""
        if not self.texts:
            return []
        after = adapted.logits(adapted.reader.read(self.texts))
        if isinstance(calibration, Spread):
            return [
                {"text": text, "before": calibration.mean, "after": value, "confidence": None}
                for text, value in zip(self.texts, after[:, 0].tolist(), strict=True)
            ]
        if isinstance(calibration, Thresholds):
            both = zip(self.texts, self.before > 0, calibration.chosen(after), strict=True)
            return [
                {"text": text, "before": _named(adapted, b), "after": _named(adapted, a), "confidence": None}
                for text, b, a in both
            ]
        return [
            {
                "text": text,
                "before": adapted.labels[int(b.argmax())],
                "after": adapted.labels[int(a.argmax())],
                "confidence": float(a.max()),
            }
            for text, b, a in zip(self.texts, self.before, calibration.probabilities(after), strict=True)
        ]


def _named(adapted: Adapted, marks: npt.NDArray[np.bool_]) -> str:
    """Returns the names of some labels."""
    return ", ".join(label for label, mark in zip(adapted.labels, marks, strict=True) if mark)
