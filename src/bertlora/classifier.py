"""The conductor: the whole story, from texts and labels to an adapter that predicts, on one screen.

`train_run` tells it for prepared data and a run folder, `LoraClassifier` for lists of texts in memory.
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from bertlora.data.prepared import Prepared
from bertlora.data.tokens import Inputs, kept_tokens, tokenize, tokenizer_key
from bertlora.errors import DataError, OutputError, RecipeError, RunError, suggestion
from bertlora.evaluation.probe import fit_probe
from bertlora.files import check_vacant, write_whole, writing
from bertlora.model.adapted import Adapted
from bertlora.model.predict import Reader
from bertlora.recipe import Recipe, recipe_keys
from bertlora.run import MANIFEST, Run, save_run
from bertlora.training.checkpoints import drop_checkpoint
from bertlora.training.loop import Evaluation, Examples, Step, Training
from bertlora.training.trackers import check_tracker, tracking

Listener = Callable[[Step | Evaluation], None]


def train_run(
    data: Prepared, recipe: Recipe, out: Path, *, resume: bool = False, on_event: Listener = lambda _: None
) -> dict[str, Any]:
    """Trains on prepared data and writes the run folder.

    Args:
        data: the prepared data; the validation split, if there is one, chooses the best adapter.
        recipe: how.
        out: the run folder; see `check_run_folder`.
        resume: go on from the checkpoint in `out`.
        on_event: called with each step and each evaluation.

    Returns:
        What `train --json` prints.

    Raises:
        BertloraError: bad data, recipe or base, before anything is written; or training that cannot succeed.
    """
    check_tracker(recipe)
    labels = shown_labels(recipe, data.labels)
    adapted = Adapted.fresh(recipe, labels)
    train, validation = (split_examples(adapted.reader, data, split) for split in ("train", "validation"))
    samples = list(recipe.samples)
    before = adapted.probabilities(samples, base=True)
    training = Training(adapted, recipe, train, validation, out, resume, data.fingerprint)
    # Of several processes one alone writes; making `training` has waited for all.
    main = training.accelerator.is_main_process
    if main:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "recipe.toml", recipe.to_toml())
    with tracking(recipe, out) as track:
        for event in training.run():
            on_event(event)
            if isinstance(event, Evaluation):
                track(event)
    metrics = {"run": str(out), **_metrics(training)}
    metrics["samples"] = _sample_lines(labels, samples, before, adapted.probabilities(samples))
    if main:
        save_run(
            out,
            adapted,
            recipe,
            metrics,
            source_labels=list(data.labels),
            pairs=data.has_pairs,
            data={"fingerprint": data.fingerprint, "folder": _folder_from(out, data.folder)},
            probe=fit_probe(adapted, train, recipe.seed, training.precision),
        )
        drop_checkpoint(out)
    training.accelerator.wait_for_everyone()
    return metrics


def check_run_folder(out: Path, resume: bool, overwrite: bool) -> None:
    """Raises RunError or OutputError when `out` cannot take a run: it holds one, or something else."""
    finished, begun = (out / MANIFEST).is_file(), (out / "recipe.toml").is_file()
    if resume and finished:
        raise RunError(f"{out}: the run is finished, there is nothing to resume; name another folder for a new one")
    if resume and not begun:
        raise RunError(f"{out}: holds no run to resume; leave out --resume")
    if begun and not (finished or resume or overwrite):
        raise OutputError(f"{out}: holds a run that did not finish; give --resume to continue it, or --overwrite")
    if not resume:
        check_vacant(out, overwrite)


def shown_labels(recipe: Recipe, labels: Sequence[str]) -> list[str]:
    """Returns the names to show: the recipe's `label_names`, or the data's own."""
    if not recipe.label_names:
        return list(labels)
    if len(recipe.label_names) != len(labels):
        raise RecipeError(f"label_names: got {len(recipe.label_names)}, expected one for each of {', '.join(labels)}")
    return list(recipe.label_names)


def split_examples(reader: Reader, data: Prepared, split: str) -> Examples:
    """Returns a split of prepared data, tokenised once and then read from disk; empty where it has no such split."""
    if not data.rows.get(split):
        return Examples(reader.read([]), np.zeros(0, dtype=np.int64))
    rows = data.split(split)
    kept = data.folder / "tokens" / tokenizer_key(reader.tokenizer)
    first = kept_tokens(kept, f"{split}.text", lambda: tokenize(reader.tokenizer, rows.texts))
    pairs = rows.pairs
    second = None if pairs is None else kept_tokens(kept, f"{split}.pair", lambda: tokenize(reader.tokenizer, pairs))
    return Examples(Inputs(reader.framing, first, second), rows.labels)


def _metrics(training: Training) -> dict[str, Any]:
    """Returns the figures of a finished training; `validation` is the evaluation whose adapter is kept."""
    history = training.progress.history
    best = max((e for e in history if e["best"]), key=lambda e: e["step"])
    validation = {"accuracy": best["accuracy"], "loss": best["validation_loss"], "epoch": best["epoch"]}
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


class LoraClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """A text classifier in scikit-learn's manner: LoRA on a small BERT.

    Parameters are `recipe`, a recipe's name or TOML file, and every recipe key (see `bertlora recipes default`);
    a key that is None is taken from the recipe.

    Attributes:
        classes_: the labels in the order of the columns of `predict_proba`, of the type given to `fit`.
        adapted_: the trained model.
        recipe_: the recipe as it was resolved.
        history_: the evaluations.

    Example:
        >>> classifier = LoraClassifier(model="minilm", rank=8).fit(texts, labels)  # doctest: +SKIP
        >>> classifier.predict(["A joy from start to finish."])  # doctest: +SKIP
    """

    def __init__(self, recipe: str = "default", **keys: Any) -> None:
        self.recipe = recipe
        for key in keys:
            if key not in recipe_keys():
                raise TypeError(f"LoraClassifier has no parameter '{key}'{suggestion(key, recipe_keys())}")
        for key in recipe_keys():
            setattr(self, key, keys.get(key))

    @classmethod
    def _get_param_names(cls) -> list[str]:
        """scikit-learn reads the names off the signature of `__init__`; here the recipe has them."""
        return sorted(["recipe", *recipe_keys()])

    def fit(self, X: Any, y: Any, validation: tuple[Any, Any] | None = None) -> Self:  # noqa: N803
        """Trains on texts and labels.

        Args:
            X: (N,) texts, or (N, 2) pairs of texts: a list, an array or a pandas column.
            y: (N,) labels of any kind.
            validation: texts and labels that choose the best adapter; without them the last one is kept.

        Raises:
            DataError: no texts, or a single class.
            RecipeError: a parameter is out of its range.
        """
        given = {key: getattr(self, key) for key in recipe_keys() if getattr(self, key) is not None}
        self.recipe_ = Recipe.named(self.recipe).replace(**given)
        self.classes_, ids = np.unique(_labels(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y: got {len(self.classes_)} class, expected at least 2")
        self.adapted_ = Adapted.fresh(self.recipe_, shown_labels(self.recipe_, [str(c) for c in self.classes_]))
        self.pairs_ = _columns(X)[1] is not None
        training = Training(
            self.adapted_, self.recipe_, self._examples(X, ids), self._validation(validation), identity="memory"
        )
        for _ in training.run():
            pass
        self.history_ = training.progress.history
        self._metrics = _metrics(training)
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Returns the most probable label of each text, (N,), of the type given to `fit`."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Returns probabilities, (N, K) float64, columns as `classes_`."""
        check_is_fitted(self, "adapted_")
        return self.adapted_.probabilities(*_columns(X))

    def save(self, path: str | Path) -> None:
        """Writes a run folder, which `load`, the command line and PEFT (its `adapter/`) read.

        Raises:
            OutputError: `path` holds something that is no run, or this is an adapter that PEFT trained.
        """
        check_is_fitted(self, "adapted_")
        path = Path(path)
        if not self._metrics:
            raise OutputError(f"{path}: an adapter that PEFT trained has no record to make a run of; copy its folder")
        check_vacant(path, overwrite=(path / MANIFEST).is_file())
        metrics = {"run": str(path), **self._metrics}
        kind = self.classes_.dtype.kind
        save_run(
            path,
            self.adapted_,
            self.recipe_,
            metrics,
            pairs=self.pairs_,
            label_kind=kind,
            source_labels=[str(c) for c in self.classes_],
        )

    @classmethod
    def load(cls, path: str | Path) -> "LoraClassifier":
        """Returns the classifier of a run folder, or of an adapter that PEFT saved.

        Raises:
            RunError: the run is unfinished, of a newer format, or of another base.
        """
        run = Run.load(path)
        recipe_file = run.path / "recipe.toml"
        self = cls(recipe=str(recipe_file) if recipe_file.is_file() else "default")
        self.recipe_ = Recipe.named(self.recipe)
        self.adapted_, self.pairs_ = run.adapted, run.manifest.pairs
        self.classes_ = typed_labels(run.manifest.source_labels, run.manifest.label_kind)
        self._metrics = run.metrics()
        self.history_ = self._metrics.get("epochs", [])
        return self

    def _examples(self, X: Any, ids: npt.NDArray[Any]) -> Examples:  # noqa: N803
        texts, pairs = _columns(X)
        if len(texts) != len(ids):
            raise DataError(f"X has {len(texts)} texts and y {len(ids)} labels; expected as many of each")
        return Examples(self.adapted_.reader.read(texts, pairs), ids.astype(np.int64))

    def _validation(self, validation: tuple[Any, Any] | None) -> Examples:
        if validation is None:
            return Examples(self.adapted_.reader.read([]), np.zeros(0, dtype=np.int64))
        texts, labels = validation
        place = {label: i for i, label in enumerate(self.classes_.tolist())}
        unknown = set(np.asarray(labels).tolist()) - set(place)
        if unknown:
            raise DataError(f"validation: label {sorted(unknown, key=str)[0]!r} is not among the labels of y")
        return self._examples(texts, np.array([place[label] for label in np.asarray(labels).tolist()]))


