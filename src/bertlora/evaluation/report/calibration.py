"""Calibration in the report: reliability and what chance gives, risk and coverage. Facts, sentences and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.confidence.abstention import risk_coverage
from bertlora.confidence.probabilities import Array, Bin, CalibrationError, reliability, softmax
from bertlora.evaluation.report import charts
from bertlora.evaluation.report.charts import TALL, Picture, line_chart
from bertlora.evaluation.report.plot import Axis, Series, legend, patch, percent, round_ticks
from bertlora.evaluation.report.tables import in_percent, interval
from bertlora.evaluation.verdict import Evaluated

Table = dict[str, Any]

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
CURVE_POINTS = 200
PERFECT = patch("band"), "perfect probabilities, 95 % range"


def calibration_facts(evaluated: Evaluated, fitted: bool, met: str) -> Table:
    """Returns the reliability curve of LoRA's raw probabilities, and with its temperature if one was `fitted`."""
    raw, scaled = softmax(evaluated.raw_logits["lora"]), softmax(evaluated.logits("lora"))
    return {
        "classes": len(evaluated.labels),
        "n": len(evaluated.y_true),
        "temperature": evaluated.calibration.temperature if fitted else None,
        "met": met,
        "before": _reliability(raw, evaluated.y_true),
        "after": _reliability(scaled, evaluated.y_true) if fitted else None,
    }


def _reliability(probabilities: Array, y_true: npt.NDArray[np.int64]) -> Table:
    error = CalibrationError.of(probabilities, y_true)
    found = {"above_chance": error.above_chance, "bins": bin_facts(reliability(probabilities, y_true))}
    return error.figures() | found


def bin_facts(bins: Sequence[Bin]) -> list[Table]:
    """Returns a reliability curve as plain data."""
    keys = "accuracy_ci95", "perfect_range95"
    return [asdict(one) | {key: list(getattr(one, key)) for key in keys} for one in bins]


def risk_facts(evaluated: Evaluated) -> Table:
    """Returns LoRA's risk-coverage curve, thinned to at most 200 points, and its values at round coverages."""
    found = risk_coverage(softmax(evaluated.logits("lora")), evaluated.y_true)

    def at(place: int) -> Table:
        coverage, risk, least = (float(part[place]) for part in (found.coverage, found.risk, found.thresholds))
        return {"coverage": coverage, "risk": risk, "confidence": least}

    last = len(found.coverage) - 1
    curve = np.unique(np.linspace(0, last, min(last + 1, CURVE_POINTS)).round().astype(int))
    # The first threshold that answers at least as many: rows of equal confidence are answered together.
    rounds = dict.fromkeys(int(np.searchsorted(found.coverage, share - 1e-9)) for share in COVERAGES)
    return {"area": found.area, "curve": [at(int(i)) for i in curve], "points": [at(i) for i in rounds]}


def calibration_sentences(part: Table) -> list[str]:
    """Returns the calibration errors, and whether they are above what chance gives, in sentences."""
    if part["after"] is None:
        return [_error_sentence("The confidence", part["before"], part["n"]), "No temperature was fitted."]
    scaled = f"With temperature {part['temperature']:.2f}, which predict uses, the confidence"
    said = [_error_sentence(scaled, part["after"], part["n"])]
    said += [_error_sentence("Without temperature scaling, the confidence", part["before"], part["n"])]
    if part["met"] == "validation":
        said.append("The temperature was fitted on these rows, so the first figure is too good.")
    return said


def _error_sentence(subject: str, curve: Table, rows: int) -> str:
    """Returns a measured error, and how much of it chance explains."""
    error, floor = 100 * curve["ece"], 100 * curve["ece_floor"]
    low, high = (100 * end for end in curve["ece_floor_range95"])
    least, most = (100 * end for end in curve["ece_ci95"])
    start = (
        f"{subject} differs from the accuracy by {error:.1f} points on average (95 % CI of the true error {least:.1f} "
        f"to {most:.1f})"
    )
    chance = (
        f"With {rows:,} rows, perfect probabilities would differ by {floor:.1f} points (95 % range {low:.1f} to "
        f"{high:.1f})"
    )
    if curve["above_chance"]:
        return f"{start}. {chance}: {error - floor:.1f} points are more than chance gives."
    if curve["ece"] > curve["ece_floor_range95"][1]:
        return f"{start}. {chance}: a borderline case, above this range, but the interval includes 0."
    return f"{start}. {chance}: no miscalibration is shown."


