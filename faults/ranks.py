"""Trains in two processes on the CPU (gloo), by torchrun and by accelerate; kills one of them, and resumes.

    python faults/ranks.py

Promises: two processes give the losses of one process with the same batch, within rounding; when one is killed, the
command ends with a status that is not 0 and one line that says so; `--resume` gives the run of one process.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from conftest import tiny_model, write_reviews
from safetensors.numpy import load_file

LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    # With --cpu, accelerate starts one process, whatever number it is given; without a GPU this runs on the CPU too.
    "accelerate launch": ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"],
}
LAUNCHERS["accelerate launch"] += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
# An odd number of rows a step, and hardly any in the last one.
OPTIONS = ["--batch-size", "9", "--epochs", "12", "--lora-dropout", "0", "--precision", "fp32", "--max-length", "32"]
LOSSES = ("train_loss", "validation_loss", "accuracy", "macro_f1")
ROUNDING = 1e-4
PATIENCE_S = 240
# The main process hears of the death from the exchange of gradients or from the launcher, which ends it by SIGTERM.
LINES = ("a process of this training has ended", "terminated")


def main() -> int:
    """Trains, compares, and prints the figures."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bertlora-ranks-") as folder:
        place = Path(folder)
        data = place / "data"
        run(["prepare", str(write_reviews(place / "reviews.csv")), "--out", str(data)])
        words = ["train", str(data), "--model", str(tiny_model("bert", place / "tiny")), *OPTIONS]
        run([*words, "--out", str(place / "one")])
        for name, launcher in LAUNCHERS.items():
            out = place / name.partition(" ")[0]
            run([*words, "--out", str(out)], launcher)
            figures[f"{name}: largest difference of a loss"] = difference(place / "one", out)
        killed = place / "killed"
        figures |= kill_one([*words, "--out", str(killed)], killed)
        run(["train", "--resume", "--out", str(killed)], LAUNCHERS["torchrun"])
        figures["resumed after the kill: largest difference of a loss"] = difference(place / "one", killed)
    print(json.dumps(figures))
    kept = all(value < ROUNDING for name, value in figures.items() if name.endswith("loss"))
    return int(not (kept and figures["killed: status is not 0"] and figures["killed: lines that say so"] == 1))


def run(words: list[str], launcher: list[str] | None = None) -> None:
    """Runs a verb, in two processes if there is a launcher."""
    began = time.perf_counter()
    with start(words, launcher or []) as process:
        said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 0, said[-3000:]
    print(f"{' '.join((launcher or [])[:2])} {words[0]}: {time.perf_counter() - began:.0f} s", file=sys.stderr)


def start(words: list[str], launcher: list[str]) -> subprocess.Popen[str]:
    """Starts a verb."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launcher, "-m", "bertlora", *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def difference(first: Path, second: Path) -> float:
    """Returns the largest difference of a loss or metric of two runs' histories, and of a weight of their adapters."""
    histories = [list(map(json.loads, (run / "history.jsonl").read_text().splitlines())) for run in (first, second)]
    assert len(histories[0]) == len(histories[1])
    losses = [abs(a[key] - b[key]) for a, b in zip(*histories, strict=True) for key in LOSSES]
    one, two = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (first, second))
    weights = [float(np.abs(one[name] - two[name]).max()) for name in one]
    return float(f"{max(losses + weights):.2g}")


def kill_one(words: list[str], out: Path) -> dict[str, Any]:
    """Starts two processes, kills the second one after the first checkpoint, and returns how the command ended."""
    process = start(words, LAUNCHERS["torchrun"])
    until = time.monotonic() + PATIENCE_S
    while not (out / "history.jsonl").is_file():
        assert process.poll() is None, "the training ended before it was killed"
        assert time.monotonic() < until, "no evaluation was reached"
        time.sleep(0.05)
    os.kill(rank_of(process.pid, 1), signal.SIGKILL)
    began = time.perf_counter()
    errors = process.communicate(timeout=PATIENCE_S)[1]
    lines = [line for line in errors.splitlines() if line.startswith("bertlora: ")]
    print("\n".join(lines), file=sys.stderr)
    return {
        "killed: seconds until the command ended": round(time.perf_counter() - began, 1),
        "killed: status is not 0": process.returncode != 0,
        "killed: lines that say so": sum(any(said in line for said in LINES) for line in lines),
    }


def rank_of(launcher: int, rank: int) -> int:
    """Returns the process with this rank among the children of a launcher."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            environment = (stat.parent / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == launcher and f"RANK={rank}".encode() in environment:
            return int(stat.parent.name)
    raise AssertionError(f"no process has rank {rank}")


if __name__ == "__main__":
    sys.exit(main())
