"""The verb that checks labels: audit."""

from collections.abc import Sequence
from typing import Any

from bertlora.cli.console import show
from bertlora.cli.options import COLUMNS, DATA, GROUP_COLUMN, LABEL_RULES, OVERWRITE_FILE, PATH, Option, Whole
from bertlora.cli.recipe_options import data_and_keys, recipe_options
from bertlora.cli.verb import verb
from bertlora.recipe import Recipe

SHOWN = 20
OPENING = 70
# A single table is audited whole, each fold starts from a head that knows no row, and every fold runs to its end.
UNUSED = (
    "split",
    "sample_from",
    "validation_fraction",
    "label_names",
    "samples",
    "head_start",
    "evaluation_batch_size",
    "evaluate_every_steps",
    "best_metric",
    "early_stopping_patience",
    "tracker",
    "checkpoint_minutes",
)


def show_audit(found: dict[str, Any]) -> None:
    """Prints how the folds did, the most doubtful rows, and what to do with them."""
    from bertlora.cli.console import duration, print_table, shortened

    took, right = duration(found["seconds"]), f"{100 * found['accuracy']:.2f} %"
    show(
        f"{found['rows']:,} rows in {took}; {found['folds']} folds, each row evaluated by the model that was not "
        f"trained on it; accuracy {right}"
    )
    doubtful = found["doubtful"]
    if not doubtful:
        show("No label is in doubt.")
        return
    table = [
        [one["place"], one["given"], one["suggested"], f"{one['confidence']:.3f}", shortened(one["text"], OPENING)]
        for one in doubtful[:SHOWN]
    ]
    print_table(["place", "given", "suggested", "confidence", "text"], table)
    shown = f", the first {SHOWN} above" if len(doubtful) > SHOWN else ""
    rows = "1 row is" if len(doubtful) == 1 else f"{len(doubtful):,} rows are"
    show(f"{rows} worth a look{shown}. {_trust(found)}")
    show("Read from the top. If a label is wrong, correct it or remove the row, and prepare again.")


def _trust(found: dict[str, Any]) -> str:
    """Returns how far the list can be trusted."""
    sure = (
        f"The models, which have not seen a row's label, get {100 * found['accuracy']:.1f} % right. They contradict "
        f"{100 * found['contradicted']:.1f} % of the labels even where they are most confident."
    )
    if found["weak"]:
        return f"{sure} They are too weak to tell a wrong label from a hard text: use the list only as an order."
    likely = (
        f"Of those worth a look about {found['likely_right']:,} are, or fewer; the others are hard texts. Both numbers "
        "assume that errors are as frequent in hard texts as in easy ones."
    )
    if not found["likely_right"]:
        likely = "How many of those worth a look are wrong cannot be estimated: they may all be hard texts."
    return (
        f"{sure} So at most {found['most_errors']:,} of all labels are wrong, at a confidence level of 95 %. {likely}"
    )


@verb(
    "Find the rows whose label is most doubtful, by cross-validation.",
    "bertlora audit data/reviews --out doubtful.csv",
    DATA,
    Option("--split", "the split to audit; train is all of a single table", default="train", metavar="SPLIT"),
    Option(
        "--folds",
        "number of folds; each row is evaluated by the model that was not trained on it",
        type=Whole(2),
        default=5,
    ),
    Option(
        "--out", "a CSV file to write, with every row and its score, most doubtful first", type=PATH, metavar="FILE"
    ),
    OVERWRITE_FILE,
    *COLUMNS,
    GROUP_COLUMN,
    *LABEL_RULES,
    *recipe_options("audit", leave_out=UNUSED),
    show=show_audit,
    messages=True,
)
def audit(
    sources: Sequence[str],
    recipe: Recipe | None,
    split: str,
    folds: int,
    out: str | None,
    overwrite: bool,
    **options: Any,
) -> dict[str, Any]:
    """Ranks rows by how much the folds doubt their label."""
    from bertlora.cli.display import TrainingDisplay
    from bertlora.pipeline.audit import audit

    data, columns, keys = data_and_keys(sources, options)
    line = f"{{texts:,}} rows: one pass through the frozen layers, then {folds} folds of training"
    with TrainingDisplay(line).shown() as display:
        return audit(
            data,
            recipe,
            split=split,
            folds=folds,
            out=out,
            overwrite=overwrite,
            on_event=display,
            columns=columns,
            **keys,
        )
