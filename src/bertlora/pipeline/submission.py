"""Submissions to GLUE: the answers of a run to the rows of a test set, as the leaderboard takes them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.data.glue import INDEX_NAMES, SUBMISSIONS, score_answer
from bertlora.errors import InputError
from bertlora.files import whole_file
from bertlora.pipeline.predict import FileRows, Line, predicted_chunks
from bertlora.task import CLASSIFICATION, REGRESSION

if TYPE_CHECKING:
    from bertlora.run.loaded import Run


def submission_rows(spec: str, id_column: str | None = None, **columns: Any) -> FileRows:
    """Opens a test set.

    Args:
        spec: a file, or a hub data set.
        id_column: the column with the number of each row; found by its name if None.
        columns: see `FileRows.open`.

    Raises:
        InputError: no column has a known name for the number of the row.
        DataError: the test set cannot be read, or does not have a column.
        HubError: the hub cannot be reached.
    """
    rows = FileRows.open(spec, id_column, **columns)
    if id_column:
        return rows
    index = next((name for name in rows.names if name.lower() in INDEX_NAMES), None)
    if index is None:
        raise InputError(
            f"{rows.source.name}: has none of the columns {', '.join(INDEX_NAMES)}, which number GLUE's test rows; "
            "name it by --id-column"
        )
    return replace(rows, names=[index])


def write_submission(run: "Run", rows: FileRows, out: Path, **options: Any) -> int:
    """Writes the answers of a run to the rows of a test set: a header, then the number and the answer of each row.

    Every row gets an answer, one with a blank text too: the leaderboard refuses a file with fewer rows.

    Args:
        run: the run.
        rows: the rows, with the number of each as their only column.
        out: the file to write, whole or not at all; its name is a key of `SUBMISSIONS`.
        options: those of `Run.predict`.

    Returns:
        The number of rows.

    Raises:
        InputError: the run's task or labels are not those of the file.
        OutputError: `out` cannot be written.
    """
    answer, count = _answers_of(run, out.name), 0
    with whole_file(out) as file:
        file.write("index\tprediction\n")
        for chunk, lines in predicted_chunks(run, rows, options):
            file.writelines(f"{kept[0]}\t{answer(line)}\n" for (_, _, kept), line in zip(chunk, lines, strict=True))
            count += len(chunk)
    return count


def _answers_of(run: "Run", name: str) -> Callable[[Line], str]:
    """Returns what makes an answer of a line of `Run.predict`."""
    manifest, known = run.manifest, SUBMISSIONS[name]
    if manifest.task != (CLASSIFICATION if known else REGRESSION):
        wanted = "a label" if known else "a number"
        raise InputError(f"{run.path}: does {manifest.task}, but {name} holds {wanted} for each row; name another file")
    if manifest.task == REGRESSION:
        return lambda line: score_answer(line["value"])
    for label in manifest.source_labels:
        if label not in known:
            raise InputError(f"{run.path}: its label '{label}' is none of {name}'s: {', '.join(known)}")
    answers = {label: known[source] for label, source in zip(manifest.labels, manifest.source_labels, strict=True)}
    return lambda line: answers[line["label"]]
