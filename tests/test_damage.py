"""Damaged files and failing disks: the short form of faults/corruption.py and faults/disk.py."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from corruption import Subject, damaged, data_readers, run_readers
from disk import Found, each_operation, works
from helpers import adapted_of, save_tiny_run


def test_no_damaged_file_gives_a_wrong_answer(
    run_of_reviews: Path, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    run = shutil.copytree(run_of_reviews, tmp_path / "run")
    shutil.move(run / "data", tmp_path / "data")
    save_tiny_run(tmp_path / "other", adapted_of(tiny("bert")))
    subjects = [
        Subject("run", run, tmp_path / "other", run_readers),
        Subject("data", tmp_path / "data", tmp_path / "other", data_readers),
    ]
    draw = random.Random(1)
    found = Counter(result for subject in subjects for _, _, result in damaged(subject, draw, step=5))
    assert found.keys() == {"refused", "right"}
    assert found.total() > 30
    assert found["refused"] > found["right"]


def test_whatever_operation_fails_the_old_output_or_the_new_one_is_there(
    run_of_reviews: Path, reviews: Path, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    found, folder = Found(), tmp_path / "out"
    folder.mkdir()
    every = {"prepare": 4, "score": 5, "export": 14}  # the others take seconds
    for work in works(reviews, tiny("bert"), run_of_reviews):
        if work.words[0] in every:
            each_operation(work, folder, every[work.words[0]], found)
    assert found.broken == []
    assert found.figures["refused in one line"] > 6
