"""The verb that doubts the data: audit."""

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.cli.inputs import add_data, columns, given_data
from bertlora.cli.registry import Arguments, flag, flags, resolve_recipe, verb
from bertlora.errors import DataError, InputError

if TYPE_CHECKING:
    from bertlora.data.prepared import Prepared, Split
    from bertlora.evaluation.audit import Audit
    from bertlora.recipe import Recipe

SHOWN = 20
OPENING = 70


@verb(
    "audit",
    "the rows whose label is most doubtful, from cross-validated folds",
    "bertlora audit data/reviews --out doubtful.csv",
    flags(
        add_data,
        flag("--split", "which split to audit; default: train, which is all of a single table", default="train"),
        flag(
            "--folds",
            "how many folds; each row is judged by a model that has not seen it; default: 5",
            type=int,
            default=5,
        ),
        flag("--out", "a CSV file to write, with every row and its score, most doubtful first"),
        columns,
        flag("--overwrite", "replace the file that --out names", action="store_true"),
    ),
    recipe_flags=True,
)
def audit(args: Arguments) -> None:
    """Ranks labels by how much the folds doubt them."""
    import tempfile

    from bertlora.cli import console
    from bertlora.data.prepared import source_paths
    from bertlora.files import check_vacant_file
    from bertlora.model.plan import plan

    if args.folds < 2:
        raise InputError(f"--folds: got {args.folds}, expected 2 or more")
    # Here --split names a split; the recipe's key of that name, which shares out a table, has no say.
    split, args.split = args.split, None
    recipe = resolve_recipe(args, default="audit").replace(split="100/0/0")
    if args.out:
        check_vacant_file(Path(args.out), args.overwrite, source_paths(args.sources))
    plan(recipe, labels=2)  # finds faults of recipe and base before a large source is read
    with tempfile.TemporaryDirectory() as folder:
        data = given_data(args, recipe, Path(folder) / "data")
        if split not in data.rows:
            where = " ".join(args.sources or recipe.data)
            raise DataError(f"{where}: has no {split} split, only {', '.join(data.rows)}; name one of these")
        rows = data.split(split)
        found, seconds = _audited(data, split, rows, recipe, args.folds)
    if args.out:
        _write(Path(args.out), found, rows, data.labels)
    if args.json:
        console.print_json(_figures(found, rows, data.labels, args.folds, seconds))
    else:
        _print(found, rows, data.labels, args.folds, seconds)


def _audited(data: "Prepared", split: str, rows: "Split", recipe: "Recipe", folds: int) -> tuple["Audit", float]:
    """Returns the audit of a split, and the seconds that it took."""
    from bertlora.cli import console
    from bertlora.evaluation.audit import audit, text_groups
    from bertlora.model.adapted import Adapted
    from bertlora.pipeline import split_examples

    began = time.perf_counter()
    adapted = Adapted.fresh(recipe, data.labels)
    examples = split_examples(adapted.reader, data, split)
    console.say(f"{len(rows):,} rows: one pass through the frozen layers, then {folds} folds of training")
    with console.TrainingDisplay(recipe.epochs).shown() as display:
        found = audit(adapted, recipe, examples, text_groups(rows.texts, rows.pairs), folds, display)
    return found, time.perf_counter() - began


def _figures(found: "Audit", rows: "Split", labels: Sequence[str], folds: int, seconds: float) -> dict[str, Any]:
    """Returns what `audit --json` prints."""
    return {
        "doubtful": [
            {
                "row": int(rows.rows[i]),
                "given": labels[found.given[i]],
                "suggested": labels[found.suggested[i]],
                "confidence": float(found.probabilities[i].max()),
            }
            for i in found.flagged.tolist()
        ],
        "rows": len(rows),
        "estimated_errors": found.estimated_errors,
        "folds": folds,
        "accuracy": found.accuracy,
        "seconds": round(seconds, 1),
    }


def _print(found: "Audit", rows: "Split", labels: Sequence[str], folds: int, seconds: float) -> None:
    from bertlora.cli import console

    doubtful = len(found.flagged)
    took, right = console.duration(seconds), f"{100 * found.accuracy:.2f} %"
    print(
        f"{len(rows):,} rows, each judged by the one of {folds} folds that has not seen it, in {took}; accuracy {right}"
    )
    if not doubtful:
        print("No label is in doubt.")
        return
    table = [
        [
            int(rows.rows[i]),
            labels[found.given[i]],
            labels[found.suggested[i]],
            f"{found.probabilities[i].max():.3f}",
            _opening(rows.texts[i]),
        ]
        for i in found.flagged[:SHOWN].tolist()
    ]
    console.print_table(["row", "given", "suggested", "confidence", "text"], table)
    shown = f", the first {SHOWN} above" if doubtful > SHOWN else ""
    print(
        f"{doubtful:,} labels look wrong{shown}; about {found.estimated_errors:,} are estimated to be. Read these rows "
        "(counted from 0 in the source), most doubtful first; mend the label or leave the row out, and prepare again."
    )


def _opening(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= OPENING else f"{words[: OPENING - 3]}..."


def _write(out: Path, found: "Audit", rows: "Split", labels: Sequence[str]) -> None:
    """Writes a line a row, most doubtful first."""
    import numpy as np

    from bertlora.files import write_whole

    doubtful = np.isin(np.arange(len(rows)), found.flagged)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["row", "given", "suggested", "confidence", "label_quality", "doubtful", "fold", "text"])
    # Those that cleanlab flags come first, as they do in what is printed.
    for i in np.lexsort([found.quality, ~doubtful]).tolist():
        judged = [f"{found.probabilities[i].max():.6f}", f"{found.quality[i]:.6f}", str(bool(doubtful[i])).lower()]
        names = [labels[found.given[i]], labels[found.suggested[i]]]
        lines.writerow([int(rows.rows[i]), *names, *judged, int(found.fold[i]), rows.texts[i]])
    write_whole(out, text.getvalue())
