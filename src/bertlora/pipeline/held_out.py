"""Validation rows where the user names none: a fraction of the training rows. And what cannot work without any."""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.errors import DataError, RecipeError
from bertlora.options import split_with_validation
from bertlora.pipeline.prepare import FEWEST_VALIDATION_ROWS
from bertlora.recipe import Recipe


def rows_held_out(
    X: Any,  # noqa: N803
    y: Any,
    recipe: Recipe,
    asked: bool = False,
    strata: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.bool_]:
    """Chooses `validation_fraction` of the rows for validation.

    Each class gives its share. Rows with the same text are held out together, so that no validation text is trained
    on. Without `asked`, nothing is held out if that would be fewer than 30 rows: a temperature needs as many.

    Args:
        X: (N,) texts, or (N, 2) pairs.
        y: (N,) labels.
        recipe: has the fraction and the seed.
        asked: the user gave the fraction.
        strata: (N,) groups that take the place of the classes, where y holds numbers.

    Returns:
        Which rows are held out, (N,); there may be none.

    Raises:
        DataError: the user gave the fraction, and too few rows remain on either side.
    """
    texts, labels = np.atleast_1d(np.asarray(X, dtype=object)), np.asarray(y)
    if not recipe.validation_fraction or not texts.size or len(texts) != len(labels):
        return np.zeros(len(labels), bool)  # what is wrong with the rows is found where they are read
    strata = labels if strata is None else strata
    held = _held_out(_same_texts(texts), strata, recipe.validation_fraction, recipe.seed)
    rest = set(strata[~held].tolist()) == set(strata.tolist())
    if asked and not (held.any() and rest):
        raise DataError(
            f"validation_fraction: {recipe.validation_fraction:g} of {len(labels)} rows leaves too few; give more "
            "rows, or validation=(texts, labels)"
        )
    if not rest or (held.sum() < FEWEST_VALIDATION_ROWS and not asked):
        return np.zeros(len(labels), bool)
    return held


def check_choosing(recipe: Recipe, given: Collection[str], validation_rows: int, remedy: str) -> None:
    """Raises RecipeError if an option chooses on validation rows, and there are none.

    Args:
        recipe: the recipe.
        given: the keys that the user gave one by one. The file of a run's recipe names `best_metric` in any case.
        validation_rows: their number.
        remedy: how to get some.
    """
    used = {"early_stopping_patience": recipe.early_stopping_patience > 0, "best_metric": "best_metric" in given}
    for key, chosen in used.items():
        if chosen and not validation_rows:
            got = getattr(recipe, key)
            raise RecipeError(f"{key}: got {got}, which needs validation rows, and there are none; {remedy}")


def check_fraction(recipe: Recipe, given: Collection[str], prepared: bool, validation_rows: int) -> None:
    """Raises RecipeError if the user gave `validation_fraction`, and nothing was held out by it.

    Args:
        recipe: the recipe.
        given: the keys that the user gave one by one.
        prepared: whether the data was prepared before.
        validation_rows: their number.
    """
    used = (
        not prepared
        and validation_rows > 0
        and split_with_validation(recipe.split, recipe.validation_fraction) != recipe.split
    )
    if "validation_fraction" in given and recipe.validation_fraction and not used:
        why = "is prepared already" if prepared else f"has {validation_rows:,} validation rows by split {recipe.split}"
        raise RecipeError(
            f"validation_fraction: is for a split without validation, such as 85/0/15, that holds out "
            f"{FEWEST_VALIDATION_ROWS} rows or more; the data {why}"
        )


def _same_texts(texts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Returns a number for each row, (N,), the same for rows whose texts differ in case and spaces at most."""
    numbers: dict[tuple[str, ...], int] = {}
    rows = texts.reshape(len(texts), -1).tolist()
    keys = (tuple(" ".join(str(text).lower().split()) for text in row) for row in rows)
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _held_out(
    groups: npt.NDArray[np.int64], labels: npt.NDArray[Any], fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Returns which rows are held out, (N,): of each class about `fraction` of its groups."""
    _, first = np.unique(groups, return_index=True)  # the first row of each group names the group's class
    random = np.random.default_rng([seed, len(groups)])
    held: list[int] = []
    for label in set(labels[first].tolist()):
        of_class = groups[first[labels[first] == label]]
        held += random.permutation(of_class)[: round(fraction * len(of_class))].tolist()
    return np.isin(groups, held)
