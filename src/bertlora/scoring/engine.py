"""Runs the model on parts, on this machine: reading, tokenising and computing overlap.

A row on which the model fails is set aside, and the others are computed: see `computed_rows`, which Ray's workers call
too.
"""

import re
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bertlora.confidence.probabilities import Array
from bertlora.errors import FullMemoryError, InUseError, RunError, first_line, is_panic
from bertlora.scoring.ahead import ahead
from bertlora.scoring.parts import Part

if TYPE_CHECKING:
    from bertlora.run.loaded import Run

# Faults of the machine in the words of torch, ONNX Runtime and OpenVINO, which have no types of their own for them.
MACHINE = re.compile(r"out of memory|allocate|bad.?alloc|CUDA|cuBLAS|cuDNN|HIP error", re.IGNORECASE)
# Every model can compute it.
PLAIN = "a text"


class Computed(NamedTuple):
    """A part and the outputs of the model for its texts, (B, K)."""

    part: Part
    outputs: Array


class ComputedRows(NamedTuple):
    """What the model gave for B rows.

    Attributes:
        outputs: of the rows that could be computed, in order.
        faults: the other rows, from 0, each with its reason.
    """

    outputs: Array
    faults: dict[int, str]


def computed(run: "Run", parts: Generator[Part, None, None], precision: str) -> Generator[Computed, None, None]:
    """Yields the parts with their outputs, in order. The weights are made ready once.

    Args:
        run: the run.
        parts: the parts.
        precision: `fp32`, `bf16` or `int8`.
    """
    return ahead(_outputs(run, ahead(_tokenised(run, ahead(parts))), precision))


def read_rows(model: Any, texts: Sequence[str], pairs: Sequence[str] | None) -> Any:
    """Returns the inputs of rows; or the error, if one of them cannot be tokenised.

    Raises:
        Exception: the machine is at fault.
    """
    try:
        return model.reader.read(texts, pairs)
    except BaseException as error:
        _check_row_is_at_fault(error)
        return error


def computed_rows(
    model: Any, texts: Sequence[str], pairs: Sequence[str] | None, inputs: Any, precision: str
) -> ComputedRows:
    """Returns the outputs of rows. If the model fails, the rows on which it fails are set aside.

    Args:
        model: the run's model, ready in `precision`.
        texts: the texts.
        pairs: their second texts, or None.
        inputs: what `read_rows` returns for them.
        precision: `fp32`, `bf16` or `int8`.

    Raises:
        Exception: the machine is at fault, for example its memory is full, or the model fails on every text.
    """
    if not texts:  # a part may hold bad rows only
        return ComputedRows(np.empty((0, 0)), {})
    try:
        if isinstance(inputs, BaseException):
            raise inputs
        return ComputedRows(model.logits(inputs, precision=precision), {})
    except BaseException as error:
        _check_row_is_at_fault(error)
        try:
            _logits(model, [PLAIN], None if pairs is None else [PLAIN], precision)
        except BaseException as other:
            if not isinstance(other, Exception) and not is_panic(other):
                raise
            # A panic is no `Exception`, so nobody above would make one line of it.
            raise (RunError(first_line(error)) if is_panic(error) else error) from None
        return _halved(model, texts, pairs, precision)


def _halved(model: Any, texts: Sequence[str], pairs: Sequence[str] | None, precision: str) -> ComputedRows:
    """Halves the rows until the ones on which the model fails are found: one takes 2 log2(B) calls, not B."""
    found, faults, waiting = [], dict[int, str](), [range(len(texts))]
    while waiting:
        rows = waiting.pop()
        some = slice(rows.start, rows.stop)
        try:
            found.append(_logits(model, texts[some], None if pairs is None else pairs[some], precision))
        except BaseException as error:
            _check_row_is_at_fault(error)
            if len(rows) == 1:
                faults[rows.start] = f"the model cannot compute it ({first_line(error)})"
            else:
                half = len(rows) // 2
                waiting += [rows[half:], rows[:half]]  # the first half is taken first
    return ComputedRows(np.concatenate(found) if found else np.empty((0, 0)), faults)


def _logits(model: Any, texts: Sequence[str], pairs: Sequence[str] | None, precision: str) -> Array:
    logits: Array = model.logits(model.reader.read(texts, pairs), precision=precision)
    return logits


def _check_row_is_at_fault(error: BaseException) -> None:
    """Raises an error again, unless a row may cause it. Libraries may raise any type."""
    of_machine = isinstance(error, MemoryError | OSError | InUseError | FullMemoryError)
    said = isinstance(error, RuntimeError | RunError) and MACHINE.search(str(error))
    if of_machine or said or not (isinstance(error, Exception) or is_panic(error)):
        raise error


def _tokenised(run: "Run", parts: Generator[Part, None, None]) -> Generator[tuple[Part, Any], None, None]:
    with closing(parts):
        for part in parts:
            yield part, read_rows(run.model, part.texts, part.pairs)


def _outputs(
    run: "Run", tokenised: Generator[tuple[Part, Any], None, None], precision: str
) -> Generator[Computed, None, None]:
    with closing(tokenised), run.ready(precision):
        for part, inputs in tokenised:
            outputs, faults = computed_rows(run.model, part.texts, part.pairs, inputs, precision)
            yield Computed(part.without(faults), outputs)
