"""The verb compare: several runs on the same rows, every pair with a paired test."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from bertlora.data.prepared import Prepared, is_prepared
from bertlora.errors import InputError
from bertlora.pipeline.prepare import ColumnNames, Source, as_specs
from bertlora.training.events import Listener

if TYPE_CHECKING:
    from bertlora.evaluation.verdict import AnyEvaluated
    from bertlora.run.loaded import Run

# What follows for the figures if the best run is chosen on these rows.
NOTES = {
    "validation rows": "These rows chose the epoch of each run too. For a figure that holds for new texts, evaluate "
    "the run that you choose on its test split: bertlora evaluate RUN.",
    "test rows": "After a choice on the test split, no rows are left for a figure of the chosen run that holds for new "
    "texts: choose on the validation split (--split validation).",
}


def compare(
    runs: Sequence[str | Path],
    data: Source = (),
    split: str = "",
    *,
    seeds: int = 1,
    train_missing: bool = False,
    model: str = "",
    precision: str = "auto",
    on_progress: Callable[[str], None] = lambda _: None,
    on_event: Listener = lambda _: None,
    **columns: Unpack[ColumnNames],
) -> dict[str, Any]:
    """Compares runs on the same rows; with `seeds`, the recipes of the runs under the same seeds.

    One file in place of runs is the log of shadows that `serve` wrote: each candidate is compared with its adapter, on
    the texts that people have labelled in it.

    Args:
        runs: two or more run folders, or adapters that PEFT saved; or the log of shadows, and then no other option.
        data: a prepared folder or any labelled source; empty takes the data of the first run.
        split: which split; empty takes validation, or test if a prepared folder has no validation split.
        seeds: compare this number of seeds of each run, 3 or more, as `train --seeds` made them; 1 compares the runs.
        train_missing: train the seeds that a run does not have.
        model: where the base model is, if it has moved.
        precision: `fp32`, `bf16`, `int8` or `auto`.
        on_progress: called with a line before each run is evaluated, and with each caution.
        on_event: called with what happens in training.
        columns: the columns of a source.

    Returns:
        What `compare --json` prints: `n`, `where`, `runs` {name: figures}, `metric`, `ranking`, `pairs`, `note`. With
        several seeds also `seeds`, otherwise `choice`: how much the figure of the best run is too high. For the log of
        shadows what `compare_shadows` returns.

    Raises:
        InputError: fewer than two different runs, two seeds, or a run does not have the seeds.
        RunError, DataError: a run or the log cannot be read, or there are no such rows.
    """
    if len(runs) == 1 and Path(runs[0]).is_file():
        from bertlora.pipeline.shadow_log import compare_shadows

        if data or split or seeds > 1 or train_missing or any(columns.values()):
            raise InputError(f"{runs[0]}: holds its own texts and labels; leave the options for runs and rows out")
        return compare_shadows(Path(runs[0]))
    check_different(runs)
    if seeds == 2:
        raise InputError(
            "--seeds: got 2, expected 3 or more; two seeds do not show how much chance there is between seeds"
        )
    rows = data, split, model, precision, on_progress
    if seeds == 1:
        evaluated, where = _outputs(evaluated_runs(runs, *rows, **columns))
        result = _side_by_side(evaluated)
    else:
        from bertlora.pipeline.compare_seeds import folders_of_seeds

        values, folders = folders_of_seeds(runs, seeds, train_missing, on_progress, on_event)
        evaluated, where = _outputs(evaluated_runs(list(chain(*folders.values())), *rows, **columns))
        result = _recipes(folders, evaluated, values)
    return result | {"where": where, "note": choice_note(where)}


def choice_note(where: str) -> str:
    """Returns what follows for the figures if the best run is chosen on the rows of this place; may be empty."""
    from bertlora.evaluation.verdict import rows_of

    return NOTES.get(rows_of(where), "")


def _side_by_side(evaluated: "Mapping[str, AnyEvaluated]") -> dict[str, Any]:
    """Returns what `compare --json` prints for the task of the runs, given their outputs by folder.

    Raises:
        InputError: the runs have different tasks.
    """
    from bertlora.evaluation.label_pairs import labels_side_by_side
    from bertlora.evaluation.multilabel import EvaluatedLabels
    from bertlora.evaluation.side_by_side import side_by_side
    from bertlora.evaluation.value_pairs import values_side_by_side
    from bertlora.evaluation.values import EvaluatedValues
    from bertlora.evaluation.verdict import Evaluated

    values = {name: found for name, found in evaluated.items() if isinstance(found, EvaluatedValues)}
    several = {name: found for name, found in evaluated.items() if isinstance(found, EvaluatedLabels)}
    classes = {name: found for name, found in evaluated.items() if isinstance(found, Evaluated)}
    if len({found.predicts for found in evaluated.values()}) > 1:
        (what, one), (other_what, other), *_ = {found.predicts: name for name, found in evaluated.items()}.items()
        raise InputError(f"RUN: {one} predicts {what}, and {other} {other_what}")
    return values_side_by_side(values) if values else labels_side_by_side(several) if several else side_by_side(classes)


def _recipes(
    folders: Mapping[str, Sequence[Path]], evaluated: "Mapping[str, AnyEvaluated]", seeds: Sequence[int]
) -> dict[str, Any]:
    """Returns what `compare --seeds --json` prints, given the folders by run, and the logits by folder."""
    from bertlora.evaluation.recipes import compare_recipes
    from bertlora.evaluation.verdict import Evaluated

    found = {folder: one for folder, one in evaluated.items() if isinstance(one, Evaluated)}
    if len(found) < len(evaluated):
        what = next(iter(evaluated.values())).predicts
        raise InputError(f"--seeds: recipes are compared by accuracy, and these runs predict {what}; leave it out")
    right = {run: [found[str(folder)].right("lora") for folder in group] for run, group in folders.items()}
    return compare_recipes(next(iter(found.values())).y_true, right, seeds)


def _outputs(evaluations: "Iterable[tuple[str, Run, AnyEvaluated, str]]") -> "tuple[dict[str, AnyEvaluated], str]":
    """Returns the outputs of runs by folder, and what the rows are. It keeps no model."""
    found = {name: (rows, where) for name, _, rows, where in evaluations}
    return {name: rows for name, (rows, _) in found.items()}, next(iter(found.values()))[1]


def check_different(runs: Sequence[str | Path]) -> None:
    """Raises InputError for fewer than two runs, and for a folder that is named twice in any way."""
    if len(runs) < 2 or len({Path(name).resolve() for name in runs}) < len(runs):
        raise InputError(f"RUN: got {' '.join(map(str, runs))}, expected two or more different runs")


def evaluated_runs(
    names: Sequence[str | Path],
    data: Source,
    split: str,
    model: str,
    precision: str,
    on_progress: Callable[[str], None],
    **columns: Unpack[ColumnNames],
) -> "Iterator[tuple[str, Run, AnyEvaluated, str]]":
    """Yields folder, run, its logits on the same rows as the others', and what the rows are.

    The rows choose among the runs, so the default is the validation split.

    Args:
        names: the folders.
        data: as in `compare`.
        split: which split; empty takes the default.
        model: as in `compare`.
        precision: as in `compare`.
        on_progress: as in `compare`.
        columns: the columns of a source.
    """
    from bertlora.evaluation.verdict import evaluated_of
    from bertlora.pipeline.rows import own_data, rows_for
    from bertlora.run.loaded import Run

    own, where = not data, ""
    for name in map(str, names):
        run = Run.load(name, model)
        data = data or [str(own_data(run))]
        split = split or ("validation" if _has_validation(data) else "")
        rows = rows_for(run, data, split, **columns)
        split = split or rows.split
        where = where or (f"{split} split of the data of {name}" if own else rows.where)
        if rows.met.caution and rows.met.split != "validation":
            on_progress(f"caution, {name}: {rows.met.caution}")
        for note in rows.texts.notes:
            on_progress(f"note: {note}")
        on_progress(f"evaluating {len(rows.examples):,} rows by {name}")
        logits = run.adapted.logits(rows.examples.inputs, precision=run.choose_precision(precision))
        yield name, run, evaluated_of(run, rows.examples.labels, {"lora": logits}), where


def _has_validation(data: Source) -> bool:
    """Returns whether the data is a prepared folder with a validation split."""
    specs = as_specs(data)
    return len(specs) == 1 and is_prepared(specs[0]) and bool(Prepared.load(Path(specs[0])).rows.get("validation"))
