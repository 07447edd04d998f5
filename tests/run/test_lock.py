"""A lock next to an output: the second process is refused, and a killed one is no obstacle."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bertlora.errors import OutputError
from bertlora.run import lock
from bertlora.run.lock import lock_of, locked

KILLED = """
import os, sys
from pathlib import Path
from bertlora.run.lock import locked
with locked(Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""


def test_the_second_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    out = tmp_path / "new" / "runs" / "a"
    with locked(out) as killed:
        assert not killed
        with pytest.raises(OutputError, match=r"a: process \d+ writes it already; wait until it ends"), locked(out):
            pass
        with locked(tmp_path / "new" / "runs" / "b"):
            pass
        (tmp_path / "link").symlink_to(out)
        with pytest.raises(OutputError, match="writes it already"), locked(tmp_path / "link"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    with locked(out):
        pass


def test_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    out = tmp_path / "a"
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert done.returncode == -9
    assert lock_of(out).exists()
    with locked(out) as killed:
        assert killed
    assert not lock_of(out).exists()


@pytest.mark.parametrize("flock", [True, False])
@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, "flock"),  # the process lives: without flock it counts
        ({"process": 2**22 + 1}, ""),
        ({"machine": "elsewhere"}, "flock"),  # a container of this machine
        ({"boot": "an earlier start of this machine"}, ""),
        ({"machine": "elsewhere", "boot": "x"}, "always"),
    ],
)
def test_what_an_old_lock_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], refused: str, flock: bool
) -> None:
    """On a disk with flock, and on one without. A process of another machine may live: it says which file to delete."""
    out = tmp_path / "a"
    monkeypatch.setattr(platform, "node", lambda: "here")
    lock_of(out).write_text(json.dumps(lock._me() | changes))
    if not flock:
        monkeypatch.setattr(lock, "fcntl", None)
    if refused == "always":
        said = rf"on elsewhere writes it, .* delete {lock_of(out)} if it is gone"
        with pytest.raises(OutputError, match=said), locked(out):
            pass
        assert lock_of(out).exists()
    elif refused == "flock" and not flock:
        with pytest.raises(OutputError, match="writes it"), locked(out):
            pass
    else:
        with locked(out) as killed:
            assert killed
