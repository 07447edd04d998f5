"""The verb plan: what training would do. With data it counts the work, and times a little of it."""

import tempfile
import time
from pathlib import Path
from typing import Any

from bertlora.data.named_columns import SourceColumns
from bertlora.data.prepared import Prepared
from bertlora.data.reader import split_examples
from bertlora.pipeline.prepare import Source, as_specs, given_data
from bertlora.pipeline.train import check_before_reading, check_rows, resolved_recipe
from bertlora.recipe import Recipe
from bertlora.task import REGRESSION


def plan(
    data: Source = (), recipe: str | Recipe | None = None, *, columns: SourceColumns | None = None, **keys: Any
) -> dict[str, Any]:
    """Counts the parameters and the work of a training, and estimates its memory and time on this machine.

    With data it does what `train` does up to the first step, but writes nothing: it reads, checks and splits the data,
    and loads the base. Then it times a few steps of the real model on texts of the data, within about ten seconds.

    Args:
        data: a prepared folder or any source; empty leaves out rows and time.
        recipe: a recipe, its name, or a TOML file; None is `default`.
        columns: the columns of a source.
        keys: recipe keys that replace the recipe's own values.

    Returns:
        `trainable`, `total`, `trainable_percent`, `lora_parameters`, `adapter_bytes`, `targets` and more, as
        `plan --json` prints. With data also `rows` {split: n}, `steps`, `epochs`, `examples`, `tokens` and
        `evaluations` of the training, `seconds` of `train` as a whole, `seconds_range` [low, high], and
        `seconds_of` {part: seconds}.

    Raises:
        RecipeError, DataError, ModelError: an option, the data or the base cannot be used.
    """
    began = time.perf_counter()
    chosen, data = resolved_recipe(recipe, keys), as_specs(data)
    # Without data nothing is read, not even the data that the recipe names.
    check_before_reading(chosen if data else chosen.replace(data=()), data, columns or {}, keys)
    from bertlora.model.plan import plan as plan_run  # torch

    if not data:
        found = plan_run(chosen, 1 if chosen.task == REGRESSION else max(2, len(chosen.label_names)))
        return found | {"steps": None, "seconds": None}
    with tempfile.TemporaryDirectory() as folder:
        prepared = given_data(data, chosen, Path(folder) / "data", **(columns or {}))
        check_rows(chosen, keys, prepared, prepared.folder != Path(folder) / "data")
        chosen = chosen.for_task(prepared.task)
        return plan_run(chosen, len(prepared.labels)) | _work_and_time(prepared, chosen, Path(folder), began)


def _work_and_time(data: Prepared, recipe: Recipe, scratch: Path, began: float) -> dict[str, Any]:
    """Returns the figures that need the data.

    Args:
        data: the prepared data.
        recipe: the recipe, of the data's task.
        scratch: a folder for tokens that the prepared folder does not have.
        began: when `plan` began: `train` also needs the time up to the first step.
    """
    from bertlora.model.adapted import Adapted
    from bertlora.pipeline.training_run import shown_labels, split_texts
    from bertlora.training.costs import FACTOR, Costs, Sources
    from bertlora.training.work import Work

    adapted = Adapted.fresh(recipe, shown_labels(recipe, data.labels), data.has_pairs)
    train, validation = (split_examples(adapted.reader, data, split, scratch) for split in ("train", "validation"))
    sources = Sources(train, validation, split_texts(data, "train"))
    work = Work.of(recipe, train.inputs.lengths)
    parts = {"start": time.perf_counter() - began}
    costs = Costs.measured(adapted, recipe, sources)
    parts |= costs.seconds(adapted, recipe, sources)
    seconds, factor = sum(parts.values()), max(FACTOR, costs.spread)
    return {
        "rows": dict(data.rows),
        **work.figures(),
        "seconds": round(seconds, 1),
        "seconds_range": [round(seconds / factor, 1), round(seconds * factor, 1)],
        "seconds_of": {part: round(took, 2) for part, took in parts.items()},
        "seconds_a_step": costs.step.fixed,
        "seconds_a_token": costs.step.each,
    }
