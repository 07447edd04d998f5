"""Trains twice at the same time on one machine, and compares with one training alone. It needs all cores to itself.

    python faults/side_by_side.py

Each training is the command `bertlora train` with as many threads as it takes by itself: one for each core. The figure
is the time of the training loop, without imports: the slower of two at once over one at a time. On a machine whose
cores are all used by one training, 2 means that nothing is lost. The last figure has torch's own spinning threads.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from conftest import NEGATIVE, POSITIVE, tiny_model

MOST = 2.0
STEPS = {"MiniLM": 12, "tiny": 200}
# Taken from the environment if it is there: a promise about the defaults is tested with the defaults.
THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS")
# libgomp's own number of turns.
SPINNING = {"GOMP_SPINCOUNT": "300000"}


def main() -> int:
    """Measures, and prints the ratios."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bertlora-side-") as folder:
        place = Path(folder)
        data = write_reviews(place / "reviews.csv")
        models = {"MiniLM": "minilm", "tiny": str(tiny_model("bert", place / "tiny"))}
        for name, model in models.items():
            alone = seconds(data, model, STEPS[name], 1)
            figures[f"{name}: one at a time, seconds"] = round(alone, 1)
            figures[f"{name}: two at once, times as long"] = round(seconds(data, model, STEPS[name], 2) / alone, 2)
        promised = [value for name, value in figures.items() if name.endswith("long")]
        spinning = seconds(data, models["tiny"], STEPS["tiny"], 2, SPINNING) / figures["tiny: one at a time, seconds"]
        figures["tiny: two at once with torch's spinning, times as long"] = round(spinning, 2)
    print(json.dumps(figures))
    return int(max(promised) > MOST)


def write_reviews(file: Path) -> Path:
    """Writes 300 reviews of 8 to 60 words."""
    draws = np.random.default_rng(0)
    lines = ["text,label"]
    for number in range(300):
        words = " ".join((POSITIVE, NEGATIVE)[number % 2]).replace(",", "").split()
        drawn = " ".join(draws.choice(words, int(draws.integers(8, 60))))
        lines.append(f"{drawn} {number},{('good', 'bad')[number % 2]}")
    file.write_text("\n".join(lines) + "\n")
    return file


def seconds(data: Path, model: str, steps: int, count: int, env: dict[str, str] | None = None) -> float:
    """Returns the seconds of the slowest training loop of `count` trainings at once."""
    environment = {name: value for name, value in os.environ.items() if name not in THREADS} | (env or {})
    environment["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        command = [sys.executable, "-m", "bertlora", "train", str(data), "--json", "--model", model]
        command += ["--max-steps", str(steps), "--epochs", "99", "--precision", "fp32", "--max-length", "64"]
        running = [
            subprocess.Popen(
                [*command, "--out", f"{folder}/{i}"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for i in range(count)
        ]
        found = [json.loads(process.communicate(timeout=300)[0])["train"]["seconds"] for process in running]
    print(f"{model}, {count} at once, {env or 'the defaults'}: {max(found):.1f} s", file=sys.stderr)
    return float(max(found))


if __name__ == "__main__":
    sys.exit(main())
