"""Names, labels and texts that would steer a terminal are shown, and steer nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import answer
from helpers import adapted_of, save_tiny_run

STEERING = "\x1b]0;taken\x07\x1b[31mred\x9b2J\u202egood\x00"


def steers(text: str) -> list[str]:
    return [letter for letter in text if letter != "\n" and not letter.isprintable()]


def test_nothing_that_is_printed_steers_the_terminal(
    tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [f"bad{STEERING}", "good"]
    save_tiny_run(tmp_path / "run", adapted_of(tiny("bert"), labels))
    rows = [
        {"text": f"a film {i} {STEERING}", "label": labels[i % 2], f"c{STEERING}": f"{i % 2}{STEERING}"}
        for i in range(40)
    ]
    data = tmp_path / "reviews.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    commands: list[list[object]] = [
        ["predict", tmp_path / "run", f"a joy {STEERING}"],
        ["evaluate", tmp_path / "run", f"test={data}", "--slice-column", f"c{STEERING}"],
        ["prepare", data, "--out", tmp_path / "prepared"],
        ["train", data, "--out", tmp_path / f"a{STEERING[:-1]}", "--model", f"no{STEERING}"],
        ["train", tmp_path / f"none{STEERING[:-1]}", "--out", tmp_path / "b"],
        [f"a{STEERING}"],
    ]
    for words in commands:
        found = answer(capsys, *words)
        assert found.out + found.err
        assert steers(found.out + found.err) == [], words
