"""What training takes from Accelerate: several processes, and trackers (TensorBoard, W&B, MLflow).

torch and Accelerate are imported inside functions: the check of a recipe's tracker must not wait for them.
"""

import atexit
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bertlora.confidence.agreement import FIGURES
from bertlora.errors import BertloraError, HealthError, RecipeError
from bertlora.recipe import Recipe, recipe_keys
from bertlora.training.events import Evaluation

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

T = TypeVar("T")

CURVES = ("train_loss", "validation_loss", "accuracy", *FIGURES, "learning_rate", "examples_per_s")


def new_accelerator() -> "Accelerator":
    """Returns an accelerator that leaves precision and gradient accumulation to the recipe.

    By default, Accelerate takes both from the environment (`ACCELERATE_...`) or from an accelerator that the program
    made before, and replaces the model's forward for good.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, is_initialized

    before = AcceleratorState().mixed_precision if is_initialized() else "no"
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=before)
    accelerator.native_amp = False
    accelerator.gradient_accumulation_steps = 1
    atexit.register(_end_processes)
    return accelerator


def _end_processes() -> None:
    """Ends the process group of several processes on a CPU.

    Its threads outlive the interpreter otherwise, and the process may abort after its work is done. A group on GPUs is
    left as it is: there the end waits for the other processes, which may have failed.
    """
    import torch.distributed as group

    if group.is_available() and group.is_initialized() and group.get_backend() == group.Backend.GLOO:
        group.destroy_process_group()


@contextmanager
def lost_process_named() -> Iterator[None]:
    """Inside, the error of torch when another process of this training is gone becomes a HealthError."""
    try:
        yield
    except RuntimeError as error:
        if os.environ.get("WORLD_SIZE", "1") == "1" or isinstance(error, BertloraError) or not _is_lost(error):
            raise
        raise HealthError(
            "a process of this training has ended; its own message has the cause, and --resume continues from the last "
            "checkpoint"
        ) from error


def _is_lost(error: RuntimeError) -> bool:
    """Returns whether the exchange with other processes failed. Gloo tells it only by its message."""
    import torch.distributed as group

    return isinstance(error, group.DistError) or "gloo" in str(error)


def agreed(value: T) -> T:
    """Returns the main process's value, in every process."""
    from accelerate.utils import broadcast_object_list

    values = [value]
    broadcast_object_list(values)
    return values[0]


def share_trained(model: "nn.Module") -> None:
    """Copies the main process's trainable parameters to every process."""
    from accelerate.utils import broadcast

    for parameter in model.parameters():
        if parameter.requires_grad:
            broadcast(parameter.data)


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
    from accelerate import Accelerator

    accelerator = Accelerator(log_with=recipe.tracker, project_dir=str(folder))
    # Trackers take plain values only.
    options = {key: getattr(recipe, key) for key in recipe_keys()}
    accelerator.init_trackers(
        "bertlora", {k: v if isinstance(v, int | float | str) else str(v) for k, v in options.items()}
    )
    try:
        yield lambda e: accelerator.log(
            {k: v for k, v in e.line().items() if k in CURVES and v is not None}, step=e.step
        )
    finally:
        accelerator.end_training()
