"""The shares of train, validation and test in the option `split`, such as `70/15/15`."""

from bertlora.errors import RecipeError

SPLIT = "70/15/15"


def split_shares(split: str) -> tuple[float, float, float]:
    """Returns the shares of train, validation and test, which add up to 1.

    Raises:
        RecipeError: `split` is not three numbers that add up to 100, the first above 0.
    """
    try:
        train, validation, test = (float(part) for part in split.split("/"))
    except ValueError:
        raise RecipeError(f"split: got '{split}', expected train/validation/test in percent such as {SPLIT}") from None
    # `not (low <= value)` also refuses NaN, `value < low` does not.
    if not (min(train, validation, test) >= 0 and train > 0 and abs(train + validation + test - 100) <= 1e-6):
        raise RecipeError(f"split: got '{split}', expected three shares of 0 or more that add up to 100, train above 0")
    return train / 100, validation / 100, test / 100


def split_with_validation(split: str, fraction: float) -> str:
    """Returns `split`; if it leaves validation out, with this fraction of the training share as validation."""
    train, validation, test = split_shares(split)
    if validation or not fraction:
        return split
    held = train * fraction
    return "/".join(f"{100 * share:.10g}" for share in (train - held, held, test))
