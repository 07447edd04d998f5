"""What a report says of the run alone: its training, its data, its recipe, what it was made from."""

from datetime import UTC, datetime
from typing import Any

from bertlora.data.prepared import Prepared
from bertlora.errors import DataError
from bertlora.recipe import Recipe, recipe_keys
from bertlora.run import MANIFEST, Run

Table = dict[str, Any]


def training_facts(metrics: Table) -> Table | None:
    """Returns the evaluations of a training and which of them was kept."""
    if not metrics.get("epochs"):
        return None
    kept = metrics.get("validation") or {}
    judged = [line for line in metrics["epochs"] if line.get("accuracy") is not None]
    best = kept.get("epoch") if judged else None
    return {"epochs": metrics["epochs"], "best_epoch": best, "judged": bool(judged), "train": metrics.get("train", {})}


def check_facts(run: Run) -> Table | None:
    """Returns what was found in the run's own data, None where these are not at hand."""
    folder = run.data_folder
    if folder is None:
        return None
    try:
        data = Prepared.load(folder)
    except DataError:  # the report can do without
        return None
    return {"rows": data.rows, "found": data.checks, "notes": data.notes}


def recipe_facts(run: Run) -> list[Table] | None:
    """Returns every key as it was resolved, with the value it has in the recipe `default` and whether it differs."""
    file = run.path / "recipe.toml"
    if not file.is_file():
        return None
    own, usual = (Recipe.named(name).to_toml(comments=False).splitlines() for name in (str(file), "default"))
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
    """Returns what the run was made from and with, and when."""
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
