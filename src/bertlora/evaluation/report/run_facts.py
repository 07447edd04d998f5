"""The parts of a report that come from the run's folder: training, data checks, recipe, origin."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from bertlora.data.prepared import Prepared
from bertlora.errors import DataError
from bertlora.recipe import Recipe, recipe_keys
from bertlora.run.loaded import Run
from bertlora.run.manifest import MANIFEST

Table = dict[str, Any]

EMBEDDED = ("data", "embedded")
# The metric of the history that the report shows, by task.
LEADING = "accuracy", "average_precision", "rmse"


def training_facts(metrics: Table) -> Table | None:
    """Returns the evaluations of a training, and which of them was kept."""
    if not metrics.get("epochs"):
        return None
    kept = metrics.get("validation") or {}
    metric = next(name for name in LEADING if name in metrics["epochs"][0])
    validated = any(line.get(metric) is not None for line in metrics["epochs"])
    return {
        "epochs": metrics["epochs"],
        "metric": metric,
        "best_epoch": kept.get("epoch") if validated else None,
        "validated": validated,
        "train": metrics.get("train", {}),
    }


def check_facts(run: Run) -> Table | None:
    """Returns the findings in the run's own data, None if the data is not available."""
    folder = run.data_folder
    if folder is None:
        return None
    try:
        data = Prepared.load(folder)
    except DataError:  # the report does not need it
        return None
    return {"rows": data.rows, "found": data.checks, "notes": data.notes}


def data_name(run: Run) -> str:
    """Returns a short name of the run's training data, empty if it is not known."""
    recipe = run.recipe()
    known: Iterable[str] = () if recipe is None else recipe.data
    if not known and run.data_folder is not None:
        with suppress(DataError):  # the report does not need it
            known = Prepared.load(run.data_folder).sources.values()
    sources = [source.rpartition("=")[2] for source in known]
    folders = {PurePath(source).parent for source in sources if not source.startswith("hub:")}
    if {folder.parts[-2:] for folder in folders} == {EMBEDDED}:
        return "the embedded film reviews"
    if len(sources) > 1 and len(folders) == 1:  # the splits of one data set
        return folders.pop().name
    names = [source.removeprefix("hub:") if source.startswith("hub:") else PurePath(source).name for source in sources]
    return ", ".join(dict.fromkeys(names))


def recipe_facts(run: Run) -> list[Table] | None:
    """Returns every recipe key with its value, its value in the recipe `default`, and whether the two differ."""
    recipe = run.recipe()
    if recipe is None:
        return None
    own, usual = (each.to_toml(comments=False).splitlines() for each in (recipe, Recipe.named("default")))
    values = [[line.partition(" = ")[2] for line in lines] for lines in (own, usual)]
    return [
        {
            "key": key,
            "value": mine,
            "usual": other,
            "differs": mine != other,
            "help": Recipe.__dataclass_fields__[key].metadata["help"],
        }
        for key, mine, other in zip(recipe_keys(), *values, strict=True)
    ]


def origin_facts(run: Run) -> Table:
    """Returns base model, data, versions and dates of the run."""
    manifest = run.manifest
    file = run.path / MANIFEST
    finished = datetime.fromtimestamp(file.stat().st_mtime, UTC) if file.is_file() else None
    return {
        "labels": manifest.labels,
        "base": manifest.base["id"],
        "revision": manifest.base["revision"],
        "sha256": manifest.base["sha256"],
        "fingerprint": manifest.data.get("fingerprint", ""),
        "seed": manifest.seed,
        "versions": manifest.versions,
        "finished": None if finished is None else finished.strftime("%Y-%m-%d %H:%M UTC"),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
