"""TensorBoard, W&B and MLflow, through Accelerate."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from bertlora.errors import RecipeError
from bertlora.recipe import Recipe, recipe_keys
from bertlora.training.events import Evaluation

CURVES = ("train_loss", "validation_loss", "accuracy", "learning_rate", "examples_per_s")


def check_tracker(recipe: Recipe) -> None:
    """Raises RecipeError if the recipe's tracker is not installed."""
    if recipe.tracker != "none" and importlib.util.find_spec(recipe.tracker) is None:
        raise RecipeError(
            f"tracker: {recipe.tracker} is not installed; run pip install 'bertlora[{recipe.tracker}]', or use none"
        )


@contextmanager
def tracking(recipe: Recipe, folder: Path) -> Iterator[Callable[[Evaluation], None]]:
    """Yields a function that sends an evaluation to the recipe's tracker; files go to `folder`."""
    if recipe.tracker == "none":
        yield lambda _: None
        return
    from accelerate import Accelerator  # brings torch, which checking a recipe must not wait for

    accelerator = Accelerator(log_with=recipe.tracker, project_dir=str(folder))
    # Trackers take plain values only.
    options = {key: getattr(recipe, key) for key in recipe_keys()}
    accelerator.init_trackers(
        "bertlora", {k: v if isinstance(v, int | float | str) else str(v) for k, v in options.items()}
    )
    try:
        yield lambda e: accelerator.log(
            {k: v for k, v in asdict(e).items() if k in CURVES and v is not None}, step=e.step
        )
    finally:
        accelerator.end_training()
