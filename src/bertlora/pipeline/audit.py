"""The verb audit: the rows whose label is most doubtful, from cross-validated folds."""

import csv
import io
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.data.named_columns import SourceColumns
from bertlora.data.prepared import Prepared, Split, source_paths
from bertlora.errors import DataError, InputError
from bertlora.files import check_vacant_file, write_whole
from bertlora.model.base import find_base
from bertlora.pipeline.prepare import Source, as_specs, given_data, require_data
from bertlora.pipeline.train import check_before_reading, resolved_recipe
from bertlora.recipe import Recipe, recipe_keys
from bertlora.run.lock import locked
from bertlora.sealed import Kept
from bertlora.task import CLASSIFICATION
from bertlora.training.events import Listener, Probing
from bertlora.training.stops import termination_raised

if TYPE_CHECKING:
    from bertlora.evaluation.audit import Audit


def audit(
    data: Source,
    recipe: str | Recipe | None = None,
    *,
    split: str = "train",
    folds: int = 5,
    out: str | Path | None = None,
    overwrite: bool = False,
    on_event: Listener = lambda _: None,
    columns: SourceColumns | None = None,
    **keys: Any,
) -> dict[str, Any]:
    """Ranks rows by how much cross-validated models doubt their label.

    Args:
        data: a prepared folder or any source.
        recipe: how each fold is trained: a recipe, its name, or a TOML file; None is `audit`.
        split: which split; `train` is all of a single table.
        folds: how many, 2 or more. Each row is evaluated by the model that was not trained on it.
        out: a CSV file to write, with every row and its score, most doubtful first. Until it is there, folds that are
            done are kept next to it: the same call after an interrupt does not train them again.
        overwrite: replace the file that `out` names.
        on_event: called with a `Probing` before, and each `Step`.
        columns: the columns of a source.
        keys: recipe keys that replace the recipe's own values.

    Returns:
        `doubtful`: [{`row`, `given`, `suggested`, `confidence`, `text`, `place`}], most doubtful first; `rows`,
        `folds`, `accuracy` of the held-out rows, and `seconds`. How far the list can be trusted is in `most_errors`,
        `likely_right`, `contradicted` and `weak`; see `Audit`.

    Raises:
        InputError, RecipeError, DataError, ModelError: an option, the data or the base cannot be used.
        OutputError: `out` cannot be written, or another process writes it.
    """
    if folds < 2:
        raise InputError(f"--folds: got {folds}, expected 2 or more")
    # A single table is audited whole, so no rows are held out.
    chosen = resolved_recipe(recipe or "audit", keys).replace(split="100/0/0", validation_fraction=0.0)
    if out is not None:
        check_vacant_file(Path(out), overwrite, source_paths(as_specs(data)))
    require_data(data, chosen)
    check_before_reading(chosen, data, columns or {}, keys)
    with (
        termination_raised(),
        nullcontext() if out is None else locked(Path(out)),
        tempfile.TemporaryDirectory() as folder,
    ):
        prepared = given_data(data, chosen, Path(folder) / "data", **(columns or {}))
        if prepared.task != CLASSIFICATION:
            raise InputError(f"audit: checks the labels of classes, and the task of these data is {prepared.task}")
        if split not in prepared.rows:
            where = " ".join(as_specs(data) or chosen.data)
            raise DataError(f"{where}: has no {split} split, only {', '.join(prepared.rows)}; name one of these")
        rows = prepared.split(split)
        began = time.perf_counter()
        kept = None if out is None else _kept(Path(out), prepared, split, chosen, folds)
        found = _audited(prepared, split, rows, chosen, folds, on_event, kept)
        seconds = time.perf_counter() - began
        places = prepared.places(split, rows.rows[found.flagged].tolist())
        doubtful = [_line(found, rows, prepared.labels, i) for i in found.flagged.tolist()]
        doubtful = [line | {"place": place} for line, place in zip(doubtful, places, strict=True)]
        if out is not None and kept is not None:
            write_whole(Path(out), _csv(found, rows, prepared.labels))
            shutil.rmtree(kept.folder, ignore_errors=True)
    return {
        "doubtful": doubtful,
        "rows": len(rows),
        "most_errors": found.most_errors,
        "likely_right": found.likely_right,
        "contradicted": found.contradicted,
        "weak": found.weak,
        "folds": folds,
        "accuracy": found.accuracy,
        "seconds": round(seconds, 1),
    }


def _kept(out: Path, data: Prepared, split: str, recipe: Recipe, folds: int) -> Kept:
    """Returns where folds that are done are kept until `out` is written, and what they must belong to."""
    options = {key: getattr(recipe, key) for key in recipe_keys() if key not in ("data", "samples", "tracker")}
    facts = [data.fingerprint, split, folds, find_base(recipe.model).sha256(), options]
    return Kept(out.with_name(f".{out.name}.folds"), {"belongs": facts})


def _audited(
    data: Prepared, split: str, rows: Split, recipe: Recipe, folds: int, on_event: Listener, kept: Kept | None
) -> "Audit":
    from bertlora.data.reader import split_examples
    from bertlora.evaluation.audit import audit as audit_rows
    from bertlora.model.adapted import Adapted

    adapted = Adapted.fresh(recipe, data.labels, data.has_pairs)
    examples = split_examples(adapted.reader, data, split)
    on_event(Probing(len(rows)))
    return audit_rows(adapted, recipe, examples, rows, folds, on_event, kept)


def _line(found: "Audit", rows: Split, labels: Sequence[str], i: int) -> dict[str, Any]:
    return {
        "row": int(rows.rows[i]),
        "given": labels[found.y_true[i]],
        "suggested": labels[found.suggested[i]],
        "confidence": float(found.probabilities[i].max()),
        "text": rows.texts[i],
    }


def _csv(found: "Audit", rows: Split, labels: Sequence[str]) -> str:
    """Returns one line per row, most doubtful first."""
    import numpy as np

    doubtful = np.isin(np.arange(len(rows)), found.flagged)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["row", "given", "suggested", "confidence", "label_quality", "doubtful", "fold", "text"])
    # Rows that cleanlab flags come first, as in the printed table.
    for i in np.lexsort([found.quality, ~doubtful]).tolist():
        scores = [f"{found.probabilities[i].max():.6f}", f"{found.quality[i]:.6f}", str(bool(doubtful[i])).lower()]
        names = [labels[found.y_true[i]], labels[found.suggested[i]]]
        lines.writerow([int(rows.rows[i]), *names, *scores, int(found.fold[i]), rows.texts[i]])
    return text.getvalue()
