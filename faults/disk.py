"""Fills the disk, and lets each write, sync and rename fail: one line, nothing half-written, the old output stays.

    python faults/disk.py               everything
    python faults/disk.py --every 7     every seventh operation, fewer sizes

The full disk is a small tmpfs, which only root may mount; elsewhere a limit on the size of files stands for it.
After it has space again, `train --resume` must end with the adapter that it would have had, bit for bit.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests"), str(HERE.parent / "src")]

import conftest  # noqa: E402  # it sets the environment before libraries read it
from failing import failing  # noqa: E402

from bertlora.cli import main as verb  # noqa: E402
from bertlora.run.unfinished import is_finished  # noqa: E402

SMALL = ("--max-length", "32", "--precision", "fp32", "--rank", "2", "--batch-size", "8", "--epochs", "1")
# Files of an output that are the same in every repetition, bit for bit.
STABLE = ("adapter_model.safetensors", "model.safetensors", "train.parquet", "validation.safetensors")
SPACE = 64_000_000
# The status of a verb, and what it says on stderr.
Answer = tuple[int, str]
# Every file of an output by name; None if there is none.
Content = dict[str, bytes] | None


@dataclass(frozen=True)
class Work:
    """A verb that writes.

    Attributes:
        words: the command, without its output.
        out: the name of its output.
    """

    words: tuple[str, ...]
    out: str

    def run(self, folder: Path, *more: str) -> Answer:
        """Returns the status and what it says on stderr."""
        flag = "--to" if self.words[0] == "export" else "--out"
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = verb([*self.words, flag, str(folder / self.out), *more])
        return status, said.getvalue()


@dataclass
class Found:
    """What happened: figures, and the promises that were broken."""

    figures: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def fail(self, what: str) -> None:
        self.broken.append(what)
        print(f"broken: {what}", file=sys.stderr)


def content(out: Path) -> Content:
    """Returns every file of an output by name; None if there is none."""
    if not out.exists():
        return None
    paths = [out] if out.is_file() else sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out.parent)): path.read_bytes() for path in paths}


def stable(found: Content) -> dict[str, bytes]:
    """Returns what must be the same in every repetition of a work; of a report only its end."""
    kept = {name: data for name, data in (found or {}).items() if Path(name).name in STABLE or "/" not in name}
    return {name: data[-8:] if name.endswith(".html") else data for name, data in kept.items()}


def check(name: str, answer: Answer, was: Content, out: Path, whole: object, found: Found) -> None:
    """Checks what a disturbed work leaves, and counts what became of it.

    Args:
        name: the work, and how it was disturbed.
        answer: its status and what it said.
        was: the older output.
        out: the output.
        whole: what an undisturbed work gives; see `stable`.
        found: takes the figures.
    """
    (status, lines), now = answer, content(out)
    if out.name == "trained" and not is_finished(out):
        now = None  # it is no output yet
    left = [path.name for path in out.parent.iterdir() if ".partial-" in path.name or ".old-" in path.name]
    if left:
        found.fail(f"{name}: leaves {left}")
    if (status == 0 or now != was) and stable(now) != whole:
        found.fail(f"{name}: status {status}, half-written: {sorted(now or {})}")
    if status == 0:
        found.figures["done all the same"] += 1
        return
    found.figures["refused in one line"] += 1
    faults = [line for line in lines.splitlines() if line.startswith("bertlora: ")]
    if status != 2 or len(faults) != 1 or "Traceback" in lines:
        found.fail(f"{name}: status {status}: {lines[-300:]}")


def works(data: Path, base: Path, run: Path) -> list[Work]:
    """Returns the verbs, on a file of reviews, a base, and a run of these reviews with its data."""
    return [
        Work(("prepare", str(data), "--overwrite"), "data"),
        Work(("score", str(run), str(data), "--overwrite"), "scored.csv"),
        Work(("predict", str(run), "--file", str(data), "--overwrite"), "predicted.csv"),
        Work(("report", str(run), "--overwrite"), "report.html"),
        Work(("export", str(run), "--format", "merged", "--overwrite"), "export"),
        Work(("train", str(run / "data"), "--model", str(base), *SMALL), "trained"),
    ]


def older(work: Work, folder: Path) -> Content:
    """Puts an older output in the way, if the work may overwrite it, and returns it."""
    out = folder / work.out
    if "--overwrite" in work.words:
        if not out.suffix:
            out.mkdir()
        (out if out.suffix else out / "old.txt").write_text("old")
    return content(out)


def emptied(folder: Path) -> None:
    """Deletes what is in a folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def each_operation(work: Work, folder: Path, every: int, found: Found) -> None:
    """Lets the operations of a work fail, one in each repetition."""
    with failing(folder) as count:
        status, said = work.run(folder)
    whole = stable(content(folder / work.out))
    assert status == 0, said
    for number in range(0, count.done, every):
        emptied(folder)
        was = older(work, folder)
        with failing(folder, number):
            answer = work.run(folder)
        found.figures["operations that failed"] += 1
        check(f"{work.words[0]}, operation {number} of {count.done}", answer, was, folder / work.out, whole, found)


