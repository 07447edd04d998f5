"""The comparison of several runs on the same rows: facts, charts and tables of its page.

Letters: M runs, N rows.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bertlora.evaluation.class_tables import FEW, foldable
from bertlora.evaluation.report import tables
from bertlora.evaluation.report.charts import Picture
from bertlora.evaluation.report.page import fill
from bertlora.evaluation.report.pictures import curves_picture, ranking_picture
from bertlora.evaluation.report.plot import Axis, Series, percent, plain, round_ticks, share_ticks
from bertlora.evaluation.report.run_facts import data_name, origin_facts, recipe_facts, training_facts
from bertlora.evaluation.side_by_side import PAIR_COLUMNS, pair_note, pair_rows, side_by_side
from bertlora.evaluation.verdict import Evaluated, rows_of
from bertlora.run.loaded import Run

Table = dict[str, Any]

SECTIONS = {
    "verdict": "Ranking",
    "training": "Training",
    "classes": "Per class",
    "recipe": "Recipes",
    "origin": "Origin",
}
NOTES = {
    "verdict": "The LoRA adapter of each run on the same rows, the best first.",
    "training": "Each run on its own validation rows.",
    "classes": "F1 of each class.",
    "recipe": "The keys whose values differ.",
}


def comparison_facts(runs: Mapping[str, Run], evaluated: Mapping[str, Evaluated], where: str, note: str = "") -> Table:
    """Returns the content of the page on several runs.

    Args:
        runs: the runs by name, two or more.
        evaluated: by the same names, the outputs of each run on the same rows in the same order.
        where: where these rows are from, such as `test split`.
        note: what follows for the figures if the best run is chosen on these rows; may be empty.
    """
    first = next(iter(runs.values()))
    found = side_by_side(evaluated)
    return {
        "names": list(runs),
        "task": {"labels": list(first.manifest.labels), "pairs": first.manifest.pairs, "data": data_name(first)},
        "n": found["n"],
        "rows_name": rows_of(where),
        "ranking": found["ranking"],
        "where": where,
        "note": note,
        "classifiers": [{"name": name, **figures} for name, figures in found["runs"].items()],
        "classes": _class_facts(runs, found["runs"]),
        "metric": found["metric"],
        "pairs": found["pairs"],
        "choice": found["choice"],
        "strangers": len({run.manifest.data.get("fingerprint", "") for run in runs.values()}) > 1,
        "training": {name: training_facts(run.metrics()) for name, run in runs.items()},
        "recipe": _differing({name: recipe_facts(run) for name, run in runs.items()}),
        "origins": {name: origin_facts(run) for name, run in runs.items()},
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def render_comparison(facts: Table) -> str:
    """Returns the page on several runs as HTML. Every text in the facts is escaped."""
    curves = {name: part for name, part in facts["training"].items() if part}
    validated = {name: part for name, part in curves.items() if part["validated"]}
    names = facts["names"]
    ranked = {**facts, "classifiers": sorted(facts["classifiers"], key=lambda c: facts["ranking"].index(c["name"]))}
    view = {
        **facts,
        "headline": _headline(ranked),
        "pairs": {
            "columns": PAIR_COLUMNS,
            "rows": pair_rows(facts["ranking"], facts["pairs"]),
            "note": pair_note(len(facts["pairs"]), facts["metric"]),
        },
        "more": tables.more_figures(ranked["classifiers"]),
        "classes": _classes(facts),
        "recipe": facts["recipe"]
        and [[r["key"], *(tables.opening(value, 100) for value in r["values"]), r["help"]] for r in facts["recipe"]],
        "origins": _origins(facts["origins"]),
    }
    pictures = {
        "accuracy": ranking_picture(ranked),
        "losses": _losses(validated, names) if validated else None,
        "progress": _progress(validated, names) if validated else None,
    }
    return fill("comparison.html", f"{' and '.join(names)}: compared", SECTIONS, NOTES, facts=view, pictures=pictures)


def _headline(ranked: Table) -> str:
    """Returns the task, the data, and the accuracy of the best run."""
    runs = ranked["classifiers"]
    best = f"{runs[0]['name']}, the best of {len(runs)} runs,"
    return tables.headline({"task": ranked["task"], "verdict": {**ranked, "classifiers": runs[:1]}}, best)


def _differing(recipes: Mapping[str, list[Table] | None]) -> list[Table] | None:
    """Returns the keys whose values differ, None if a run has no recipe."""
    known = [recipe for recipe in recipes.values() if recipe is not None]
    if len(known) < len(recipes):
        return None
    rows = [
        {"key": o[0]["key"], "values": [r["value"] for r in o], "help": o[0]["help"]} for o in zip(*known, strict=True)
    ]
    return [row for row in rows if len(set(row["values"])) > 1]


def _class_facts(runs: Mapping[str, Run], figures: Mapping[str, Table]) -> list[Table]:
    """Returns the F1 score of each class for every run, and its rows, under the name that the first run shows.

    Other runs may show the same labels under other names, or in another order, so classes are matched by their names in
    the data. If the data of a run has other names too, they are matched with the names that the first run shows.
    """
    first, *_ = (run.manifest for run in runs.values())
    shown_by = {name: _shown(run) for name, run in runs.items()}
    found = []
    for source, shown in zip(first.source_labels, first.labels, strict=True):
        own = {
            name: figures[name]["per_class"].get(known.get(source, known.get(shown, "")), {})
            for name, known in shown_by.items()
        }
        support = next(iter(own.values()))["support"]
        found.append({"label": shown, "f1": [part.get("f1") for part in own.values()], "support": support})
    return found


def _shown(run: Run) -> dict[str, str]:
    """Returns the name that a run shows for each of its classes, by its shown names and by those of its data."""
    known = {label: label for label in run.manifest.labels}
    return known | dict(zip(run.manifest.source_labels, run.manifest.labels, strict=True))


def _classes(facts: Table) -> Table:
    """Returns the F1 score of each class, one column per run; over 20 classes the 20 that differ most, and all to 100.

    Classes without rows differ in nothing.
    """
    lines = list(facts["classes"])
    if len(lines) > FEW:
        lines.sort(key=lambda line: -_spread(line["f1"]))
    rows = [
        [line["label"], *("" if f1 is None else f"{f1:.3f}" for f1 in line["f1"]), f"{line['support']:,}"]
        for line in lines
    ]
    sentence = f"In these {FEW} of {len(rows):,} classes the runs differ most." if len(rows) > FEW else ""
    columns = ["class", *facts["names"], "support"]
    return {"columns": columns, "first": rows[:FEW], "all": foldable(rows), "sentence": sentence}


def _spread(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return max(known) - min(known)


def _origins(origins: Mapping[str, Table]) -> Table:
    """Returns the origin of each run, one column per run."""
    views = [dict(tables.origin_view(part)) for part in origins.values()]
    names = [name for name in views[0] if name != "Report written"]
    return {"columns": ["", *origins], "rows": [[name, *(view.get(name, "") for view in views)] for name in names]}


def _losses(parts: Mapping[str, Table], names: Sequence[str]) -> Picture:
    return _overlaid("losses", "Validation loss", "loss (nats)", "validation_loss", parts, names)


def _progress(parts: Mapping[str, Table], names: Sequence[str]) -> Picture:
    return _overlaid("progress", "Validation accuracy", "accuracy", "accuracy", parts, names)


def _overlaid(name: str, title: str, axis: str, key: str, parts: Mapping[str, Table], names: Sequence[str]) -> Picture:
    """Returns one measure over the epochs of several trainings."""
    series = [
        Series(run, [(line["epoch"], line[key]) for line in part["epochs"]], list(names).index(run))
        for run, part in parts.items()
    ]
    values = [y for one in series for _, y in one.points]
    form = percent if key == "accuracy" else plain
    ticks = share_ticks(min(values), max(values)) if key == "accuracy" else round_ticks(0, max(values))
    written = "{:.2%}".format if key == "accuracy" else "{:.4f}".format
    epochs = sorted({x for one in series for x, _ in one.points})
    rows = [
        [f"{x:g}", *(written(dict(one.points)[x]) if x in dict(one.points) else "" for one in series)] for x in epochs
    ]
    said = "; ".join(f"{one.name} from {written(one.points[0][1])} to {written(one.points[-1][1])}" for one in series)
    columns = ["epoch", *(one.name for one in series)]
    return curves_picture(name, title, said, series, Axis(axis, ticks, form), columns, rows)
