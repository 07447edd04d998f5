"""From chunks of texts to what predict prints: the answers of a run, or of a server's adapter."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.cli.console import show
from bertlora.cli.predict_options import ChosenForm
from bertlora.cli.texts import Chunks
from bertlora.task import MULTILABEL, REGRESSION

if TYPE_CHECKING:
    from bertlora.cli.answers import Form
    from bertlora.cli.remote import RemoteRun
    from bertlora.model.explain import Explanation
    from bertlora.run.loaded import Run

    AnyRun = Run | RemoteRun


def answers(run: "AnyRun", chunks: Chunks, explain: bool, options: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Yields the predictions of each chunk; with `explain`, each text with its explanation as soon as it is there."""
    if explain:
        for line, explanation in explained(run, chunks, options):
            yield [line | {"explanation": explanation and explanation.to_json()}]
        return
    from bertlora.pipeline.predict import answer_of

    # Held ready, the model answers each chunk at once. The base runs without the adapter, for which nothing is held.
    with nullcontext() if options["base"] else run.ready(options["precision"]):
        for chunk in chunks:
            lines = run.predict(*columns(chunk), **options)
            yield [answer_of(line, row) for line, row in zip(lines, chunk, strict=True)]


def explained(
    run: "AnyRun", chunks: Chunks, options: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], "Explanation | None"]]:
    """Yields each prediction with its `Explanation`; None for a blank text."""
    from bertlora.pipeline.predict import answer_of

    for chunk in chunks:
        lines = run.predict(*columns(chunk), **options | {"precision": "fp32"})
        for line, (text, pair) in zip(lines, chunk, strict=True):
            answer = answer_of(line, (text, pair))
            yield answer, None if "error" in answer else _explanation(run, text, pair, options["base"])


def _explanation(run: "AnyRun", text: str, pair: str | None, base: bool) -> "Explanation":
    from bertlora.cli.remote import RemoteRun

    if isinstance(run, RemoteRun):
        return run.explain(text, pair, base)
    from bertlora.model.explain import explain

    return explain(run.adapted, [text], None if pair is None else [pair], base)[0]


def print_every(run: "AnyRun", chunks: Chunks, options: dict[str, Any]) -> None:
    """Prints each prediction with its text in colour."""
    from bertlora.cli.explaining import print_explained

    for line, explanation in explained(run, chunks, options):
        if explanation is None:
            show(f"no label: {line['error']}\n")
        else:
            print_explained(line, explanation)


def columns(chunk: Sequence[tuple[str, str | None]]) -> tuple[list[str], list[str] | None]:
    """Returns the texts of a chunk, and the second texts if they are pairs."""
    return [text for text, _ in chunk], [pair for _, pair in chunk if pair is not None] or None


def form_of(run: "AnyRun", form: ChosenForm, terminal: bool) -> "Form":
    """Returns the form of the answers: a table on a terminal, otherwise by the format."""
    from bertlora.cli.answers import CsvRows, LabelsTable, PredictionTable, ValueTable, json_lines

    width = shutil.get_terminal_size().columns
    if terminal and run.manifest.task == REGRESSION:
        return ValueTable(width)
    if terminal and run.manifest.task == MULTILABEL:
        return LabelsTable(width)
    if terminal:
        return PredictionTable(run.manifest.labels, width)
    return CsvRows(form.safe_csv) if form.name == "csv" else json_lines


@contextmanager
def output(out: str | None) -> Iterator[Any]:
    """Yields a function that writes text to the file `out`, whole or not at all, or to stdout at once."""
    if out:
        from bertlora.files import whole_file

        with whole_file(Path(out)) as file:
            yield file.write
    else:
        yield lambda text: print(text, end="", flush=True)
