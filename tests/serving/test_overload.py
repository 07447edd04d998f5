"""The short form of faults/overload.py, on the real server."""

from pathlib import Path

from overload import overload


def test_under_twice_its_load_the_server_answers_rightly_or_refuses(tmp_path: Path) -> None:
    found, broken = overload(tmp_path, seconds=3, texts=60)
    assert broken == []
    assert found["answered"] > 50
