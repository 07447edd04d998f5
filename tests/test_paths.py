"""How many files the two main ways through the code pass: a text to its logits, prepared data to a run folder."""

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import Mock

import pytest
from helpers import TEXTS, adapted_of, save_tiny_run

import bertlora
from bertlora import Recipe, Run
from bertlora.data.prepared import Prepared
from bertlora.pipeline.training_run import train_run

ROOT = str(Path(bertlora.__file__).parent)


@contextmanager
def files_passed() -> Iterator[set[str]]:
    """Inside, collects the files of bertlora in which a function is called."""
    passed: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        # Only functions have this flag, and bodies of modules and classes do not.
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(ROOT):
            passed.add(code.co_filename[len(ROOT) + 1 :])

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield passed
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def test_a_text_passes_at_most_20_files_on_its_way_to_logits(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    save_tiny_run(tmp_path, adapted_of(tiny("bert")))
    run = Run.load(tmp_path)
    with files_passed() as passed:
        run.predict(TEXTS)
    assert {"run/loaded.py", "model/engine/execution.py"} <= passed
    # The room `confidence` begins where the logits are.
    to_logits = {file for file in passed if not file.startswith("confidence/")}
    assert len(to_logits) <= 20, " ".join(sorted(to_logits))


def test_training_from_a_prepared_folder_passes_at_most_65_files(
    tiny: Callable[[str], Path], reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the run folder, with rivals and advice. The verb's checks, certificate and report are other ways."""
    bertlora.prepare(reviews, tmp_path / "data", model=str(tiny("bert")))
    data = Prepared.load(tmp_path / "data")
    recipe = Recipe(model=str(tiny("bert")), epochs=3, max_length=32, precision="fp32")
    monkeypatch.setattr("bertlora.pipeline.training_run.report_training", lambda *_: None)
    monkeypatch.setattr("bertlora.export.certificate.Certificate.of", lambda _: Mock())
    with files_passed() as passed:
        train_run(data, recipe, tmp_path / "run")
    assert {"pipeline/training_run.py", "training/loop.py", "run/folder.py"} <= passed
    assert len(passed) <= 65, " ".join(sorted(passed))
