"""Tiny classifiers as ONNX files: writing one takes torch's exporter some seconds, so the tests share them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from onnx_files import Exported, exporter


@pytest.fixture(scope="session")
def exported(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Returns a function: architecture → its tiny classifier as ONNX files."""
    return exporter(tiny, tmp_path_factory)
