"""Damages each file of runs, prepared folders, exports and checkpoints, and loads: a clear error or the right answer.

    python faults/corruption.py                 everything
    python faults/corruption.py --each 1        one corruption of each kind and file, fewer kinds of bytes

Each file is truncated, emptied, deleted, gets a flipped bit, garbage at its end, or the content of another run's file.
Then everything that reads the folder reads it: loading, predictions, rivals, hashes of texts, metrics, recipe, report
data, splits, tokens; of a checkpoint the training that it continues.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "src")]

import conftest  # noqa: E402  # it sets the environment before libraries read it
import numpy as np  # noqa: E402

from bertlora.errors import BertloraError  # noqa: E402

SEED = 17
TEXTS = ["a joy from start to finish", "dull and lifeless", "i loved it, late at night", ""]
TOPICS = {"crime": "a detective finds the gun", "love": "they kiss at the wedding", "war": "he leaves his army"}
KEYS: dict[str, Any] = {"max_length": 32, "precision": "fp32", "rank": 2, "batch_size": 8, "epochs": 1}
# What may be written again by people or by `report`, so that no hash covers it; nothing reads it for an answer.
UNCOVERED = ("README.md", "report.html")

# What reads a part of a folder, and gives an answer that can be compared.
Readers = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Subject:
    """A folder to damage.

    Attributes:
        name: what it is.
        folder: the folder.
        other: a folder of the same kind, whose files are swapped in.
        readers: opens the folder, and returns what reads its parts.
    """

    name: str
    folder: Path
    other: Path
    readers: Callable[[Path], Readers]


def damages(old: bytes, other: bytes | None, draw: random.Random) -> Iterator[tuple[str, bytes | None]]:
    """Yields each kind of damage with the new content; None deletes the file."""
    yield "deleted", None
    if old:
        yield "emptied", b""
        yield "truncated", old[: draw.randrange(len(old))]
        at = draw.randrange(len(old))
        yield "flipped", old[:at] + bytes([old[at] ^ 1 << draw.randrange(8)]) + old[at + 1 :]
    yield "appended", old + draw.randbytes(draw.randint(1, 40))
    if other is not None and other != old:
        yield "swapped", other


def outcome(subject: Subject, expected: dict[str, Any]) -> str:
    """Returns what loading the damaged folder gave: `refused`, `right`, or a broken promise with its details."""
    found = "right"
    try:
        readers = subject.readers(subject.folder)
    except BertloraError as error:
        return "refused" if "\n" not in str(error) else f"several lines: {error}"
    except Exception as error:
        return f"other exception: {type(error).__name__}: {error}"
    for name, read in readers.items():
        try:
            if read() != expected[name]:
                return f"wrong: {name}"
        except BertloraError as error:
            found = "refused" if "\n" not in str(error) else f"several lines: {error}"
        except Exception as error:
            return f"other exception: {name}: {type(error).__name__}: {error}"
    return found


def damaged(subject: Subject, draw: random.Random, each: int = 1, step: int = 1) -> Iterator[tuple[str, str, str]]:
    """Yields file, kind and outcome of every corruption of a folder; each is undone before the next.

    Args:
        subject: the folder.
        draw: chooses bytes and places.
        each: how often each kind is tried with each file.
        step: tries only every so many of them.
    """
    numbers = count()
    expected = {name: read() for name, read in subject.readers(subject.folder).items()}
    for file in sorted(path for path in subject.folder.rglob("*") if path.is_file()):
        name, old, times = str(file.relative_to(subject.folder)), file.read_bytes(), file.stat()
        twin = subject.other / name
        for again in range(each):
            for kind, content in damages(old, twin.read_bytes() if twin.is_file() else None, draw):
                if again and kind in ("deleted", "emptied", "swapped"):
                    continue  # the same again
                if next(numbers) % step:
                    continue
                file.unlink(missing_ok=True)
                if content is not None:
                    file.write_bytes(content)
                yield name, kind, outcome(subject, expected)
                file.write_bytes(old)
                os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


# What reads a folder


def run_readers(folder: Path) -> Readers:
    """Returns what reads a run or an export."""
    from bertlora.run.loaded import Run

    run = Run.load(folder)
    features = np.linspace(-1, 1, 4 * 64, dtype=np.float32).reshape(4, 64)  # of the tiny base: twice 32
    return {
        "manifest": lambda: run.manifest,
        "predictions": lambda: run.predict(TEXTS),
        "validation rows": lambda: repr(vars(run.calibration)),
        "rivals": lambda: repr(run.rivals.logits(features, TEXTS)),
        "texts seen": lambda: repr(run.seen),
        "metrics": run.metrics,
        "recipe": run.recipe,
    }


def data_readers(folder: Path) -> Readers:
    """Returns what reads a prepared folder."""
    from bertlora.data.prepared import Prepared
    from bertlora.data.reader import Reader, split_examples
    from bertlora.model.base import find_base

    data = Prepared.load(folder)
    reader = Reader.of(find_base("minilm").text_tokenizer(), 32, "right")

    def tokens() -> list[Any]:
        found = [split_examples(reader, data, name) for name in data.rows]
        return [[(rows.inputs.first[i].tolist()) for i in range(len(rows))] for rows in found]

    return {
        "manifest": lambda: vars(data),
        "rows": lambda: repr([data.split(name) for name in data.rows]),
        "targets": lambda: repr([data.targets(name) for name in data.rows]),
        "texts one by one": lambda: [list(data.stream(name, "text")) for name in data.rows],
        "places": lambda: [data.places(name, range(20)) for name in data.rows],
        "tokens": tokens,
    }


def checkpoint_readers(base: Path, folder: Path) -> Readers:
    """Returns what reads checkpoints: a training that goes on from them must end as if nothing were damaged."""
    from small_training import run_all, state

    with tempfile.TemporaryDirectory() as place:
        training = small(base, shutil.copytree(folder, Path(place) / "run"), resume=True)
        run_all(training)
    return {"weights": lambda: {name: value.numpy().tobytes() for name, value in state(training).items()}}


def small(base: Path, folder: Path, seed: int = 1, resume: bool = False) -> Any:
    """Returns a small training with checkpoints in a folder."""
    from small_training import small_recipe, small_training

    recipe = small_recipe(base, seed=seed, lora_dropout=0.1, epochs=3)
    return small_training(recipe, checkpoints=folder, resume=resume)


# The folders


def reviews(path: Path, task: str, seed: int) -> Path:
    """Writes a CSV file of 60 short texts with their targets, and returns its path."""
    draw, lines = random.Random(seed), ["text,label"]
    for i in range(60):
        topics = [name for name in TOPICS if draw.random() < 0.5]
        text = " ".join(["film", str(draw.randrange(10**6)), *(TOPICS[name] for name in topics)])
        label = {"classification": "love" if "love" in topics else "none", "regression": str(len(topics) + i / 100)}
        lines.append(f"{text},{label.get(task, '|'.join(topics))}")
    path.write_text("\n".join(lines) + "\n")
    return path


def trained(place: Path, base: Path, task: str, seed: int = 1) -> Path:
    """Returns a new run of a task."""
    from bertlora.pipeline.train import train

    print(f"training {task} {seed}", file=sys.stderr)
    out = place / f"{task}-{seed}"
    data = reviews(place / f"{task}-{seed}.csv", task, seed)
    train(str(data), out, model=str(base), task=task, seed=seed, split="60/20/20", **KEYS)
    return out


def interrupted(base: Path, folder: Path, seed: int) -> Path:
    """Returns the folder of a training that was broken off in its last epoch, with its checkpoints."""
    folder.mkdir()
    training = small(base, folder, seed)
    for _ in training.run():
        if training.progress.step == 10:  # of 12
            break
    return folder


def subjects(place: Path, formats: tuple[str, ...] = ("merged", "onnx", "openvino", "adapter")) -> Iterator[Subject]:
    """Yields runs of each task, a prepared folder, an adapter alone, and exports."""
    from bertlora.run.loaded import Run

    (place / "base").mkdir()
    base = conftest.tiny_model("bert", place / "base")
    run, other = (trained(place, base, "classification", seed) for seed in (1, 2))
    for folder in (run, other):
        shutil.move(folder / "data", place / f"{folder.name}-data")
    yield Subject("run", run, other, run_readers)
    for task in ("regression", "multilabel"):
        found = trained(place, base, task)
        shutil.rmtree(found / "data")
        yield Subject(f"run, {task}", found, run, run_readers)
    data, others = (place / f"{folder.name}-data" for folder in (run, other))
    yield Subject("prepared folder", data, others, data_readers)
    alone, another = (shutil.copytree(folder / "adapter", place / f"{folder.name}-alone") for folder in (run, other))
    yield Subject("adapter alone", alone, another, run_readers)
    broken_off = [interrupted(base, place / f"checkpoints-{seed}", seed) for seed in (1, 2)]
    yield Subject("checkpoints", broken_off[0], broken_off[1], partial(checkpoint_readers, base))
    for form in formats:
        exports = []
        for folder in (run, other):
            exports.append(place / f"{folder.name}-{form}")
            Run.load(folder).export(exports[-1], form)
        yield Subject(f"export {form}", exports[0], exports[1], run_readers)


def main() -> int:
    """Damages all folders, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=1, help="how often each kind is tried with each file")
    each, draw, found = parser.parse_args().each, random.Random(SEED), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        for subject in subjects(Path(place)):
            for name, kind, result in damaged(subject, draw, each):
                found[result.partition(":")[0]] += 1
                if result not in ("right", "refused"):
                    print(f"{subject.name}: {name} {kind}: {result}", file=sys.stderr)
            print(f"{subject.name}: {found.total()} so far", file=sys.stderr)
    broken = found["wrong"], found["other exception"] + found["several lines"]
    figures = {"corruptions": found.total(), "refused in one clear line": found["refused"]}
    figures |= {"right answer all the same": found["right"], "silent wrong": broken[0], "other exceptions": broken[1]}
    print(json.dumps(figures))
    return int(any(broken))


if __name__ == "__main__":
    sys.exit(main())
