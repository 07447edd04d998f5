"""The verb plan: what training would do, without weights."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bertlora.data.named_columns import SourceColumns
from bertlora.data.reader import split_examples
from bertlora.pipeline.prepare import Source, as_specs, given_data
from bertlora.pipeline.train import check_before_reading, recipe_reader, resolved_recipe
from bertlora.recipe import Recipe
from bertlora.task import REGRESSION


def plan(
    data: Source = (), recipe: str | Recipe | None = None, *, columns: SourceColumns | None = None, **keys: Any
) -> dict[str, Any]:
    """Counts the parameters of a training, and estimates its memory and time on this machine.

    Args:
        data: a prepared folder or any source; empty leaves out the time.
        recipe: a recipe, its name, or a TOML file; None is `default`.
        columns: the columns of a source.
        keys: recipe keys that replace the recipe's own values.

    Returns:
        `trainable`, `total`, `trainable_percent`, `lora_parameters`, `adapter_bytes`, `targets` and more, as
        `plan --json` prints.

    Raises:
        RecipeError, DataError, ModelError: an option, the data or the base cannot be used.
    """
    chosen, data = resolved_recipe(recipe, keys), as_specs(data)
    # Without data nothing is read, not even the data that the recipe names.
    check_before_reading(chosen if data else chosen.replace(data=()), data, columns or {}, keys)
    from bertlora.model.plan import plan as plan_run  # torch

    if not data:
        return plan_run(chosen, 1 if chosen.task == REGRESSION else max(2, len(chosen.label_names)))
    with tempfile.TemporaryDirectory() as folder:
        prepared = given_data(data, chosen, Path(folder) / "data", **(columns or {}))
        chosen = chosen.for_task(prepared.task)
        examples = split_examples(recipe_reader(chosen), prepared, "train")
        return plan_run(chosen, len(prepared.labels), len(examples), float(np.mean(examples.inputs.lengths)))
