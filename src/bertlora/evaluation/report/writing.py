"""Writing the report into a run's folder, whole or not at all."""

from pathlib import Path

import numpy as np

from bertlora.data.inputs import Inputs
from bertlora.data.prepared import Prepared
from bertlora.evaluation.report.facts import Material, facts_of
from bertlora.evaluation.report.page import render
from bertlora.evaluation.verdict import Judged
from bertlora.files import write_whole
from bertlora.run import Run
from bertlora.run.folder import REPORT


def write_report(run: Run, material: Material) -> Path:
    """Writes RUN/report.html and returns its path.

    Raises:
        OutputError: it cannot be written; an older one stands.
    """
    path = run.path / REPORT
    write_whole(path, render(facts_of(run, material)))
    return path


def report_training(run: Run, data: Prepared, train: Inputs) -> Path:
    """Writes the report of what training measured: no text runs through the model again.

    Args:
        run: just saved; its calibration holds the logits of the validation rows.
        data: what it was trained on.
        train: the training texts.

    Raises:
        OutputError: it cannot be written.
    """
    material = Material(inputs=train, lengths_where="training split", advice=run.metrics().get("advice"))
    if run.calibration is not None:
        rows = data.split("validation")
        scores = {"lora": run.calibration.logits.astype(np.float64)}
        judged = Judged(run.manifest.labels, run.calibration.labels, scores, run.calibration.temperature)
        material = Material(
            judged=judged,
            where="validation split",
            met="validation",
            texts=rows.texts,
            pairs=rows.pairs,
            rows=rows.rows,
            inputs=material.inputs,
            lengths_where=material.lengths_where,
            advice=material.advice,
        )
    return write_report(run, material)
