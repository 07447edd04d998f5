#!/usr/bin/env python3
"""What int8 costs and brings on this CPU: a run's graph in fp32, in ONNX Runtime's own int8, and in bertlora's.

    python benchmarks/int8_graphs.py RUN sst2_validation.parquet --graphs FOLDER

Prints a Markdown table. Speed is texts for each second of CPU time on one thread, without reading and tokenising, the
best of the rounds. The engines take turns. `apart` is the share of texts whose logits are the same, bit for bit, apart
and among others.
"""

import argparse
import os
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
from contest import machine, table
from onnxruntime.quantization import quantize_dynamic

from bertlora.confidence.probabilities import Array, Labels, cross_entropy
from bertlora.data.inputs import Inputs
from bertlora.export.onnx_graph import write_onnx
from bertlora.export.per_token import write_int8
from bertlora.export.runners import Runner
from bertlora.export.runtime import onnx_runner
from bertlora.run.loaded import Run

HEAD = ["", "MB", "texts/s", "accuracy", "log loss", "labels as fp32", "apart"]
ALONE = 40


def main() -> None:
    """Writes the graphs, runs them and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder of a classification")
    parser.add_argument("file", help="Parquet with columns text, label (0, 1, ...)")
    parser.add_argument("--graphs", type=Path, required=True, help="where the graphs go; written if they are missing")
    parser.add_argument("--rows", type=int, default=872)
    parser.add_argument("--rounds", type=int, default=1)
    a = parser.parse_args()
    frame = pd.read_parquet(a.file)[["text", "label"]].sample(frac=1, random_state=1)[: a.rows]
    run, graphs = Run.load(a.run), written(a.run, a.graphs)
    inputs, labels = run.adapted.reader.read(frame.text.tolist(), None), frame.label.to_numpy()
    engines: dict[str, Runner] = {"bertlora, fp32": run.adapted}
    engines |= {name: onnx_runner(file, run.adapted.reader.pad_id) for name, file in graphs.items()}
    with run.adapted.ready():
        found, seconds = timed(engines, inputs, a.rounds)
        apart = {name: same_apart(engine, inputs, found[name]) for name, engine in engines.items()}
    exact = found["bertlora, fp32"]
    rows = [
        [
            name,
            f"{graphs[name].stat().st_size / 1e6:.0f}" if name in graphs else "",
            f"{len(inputs) / seconds[name]:.1f}",
            *scores(found[name], labels, exact),
            f"{apart[name]:.0%}",
        ]
        for name in engines
    ]
    tokens = int(inputs.lengths.sum())
    print(f"{Path(a.file).name}, {len(inputs)} texts, {tokens} tokens, {a.rounds} rounds. {machine()}\n")
    print(table(HEAD, rows))


def written(run: str, folder: Path) -> dict[str, Path]:
    """Returns the graphs of a run by name, and writes those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        "ONNX Runtime, fp32": "fp32",
        "its own int8": "dynamic",
        "per token, 8 bits": "8",
        "per token, 7 bits": "7",
    }
    files = {name: folder / f"{file}.onnx" for name, file in names.items()}
    source, theirs, eight, seven = files.values()
    if not source.exists():
        write_onnx(Run.load(run).adapted.merged(), False, source)
    if not theirs.exists():
        quantize_dynamic(source, theirs)
    for file, largest in ((eight, 127), (seven, 63)):
        write_int8(source, file, largest)
    return files


def timed(engines: dict[str, Runner], inputs: Inputs, rounds: int) -> tuple[dict[str, Array], dict[str, float]]:
    """Returns the logits of each engine, and the CPU seconds of its best round."""
    found: dict[str, Array] = {}
    seconds = dict.fromkeys(engines, float("inf"))
    for _ in range(rounds):
        for name, engine in engines.items():
            began = time.process_time()
            found[name] = engine.logits(inputs)
            seconds[name] = min(seconds[name], time.process_time() - began)
    return found, seconds


def same_apart(engine: Runner, inputs: Inputs, found: Array) -> float:
    """Returns the share of the first texts whose logits apart are the same bit for bit."""
    rows = range(min(ALONE, len(inputs)))
    return float(np.mean([np.array_equal(engine.logits(inputs.take([i]))[0], found[i]) for i in rows]))


def scores(logits: Array, labels: Labels, exact: Array) -> list[str]:
    """Returns accuracy, log loss and agreement with fp32's labels."""
    right, same = logits.argmax(1) == labels, logits.argmax(1) == exact.argmax(1)
    return [f"{right.mean():.2%}", f"{cross_entropy(logits, labels):.4f}", f"{same.mean():.2%}"]


if __name__ == "__main__":
    main()