LoraClassifier.__init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # for help()
    [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    + [inspect.Parameter("recipe", inspect.Parameter.KEYWORD_ONLY, default="default")]
    + [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None) for key in recipe_keys()]
)


def typed_labels(labels: Sequence[str], kind: str) -> npt.NDArray[Any]:
    """Returns label names in the type that numpy's `kind` says: i, u whole, f real, b boolean, else text."""
    if kind in "iu":
        return np.array([int(label) for label in labels])
    if kind == "f":
        return np.array([float(label) for label in labels])
    return np.array([label == "True" for label in labels]) if kind == "b" else np.array(labels)


def _labels(y: Any) -> npt.NDArray[Any]:
    """Returns labels, (N,), of one type and none missing."""
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise DataError(f"y: got shape {labels.shape}, expected (N,) labels")
    missing = np.flatnonzero(pd.isna(labels))
    if len(missing):
        raise DataError(f"y: row {missing[0]} has no label; leave such rows out")
    if labels.dtype != object:
        return labels
    kinds = sorted({type(label).__name__ for label in labels.tolist()})
    if len(kinds) > 1:
        raise DataError(f"y: got labels of types {', '.join(kinds)}, expected one type")
    return np.asarray(labels.tolist())


def _columns(X: Any) -> tuple[list[str], list[str] | None]:  # noqa: N803
    """Returns texts and, for an (N, 2) input, second texts."""
    if isinstance(X, str):
        raise DataError("X: got a single string, expected a list of texts")
    rows = np.asarray(X, dtype=object)
    if rows.ndim == 2 and rows.shape[1] == 2:
        return rows[:, 0].tolist(), rows[:, 1].tolist()
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    if rows.ndim != 1:
        raise DataError(f"X: got shape {rows.shape}, expected (N,) texts or (N, 2) pairs")
    return rows.tolist(), None
