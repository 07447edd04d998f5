"""Writes the report into a run's folder, atomically."""

from pathlib import Path

import numpy as np

from bertlora.confidence.spread import Spread
from bertlora.data.inputs import Inputs
from bertlora.data.prepared import Prepared
from bertlora.data.reader import split_examples
from bertlora.evaluation.cautions import Met
from bertlora.evaluation.report.facts import Material, facts_of
from bertlora.evaluation.report.page import render
from bertlora.evaluation.slices import text_slices
from bertlora.evaluation.value_slices import slices_of
from bertlora.evaluation.verdict import evaluated_of
from bertlora.files import write_whole
from bertlora.run.folder import REPORT
from bertlora.run.loaded import Run


def write_report(run: Run, material: Material) -> Path:
    """Writes RUN/report.html and returns its path.

    Raises:
        OutputError: the file cannot be written; an older report is unchanged.
    """
    path = run.path / REPORT
    write_whole(path, render(facts_of(run, material)))
    return path


def report_training(run: Run, data: Prepared, train: Inputs) -> Path:
    """Writes a report from the measurements of training, without another pass of the model.

    Args:
        run: the run, just saved; its calibration holds the outputs for the validation rows.
        data: the data that it was trained on.
        train: the training texts.

    Raises:
        OutputError: the file cannot be written.
    """
    material = Material(inputs=train, lengths_where="training split", advice=run.metrics().get("advice"))
    if run.calibration.rows:
        rows = data.split("validation")
        saved = run.calibration
        outputs = saved.values[:, None] if isinstance(saved, Spread) else saved.logits
        evaluated = evaluated_of(run, saved.y_true, {"lora": outputs.astype(np.float64)}, "validation rows")
        lengths = split_examples(run.adapted.reader, data, "validation").inputs.whole
        material = Material(
            evaluated=evaluated,
            where="validation split",
            met=Met(len(rows), 0, len(rows), run.manifest.task),
            texts=rows.texts,
            pairs=rows.pairs,
            rows=rows.rows,
            inputs=material.inputs,
            lengths_where=material.lengths_where,
            slices=slices_of(evaluated, list(text_slices(rows.texts, rows.pairs, lengths))),
            advice=material.advice,
        )
    return write_report(run, material)
