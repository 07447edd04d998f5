"""What a script requires of figures: `evaluate --fail-under`, `compare --fail-if-worse`. Otherwise the status is 1."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click

from bertlora.cli.verb import UnmetError
from bertlora.errors import suggestion

# A higher value of these metrics is better. For the others "under" would be good.
METRICS = (
    "accuracy",
    "top_3_accuracy",
    "top_5_accuracy",
    "balanced_accuracy",
    "macro_f1",
    "weighted_f1",
    "matthews",
    "f1",
    "roc_auc",
    "average_precision",
    "micro_f1",
    "subset_accuracy",
    "pearson",
    "spearman",
    "r2",
)
LOW = "_low"  # of the 95 % interval


class Floor(NamedTuple):
    """The lowest value that a metric may have; `accuracy_low` is the lower end of accuracy's 95 % interval."""

    name: str
    value: float


class FloorType(click.ParamType):  # type: ignore[type-arg]  # no type argument in click 8.2
    """`accuracy=0.85`, or `accuracy_low=0.8`."""

    name = "floor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Floor:
        """Returns the floor; anything else is a usage error."""
        if isinstance(value, Floor):
            return value
        name, _, text = value.partition("=")
        if name.removesuffix(LOW) not in METRICS:
            expected = f"one of {', '.join(METRICS)}, or one with {LOW}; more must be better"
            self.fail(f"got '{name}', expected {expected}{suggestion(name, METRICS)}", param, ctx)
        try:
            floor = float(text)
        except ValueError:
            floor = float("nan")
        if not 0 <= floor <= 1:
            self.fail(f"got '{value}', expected a number from 0 to 1 such as {name}=0.85", param, ctx)
        return Floor(name, floor)


def check_floors(found: dict[str, Any], floors: Sequence[Floor]) -> None:
    """Raises UnmetError, with a sentence on each figure of LoRA that is under its floor or is not known."""
    said = []
    for name, floor in floors:
        value = _figure(found["lora"], name)
        if value is None:
            said.append(f"{name} is not known on these rows, expected {floor:g} or more")
        elif value < floor:
            said.append(f"{name} {value:.4f} is under {floor:g}")
    if said:
        raise UnmetError(found, f"{'; '.join(said)} (LoRA on {found['n']:,} rows, {found['where']})")


def check_not_worse(found: dict[str, Any], run: str) -> None:
    """Raises UnmetError if a run is significantly worse than another one that `compare` compared it with."""
    worse = [pair["verdict"] for pair in found["pairs"] if pair["significant"] and _loss(pair, run) > 0]
    if worse:
        raise UnmetError(found, f"{run} is worse: {' '.join(worse)}")


def _figure(figures: Mapping[str, Any], name: str) -> float | None:
    """Returns a metric, or the lower end of its interval; None if there is none."""
    if name.endswith(LOW):
        low, _ = figures.get(f"{name.removesuffix(LOW)}_ci95") or (None, None)
        return low
    return figures.get(name)


def _loss(pair: Mapping[str, Any], run: str) -> float:
    """Returns by how much a run is worse than the other run of a pair; 0 if it is not one of the two."""
    sign = (pair["first"] == run) - (pair["second"] == run)
    # Classes are compared in points, numbers by their RMSE. In both a gain is the second run's.
    return float(sign * (pair["tested"]["gain_points"] if "tested" in pair else pair["gain"]))
