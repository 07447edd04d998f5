"""One run in two threads, in a process that was forked after torch had used its threads, and in a spawned one."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TEXTS, adapted_of, save_tiny_run

from bertlora.confidence.probabilities import Array
from bertlora.model.machine import threads_kept
from bertlora.run.loaded import Run

RUN: list[Run] = []


def asked(texts: list[str]) -> Array:
    return RUN[0].predict_proba(texts)


def loaded_and_asked(run: Path, texts: list[str]) -> Array:
    return Run.load(run).predict_proba(texts)


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_threads_and_other_processes_get_the_same_answers(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    save_tiny_run(tmp_path / "run", adapted_of(tiny("bert")))
    RUN[:] = [Run.load(tmp_path / "run")]
    long = [f"{text} {i} " * 9 for i in range(60) for text in TEXTS]
    expected = asked(long)
    with ThreadPoolExecutor(2) as threads:
        for found in threads.map(asked, [long] * 4):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    with threads_kept():
        torch.set_num_threads(2)
        asked(long)  # OpenMP's threads run now; a child has none of them, and must not wait for them
        with multiprocessing.get_context("fork").Pool(1) as pool:
            found = pool.apply_async(asked, (long,)).get(60)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply_async(loaded_and_asked, (tmp_path / "run", long)).get(120)
    np.testing.assert_allclose(found, expected, atol=1e-6)
