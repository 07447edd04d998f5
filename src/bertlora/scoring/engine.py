"""Runs the model on parts, on this machine: reading, tokenising and computing overlap."""

from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bertlora.confidence.probabilities import Array
from bertlora.scoring.ahead import ahead
from bertlora.scoring.parts import Part

if TYPE_CHECKING:
    from bertlora.run.loaded import Run


class Computed(NamedTuple):
    """A part and the outputs of the model for its texts, (B, K)."""

    part: Part
    outputs: Array


def computed(run: "Run", parts: Generator[Part, None, None], precision: str) -> Generator[Computed, None, None]:
    """Yields the parts with their outputs, in order. The weights are made ready once.

    Args:
        run: the run.
        parts: the parts.
        precision: `fp32` or `bf16`.
    """
    return ahead(_outputs(run, ahead(_tokenised(run, ahead(parts))), precision))


def _tokenised(run: "Run", parts: Generator[Part, None, None]) -> Generator[tuple[Part, Any], None, None]:
    with closing(parts):
        for part in parts:
            yield part, run.model.reader.read(part.texts, part.pairs)


def _outputs(
    run: "Run", tokenised: Generator[tuple[Part, Any], None, None], precision: str
) -> Generator[Computed, None, None]:
    with closing(tokenised), run.ready(precision):
        for part, inputs in tokenised:
            # A part may hold bad rows only.
            yield Computed(part, run.model.logits(inputs, precision=precision) if part.texts else np.empty((0, 0)))
