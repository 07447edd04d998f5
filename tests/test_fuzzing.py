"""A short form of `faults/fuzz.py`: every reader of files, with files that are changed at random."""

from pathlib import Path

import pytest
from fuzzing.engine import Found, Target, tried
from fuzzing.readers import PARTS, maker

from bertlora.errors import DataError

INPUTS = 150


@pytest.mark.parametrize("name", [name for name, module in PARTS.items() if module != "http"])
def test_changed_files_are_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    assert tried(maker(name)(tmp_path), INPUTS) == Found(INPUTS)


def test_what_is_no_clear_error_is_found() -> None:
    def read(data: bytes) -> None:
        if data.startswith(b"a"):
            raise DataError("fine")
        {}[data]

    found = tried(Target(read, [b"a", b"b"]), 200)
    assert found.inputs == 200
    assert list(found.faults) == ["KeyError: test_fuzzing.py:23 read"]
