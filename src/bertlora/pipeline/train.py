"""The verb train: checks everything that can be checked at once, prepares the data, then trains."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from bertlora.data.checks import TOKEN_CHECKS, token_checks
from bertlora.data.named_columns import SourceColumns
from bertlora.data.prepared import Prepared, check_sources, is_prepared
from bertlora.data.reader import Reader
from bertlora.errors import InputError, RecipeError
from bertlora.model.base import check_length, find_base
from bertlora.pipeline.held_out import check_choosing, check_fraction
from bertlora.pipeline.prepare import (
    Source,
    absolute_specs,
    as_specs,
    given_data,
    refuse_preparing,
    require_data,
)
from bertlora.recipe import MAY_CHANGE, Recipe, recipe_keys
from bertlora.run.folder import check_run_folder
from bertlora.run.lock import lock_of, locked
from bertlora.run.manifest import RECIPE
from bertlora.run.unfinished import clear_leftovers, place_of, until_finished
from bertlora.training.accelerator import check_tracker, lost_process_named
from bertlora.training.events import Checked, Listener
from bertlora.training.stops import termination_raised


def train(
    data: Source,
    out: str | Path,
    recipe: str | Recipe | None = None,
    *,
    seeds: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    on_event: Listener = lambda _: None,
    columns: SourceColumns | None = None,
    **keys: Any,
) -> dict[str, Any]:
    """Trains an adapter and writes a run folder.

    Args:
        data: a prepared folder or any source; empty takes the recipe's own data.
        out: the run folder to write.
        recipe: a recipe, its name, or a TOML file; None is `default`, or the run's own recipe with `resume`.
        seeds: train under this number of seeds, and report how much they differ.
        resume: continue an interrupted run from its newest checkpoint.
        overwrite: replace what `out` holds, once the new run is finished; see `bertlora.run.unfinished`.
        on_event: called with what happens: `Checked`, `Resumed`, `Probing`, `Step`, `Evaluation` of
            `bertlora.training.events`.
        columns: the columns of a source, such as `{"text_column": "body"}`.
        keys: recipe keys that replace the recipe's own values, such as `rank=16`.

    Returns:
        `run`, `rows` {split: n}, `train`, `validation`, `epochs`, `samples`, `advice` and, with several seeds,
        `seeds`; of several processes only the main one returns all of it.

    Raises:
        RecipeError, DataError, ModelError: an option, the data or the base cannot be used. Nothing is written.
        OutputError, RunError: `out` cannot take a run, or another process writes it.
        HealthError: training cannot succeed; the message names the cause.
        Terminated: the process got SIGTERM. As after Ctrl-C, `resume` continues from a checkpoint of the last step.
    """
    out, columns = Path(out), columns or {}
    if seeds < 1:
        raise InputError(f"--seeds: got {seeds}, expected a whole number (1 or more)")
    main = os.environ.get("RANK", "0") == "0"
    checks = partial(check_run_folder, out, resume, overwrite, inputs=as_specs(data), several=seeds > 1)
    if main and not lock_of(out).exists():
        checks()  # what is wrong is said before anything is written
    with termination_raised(), lost_process_named(), locked(out) if main else nullcontext(False) as killed:
        if main:
            clear_leftovers(out, killed)
            checks()
        place = place_of(out, resume, overwrite)
        return _trained(
            data, out, place, recipe, keys, columns, seeds=seeds, resume=resume, on_event=on_event, main=main
        )


def _trained(
    data: Source,
    out: Path,
    place: Path,
    recipe: str | Recipe | None,
    keys: dict[str, Any],
    columns: SourceColumns,
    *,
    seeds: int,
    resume: bool,
    on_event: Listener,
    main: bool,
) -> dict[str, Any]:
    """Does what `train` says, for a run folder that nobody else writes.

    Args:
        place: the folder that gets the name `out` at the end.
        main: whether this is the main process.
    """
    chosen = resumed_recipe(place, data, recipe, keys, seeds) if resume else resolved_recipe(recipe, keys)
    if not resume:  # a run that is continued has its data in its own folder
        require_data(data, chosen)
    check_before_reading(chosen, data, columns, keys)
    with until_finished(place, out, resume) if main else nullcontext():
        with _main_process_first():
            prepared = given_data(data, chosen, place / "data", **columns)
        if not resume:
            check_rows(chosen, keys, prepared, prepared.folder != place / "data")
        chosen = chosen.for_task(prepared.task)
        if main:
            on_event(Checked(_checks(prepared, chosen), prepared.rows, chosen, prepared.notes))
        chosen = chosen.replace(data=absolute_specs(as_specs(data) or chosen.data))
        from bertlora.pipeline.training_seeds import train_seeds  # torch, imported only now that all else holds

        return train_seeds(prepared, chosen, place, seeds, name=out, resume=resume, on_event=on_event)


def check_rows(recipe: Recipe, keys: dict[str, Any], data: Prepared, prepared: bool) -> None:
    """Raises RecipeError if an option needs validation rows that the data do not have.

    Args:
        recipe: the recipe.
        keys: the keys that the user gave one by one.
        data: the data.
        prepared: whether the user prepared it before.
    """
    rows = data.rows.get("validation", 0)
    check_fraction(recipe, keys, prepared, rows)
    check_choosing(recipe, keys, rows, "prepare the data with some, such as split 70/15/15, or leave it out")


def resolved_recipe(recipe: str | Recipe | None, keys: dict[str, Any]) -> Recipe:
    """Returns a recipe with these keys replaced.

    Raises:
        RecipeError: the recipe or a key is unknown, or a value is out of its range.
    """
    return (recipe if isinstance(recipe, Recipe) else Recipe.named(recipe or "default")).replace(**keys)


def resumed_recipe(
    out: Path, data: Source, recipe: str | Recipe | None, keys: dict[str, Any], seeds: int = 1
) -> Recipe:
    """Returns the recipe of the run that is continued, with more epochs if they are asked for.

    Raises:
        RecipeError: an option differs from the run's, or more epochs would not give the run that has them from the
            start.
    """
    begun = str(out / RECIPE)
    stored = Recipe.named(begun)
    asked = resolved_recipe(recipe or begun, keys)
    asked = asked.replace(data=absolute_specs(as_specs(data) or asked.data) or stored.data)
    for key in recipe_keys():
        if key == "checkpoint_minutes":
            continue
        got, was = getattr(asked, key), getattr(stored, key)
        if key == "epochs" and got > was:
            _check_longer(out, stored, got, seeds)
        elif got != was:
            if key == "data":
                got, was = " ".join(got), " ".join(was) or "none named"
            source = "DATA" if key == "data" else "the recipe"
            raise RecipeError(f"{key}: got {got}, but {out} was begun with {was}; leave {source} out when resuming")
    return stored.replace(**{key: getattr(asked, key) for key in MAY_CHANGE})


def _check_longer(out: Path, stored: Recipe, epochs: int, seeds: int) -> None:
    """Raises RecipeError unless the steps of a run do not depend on how many epochs come after them."""
    parts = {
        f"the {stored.schedule} schedule": stored.schedule != "constant",
        "the warm-up": stored.warmup_fraction > 0,
        "the average of weights": stored.average_weights > 0,
    }
    planned = [part for part, depends in parts.items() if depends]
    begun = f"epochs: got {epochs}, but {out} was begun with {stored.epochs}"
    if planned:
        raise RecipeError(
            f"{begun}, for which {' and '.join(planned)} {'was' if len(planned) == 1 else 'were'} planned from the "
            "first step; leave epochs out when resuming, or train a new run"
        )
    if seeds > 1:
        raise RecipeError(f"{begun}, and so were its other seeds; leave epochs out when resuming several seeds")


def check_before_reading(recipe: Recipe, data: Source, columns: SourceColumns, keys: dict[str, Any]) -> None:
    """Finds faults of recipe, base and sources before a large source is read and anything is written.

    Raises:
        RecipeError, ModelError, DataError, InputError: there is a fault.
    """
    check_tracker(recipe)
    base = find_base(recipe.model)
    check_length(recipe.max_length, base)
    base.check_weights()
    refuse_preparing(data, **{key: keys.get(key) for key in ("sample", "sample_from", "split")}, **columns)
    specs = as_specs(data) or list(recipe.data)
    if specs and not (len(specs) == 1 and is_prepared(specs[0])):
        check_sources(specs, **columns)
    from bertlora.model.plan import plan as plan_run  # torch

    plan_run(recipe, labels=2)


def recipe_reader(recipe: Recipe) -> Reader:
    """Returns the reader of the recipe's base and input template."""
    tokenizer = find_base(recipe.model).text_tokenizer()
    return Reader.of(tokenizer, recipe.max_length, recipe.truncation, recipe.long_texts)


def _checks(data: Prepared, recipe: Recipe) -> list[dict[str, Any]]:
    """Returns the checks of the data, and runs those that depend on the tokenizer again for this recipe."""
    found = [check for check in data.checks if check["name"] not in TOKEN_CHECKS]
    return found + token_checks(data, recipe_reader(recipe))


@contextmanager
def _main_process_first() -> Iterator[None]:
    """Inside, the main process runs first, and the other processes of an `accelerate launch` follow."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    import torch
    from accelerate import PartialState

    with PartialState(cpu=not torch.cuda.is_available()).main_process_first():
        yield
