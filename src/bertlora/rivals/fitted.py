"""Both rivals of a run: fitted, saved and loaded together.

Until a run is finished they are kept, so a training that resumes does not fit them again:

FOLDER/  probe.safetensors  tfidf.safetensors    as in a run folder
         validation.safetensors                  the rivals' outputs for the validation rows
         head.safetensors                        the trained tensors once the head is aimed; empty if it was not
         facts.json                              seconds and learning curve
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file, save
from scipy.special import expit
from torch import Tensor, from_numpy

from bertlora.confidence.agreement import Agreement
from bertlora.confidence.label_agreement import LabelAgreement
from bertlora.confidence.probabilities import Array
from bertlora.data.reader import Examples
from bertlora.model.adapted import Adapted
from bertlora.model.engine import Features
from bertlora.model.machine import give_back_memory
from bertlora.rivals.probe import CurvePoint, Probe, aim_head, fit_probe, frozen_views, learning_curve
from bertlora.rivals.tfidf import Tfidf, fit_tfidf
from bertlora.sealed import Kept, sealing

VALIDATION, HEAD, FACTS = "validation.safetensors", "head.safetensors", "facts.json"

# Texts, whole, and their second texts if there are any.
Texts = tuple[Sequence[str], Sequence[str] | None]


@dataclass(frozen=True)
class Rivals:
    """The rivals of a run.

    Attributes:
        probe: the linear probe; None if it was not fitted.
        tfidf: the TF-IDF model; None if it was not fitted.
        seconds: by name, how long fitting took; the linear probe's pass through the encoder included.
        curve: the learning curve of the linear probe.
        on_validation: by name, calibrated logits (V, K) of the V validation rows.
    """

    probe: Probe | None = None
    tfidf: Tfidf | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    curve: Sequence[CurvePoint] = ()
    on_validation: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        adapted: Adapted,
        train: tuple[Examples, Texts],
        validation: tuple[Examples, Texts],
        seed: int,
        precision: str = "fp32",
        aim: bool = False,
    ) -> "Rivals":
        """Fits both on the training rows, and runs them on the validation rows. No validation row chooses anything.

        Args:
            adapted: the model; its adapter takes no part.
            train: the training rows, and their texts.
            validation: the validation rows, and their texts; there may be none.
            seed: seed of the folds, and of the 10,000 rows for the linear probe if there are more.
            precision: `fp32`, `bf16` or `int8`, for the linear probe's pass through the encoder.
            aim: turn the head's last layer to the direction of a linear probe on its inputs; see `aim_head`.
        """
        began = time.perf_counter()
        at_head, frozen = frozen_views(adapted, train[0], seed, precision)
        give_back_memory(at_once=True)  # each part frees more than the next one can use again
        probe = fit_probe(frozen, seed)
        give_back_memory(at_once=True)
        probed = time.perf_counter()
        tfidf = fit_tfidf(*train[1], train[0].labels, len(adapted.labels), seed, weights=train[0].weights)
        seconds = {"probe": probed - began, "tfidf": time.perf_counter() - probed}
        if aim:
            aim_head(adapted.model, at_head)
        give_back_memory(at_once=True)
        found = cls(probe, tfidf, seconds, learning_curve(frozen, probe, seed))
        give_back_memory(at_once=True)
        if len(validation[0]):
            features = adapted.base_features(validation[0].inputs, precision, head=False)[1]
            found.on_validation.update(found.logits(features, *validation[1]))
        return found

    def logits(
        self, features: Features, texts: Sequence[str] = (), pairs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Returns the rivals' calibrated logits (B, K) by name.

        Args:
            features: (B, 2 D), the frozen encoder's.
            texts: (B,) the texts; without them TF-IDF is left out.
            pairs: (B,) the second texts, or None.
        """
        found = {} if self.probe is None else {"probe": self.probe.logits(features)}
        return found | ({} if self.tfidf is None or not len(texts) else {"tfidf": self.tfidf.logits(texts, pairs)})

    @property
    def thresholds(self) -> dict[str, Array]:
        """By name, the probabilities (K,) from which on a text has a label; empty unless a text may have several."""
        regressions = {name: rival.regression for name, rival in self._by_name.items()}
        return {name: found.thresholds for name, found in regressions.items() if found.thresholds is not None}

    @property
    def _by_name(self) -> dict[str, Probe | Tfidf]:
        rivals: dict[str, Probe | Tfidf | None] = {"probe": self.probe, "tfidf": self.tfidf}
        return {name: rival for name, rival in rivals.items() if rival is not None}

    def figures(self, y_true: npt.NDArray[Any]) -> dict[str, Any]:
        """Returns, by name, how each was fitted, for JSON.

        Args:
            y_true: the targets of the V validation rows.

        Returns:
            `seconds`, `strength` (C, or alpha of ridge regression), `reads` (what it reads), and `validation_accuracy`,
            `validation_macro_f1` or `validation_rmse` (None without validation rows).
        """
        found: dict[str, Any] = {}
        for name, rival in self._by_name.items():
            fitted = rival.regression
            found[name] = {
                "seconds": round(self.seconds[name], 2),
                "strength": fitted.strength,
                "reads": rival.reads,
                **_on_validation(self.on_validation.get(name), y_true, fitted.thresholds),
            }
        return found

    def save(self, run: Path) -> None:
        """Writes the files of both to a run folder."""
        for rival in self._by_name.values():
            rival.save(run)

    @classmethod
    def load(cls, run: Path) -> "Rivals":
        """Returns the rivals of a run folder.

        Raises:
            RunError: a file is damaged.
        """
        return cls(Probe.load(run), Tfidf.load(run))

    def keep(self, kept: Kept, head: dict[str, Tensor]) -> None:
        """Writes them for a training that resumes, and the tensors that training starts from.

        Raises:
            OutputError: they cannot be written.
        """
        curve = [[point.rows, point.accuracies] for point in self.curve]
        outputs = {name: from_numpy(found) for name, found in self.on_validation.items()}
        with sealing(*kept) as folder:
            self.save(folder)
            (folder / VALIDATION).write_bytes(save(outputs))
            (folder / HEAD).write_bytes(save(head))
            (folder / FACTS).write_text(json.dumps({"seconds": self.seconds, "curve": curve}), encoding="utf-8")

    @classmethod
    def kept(cls, kept: Kept) -> tuple["Rivals", dict[str, Tensor]] | None:
        """Returns what `keep` wrote; None if it is not there, not whole, or belongs to something else."""
        folder = kept.folder
        if not kept.whole():
            return None
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        found = replace(
            cls.load(folder),
            seconds=facts["seconds"],
            curve=[CurvePoint(rows, tuple(accuracies)) for rows, accuracies in facts["curve"]],
            on_validation={name: found.numpy() for name, found in load_file(folder / VALIDATION).items()},
        )
        return found, load_file(folder / HEAD)


def _on_validation(
    outputs: Array | None, y_true: npt.NDArray[Any], thresholds: Array | None
) -> dict[str, float | None]:
    """Returns how good a rival's outputs (V, K) are."""
    if thresholds is not None:
        if outputs is None:
            return {"validation_macro_f1": None}
        probabilities = expit(outputs)
        found = LabelAgreement(probabilities >= thresholds, probabilities, y_true).figures
        return {"validation_macro_f1": found["macro_f1"]}
    if y_true.dtype.kind == "f":
        return {"validation_rmse": None if outputs is None else Agreement(outputs[:, 0], y_true).figures["rmse"]}
    return {"validation_accuracy": None if outputs is None else float(np.mean(outputs.argmax(axis=1) == y_true))}
