"""Conformal intervals of numbers: what they need, and what is refused; `test_promises.py` counts their coverage."""

from pathlib import Path

import numpy as np
import pytest

from bertlora.confidence.spread import Spread
from bertlora.errors import InputError, RunError


def spread_of(errors: list[float]) -> Spread:
    """A spread whose validation rows have these errors."""
    return Spread.of(3.0, 2.0, np.array(errors)[:, None], np.zeros(len(errors)))


def test_half_widths_are_errors_and_too_few_rows_give_none() -> None:
    spread = spread_of([3.0, -1.0, 2.0, 4.0])
    assert [spread.half_width(share) for share in (0.2, 0.4, 0.6, 0.8)] == [1.0, 2.0, 3.0, 4.0]
    assert spread.half_width(0.81) is None
    with pytest.raises(InputError, match=r"intervals for 0\.9 need 9 validation rows, and the run has 4"):
        spread.predictions(["score"], sets=0.9)
    assert spread.predictions(["score"])(np.array([[1.5]])) == [{"value": 1.5, "interval": None}]
    assert spread.predictions(["score"], sets=0.6)(np.array([[1.5]])) == [{"value": 1.5, "interval": [-1.5, 4.5]}]


def test_options_of_classes_are_refused() -> None:
    spread = spread_of([1.0] * 20)
    for options in ({"abstain": "coverage=0.9"}, {"raw": True}, {"per_class": True}):
        with pytest.raises(InputError, match=f"{next(iter(options))}: is for classes"):
            spread.predictions(["score"], **options)
    for share in (0.0, 1.0, 7.0):
        with pytest.raises(InputError, match="sets: got"):
            spread.predictions(["score"], sets=share)


def test_it_is_saved_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    spread = spread_of([0.25, 1.5, -3.0])
    spread.save(tmp_path)
    loaded = Spread.load(tmp_path)
    assert loaded is not None
    assert (loaded.mean, loaded.scale) == (3.0, 2.0)
    assert np.array_equal(loaded.values, spread.values)
    assert np.array_equal(loaded.y_true, spread.y_true)
    (tmp_path / "validation.safetensors").unlink()
    with pytest.raises(RunError, match=r"validation.safetensors: cannot be read"):
        Spread.load(tmp_path)
