"""The rows at which a training failed, kept in the run folder for a look."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertlora.data.prepared import Prepared
from bertlora.errors import HealthError
from bertlora.files import json_line, write_whole
from bertlora.task import CLASSIFICATION, MULTILABEL
from bertlora.training.failed_batch import FailedBatch, FailedBatchError

NAME = "failed_batch.jsonl"


@contextmanager
def failed_rows_kept(run: Path, data: Prepared, main: bool) -> Iterator[None]:
    """Inside, the batch at which the training of `run` fails is written to a file there.

    Args:
        run: the run folder.
        data: the data of the training.
        main: whether this is the main process; the others write nothing.

    Raises:
        HealthError: names the file.
    """
    if main:
        (run / NAME).unlink(missing_ok=True)  # of an earlier try
    try:
        yield
    except FailedBatchError as error:
        if not main:
            raise
        write_whole(run / NAME, "".join(json_line(line) + "\n" for line in _lines(error.batch, data)))
        raise HealthError(f"{error.args[0]}; {run / NAME} has the batch") from error


def _lines(batch: FailedBatch, data: Prepared) -> Iterator[dict[str, Any]]:
    """Yields a line for each row: its number, text, label, tokens and loss. A loss that is not finite is a string."""
    columns = ["row", "text", *(["text_pair"] if data.has_pairs else []), "label"]
    values = [_picked(data.stream(batch.split, column), batch.rows) for column in columns]
    for row, tokens, loss, found in zip(batch.rows, batch.tokens, batch.losses, zip(*values, strict=True), strict=True):
        source_row, *texts, target = found
        yield {
            "split": batch.split,
            "row": row,
            "source_row": source_row,
            **dict(zip(columns[1:-1], texts, strict=True)),
            "label": _shown(target, data),
            "tokens": tokens,
            "loss": loss if math.isfinite(loss) else str(loss),
        }


def _picked(column: Iterable[Any], rows: Sequence[int]) -> list[Any]:
    """Returns the values of these rows, in the order of `rows`; the column is not held in memory."""
    wanted = set(rows)
    found = {i: value for i, value in enumerate(column) if i in wanted}
    return [found[row] for row in rows]


def _shown(target: Any, data: Prepared) -> Any:
    """Returns a target as the source has it: a name, a list of names, or a number."""
    if data.task == CLASSIFICATION:
        return data.labels[target]
    return [data.labels[i] for i in target] if data.task == MULTILABEL else target
