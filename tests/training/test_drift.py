"""Another number format and another number of threads give nearly the same training: the short form of faults/drift."""

from collections.abc import Callable
from pathlib import Path

from drift import drift, short

from bertlora.recipe import Recipe


def test_bf16_stays_near_fp32_and_two_threads_near_one(tiny: Callable[[str], Path]) -> None:
    found = drift(short(Recipe.named("default"), str(tiny("bert"))))
    assert found.kept
    assert 0 < found.logit < 0.1 * found.spread  # not 0: it was bf16