def each_size(work: Work, disk: "Disk", sizes: int, found: Found) -> None:
    """Gives a work too little space in several ways, then enough."""
    status, said = work.run(disk.folder)
    assert status == 0, said
    out = disk.folder / work.out
    whole, needed = stable(content(out)), sum(map(len, (content(out) or {}).values()))
    for part in range(sizes):
        emptied(disk.folder)
        was, name = older(work, disk.folder), f"{work.words[0]}, {part}/{sizes} of {needed} bytes"
        with disk.leaving(needed * part // sizes):
            answer = work.run(disk.folder)
        found.figures["full disks"] += 1
        check(name, answer, was, out, whole, found)
        if work.words[0] == "train" and not is_finished(out):
            status, said = work.run(disk.folder, *(["--resume"] if (out / "recipe.toml").is_file() else []))
            found.figures["trained on with space"] += 1
            now = stable(content(out))
            other = sorted(file for file in now.keys() | whole.keys() if now.get(file) != whole.get(file))
            if status or other:
                found.fail(f"{name}: with space again: status {status}, differ: {other}: {said[-300:]}")


class Disk:
    """A small file system, or a folder with a limit on the size of files where none may be mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = ["mount", "-t", "tmpfs", "-o", f"size={SPACE}", "none", str(folder)]
        self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0

    @contextmanager
    def leaving(self, space: int) -> Iterator[None]:
        """Inside, there is only so much space, in bytes."""
        if not self.mounted:
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (space, limits[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            return
        ballast = self.folder / "ballast"
        with ballast.open("wb") as file:
            free = os.statvfs(self.folder)
            os.posix_fallocate(file.fileno(), 0, max(free.f_bavail * free.f_bsize - space, 1))
        try:
            yield
        finally:
            ballast.unlink()

    def close(self) -> None:
        """Gives the file system back."""
        if self.mounted:  # a file of it may still be mapped into memory
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def disturbed(place: Path, every: int, sizes: int) -> Found:
    """Disturbs the verbs in both ways."""
    found, calls, small = Found(), place / "calls", place / "small"
    for folder in (calls, small, place / "base"):
        folder.mkdir()
    base, data = conftest.tiny_model("bert", place / "base"), conftest.write_reviews(place / "reviews.csv")
    status, said = Work(("train", str(data), "--model", str(base), *SMALL), "run").run(place)
    assert status == 0, said
    disk = Disk(small)
    try:
        for work in works(data, base, place / "run"):
            print(f"{work.words[0]}: {found.figures.total()} so far", file=sys.stderr)
            # A training takes seconds.
            each_operation(work, calls, every * (5 if work.words[0] == "train" else 1), found)
            each_size(work, disk, sizes, found)
            emptied(calls)
            emptied(small)
    finally:
        disk.close()
    found.figures["a tmpfs of its own"] = int(disk.mounted)
    return found


def main() -> int:
    """Disturbs all verbs, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="which operations fail")
    parser.add_argument("--sizes", type=int, default=6, help="how many sizes of the disk")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = disturbed(Path(place), given.every, given.sizes)
    print(json.dumps(found.figures | {"broken promises": len(found.broken)}))
    return int(bool(found.broken))


if __name__ == "__main__":
    sys.exit(main())