def reliability_picture(part: Table) -> Picture:
    """Returns LoRA's accuracy at each confidence, with and without temperature scaling."""
    raw, scaled = part["before"], part["after"]
    title = "Reliability"
    series = [Series("without temperature", _reliable(raw["bins"]), 0 if scaled is None else 1)]
    said = f"Calibration error {_error(raw)} without temperature scaling"
    if scaled is not None:
        series.insert(0, Series(f"with temperature {part['temperature']:.2f}", _reliable(scaled["bins"]), 0))
        said += f", {_error(scaled)} with temperature {part['temperature']:.2f}"
    shown = raw if scaled is None else scaled
    low = min(1 / part["classes"], shown["bins"][0]["low"])
    svg = charts.reliability("reliability", title, said + ".", series, shown["bins"], low)
    columns = ["probabilities", "confidence", "mean confidence", "accuracy", "95 % CI", "95 % if perfect", "rows"]
    curves = {"without temperature": raw["bins"], "with temperature": scaled and scaled["bins"]}
    return Picture("reliability", title, svg, columns, _bin_rows(curves), [*legend(series), PERFECT])


def event_picture(part: Table) -> Picture:
    """Returns the share of rows that have a label at each probability of it, with and without temperatures.

    Args:
        part: the bins `before` the temperatures, and `after` them, or None.
    """
    raw, scaled = part["before"], part["after"]
    title = "Reliability of all labels"
    series = [Series("without temperatures", _reliable(raw), 0 if scaled is None else 1)]
    if scaled is not None:
        series.insert(0, Series("with the temperatures", _reliable(scaled), 0))
    shown = raw if scaled is None else scaled
    said = "; ".join(f"probability {in_percent(b['confidence'])}, share {in_percent(b['accuracy'])}" for b in shown)
    svg = charts.reliability("reliability", title, said + ".", series, shown, 0.0, "probability of a label", "have it")
    columns = ["probabilities", "probability", "mean", "have the label", "95 % CI", "95 % if perfect", "decisions"]
    rows = _bin_rows({"without temperatures": raw, "with the temperatures": scaled})
    return Picture("reliability", title, svg, columns, rows, [*legend(series), PERFECT])


def _bin_rows(curves: Mapping[str, Sequence[Table] | None]) -> list[list[str]]:
    """Returns the cells of the bins of each curve that is there."""
    return [
        [
            name,
            f"{100 * b['low']:.0f} to {100 * b['high']:.0f} %",
            in_percent(b["confidence"]),
            in_percent(b["accuracy"]),
            interval(b["accuracy_ci95"]),
            interval(b["perfect_range95"]),
            f"{b['count']:,}",
        ]
        for name, bins in curves.items()
        for b in bins or ()
    ]


def risk_picture(part: Table) -> Picture:
    """Returns the error rate if only the most confident texts get a label."""
    points = [(p["coverage"], p["risk"]) for p in part["curve"]]
    title = "Risk and coverage"
    top = max(max(y for _, y in points), 0.01)
    x, y = (
        Axis("texts with a label", [0, 0.2, 0.4, 0.6, 0.8, 1], percent),
        Axis("wrong labels", round_ticks(0, top, 4), percent),
    )
    said = "; ".join(
        f"{percent(p['coverage'])} get a label, {in_percent(p['risk'])} of these are wrong" for p in part["points"]
    )
    svg = line_chart("risk", title, said + ".", [Series("LoRA", points)], x, y, height=TALL)
    columns = ["texts with a label", "wrong labels", "lowest confidence"]
    rows = [[percent(p["coverage"]), in_percent(p["risk"]), f"{p['confidence']:.3f}"] for p in part["points"]]
    return Picture("risk", title, svg, columns, rows)


def _reliable(bins: Sequence[Table]) -> list[tuple[float, float]]:
    return [(b["confidence"], b["accuracy"]) for b in bins]


def _error(curve: Table) -> str:
    return f"{curve['ece']:.3f} ({curve['ece_floor']:.3f} by chance)"
