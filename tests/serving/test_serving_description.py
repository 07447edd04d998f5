"""The server keeps to its own description: schemathesis makes requests from it, good ones and bad ones."""

from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")

from fuzzing.described import disagreements
from fuzzing.http import instant_app


def test_every_answer_fits_the_description(tmp_path: Path) -> None:
    sent, faults = disagreements(instant_app(tmp_path, "right"), 2, {"Authorization": "Bearer right"})
    assert faults == []
    assert sent > 40
