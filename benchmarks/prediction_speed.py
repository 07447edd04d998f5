#!/usr/bin/env python3
"""Compares the prediction speed with transformers' pipeline and a tuned script, on the same classifier and texts.

    python benchmarks/prediction_speed.py runs/a sst2_validation.parquet --peers PEERS --log speed.jsonl

PEERS is a folder with hf_pipeline_predict.py, which gets the merged run; bertlora reads the run itself. The programs
take turns, each in a fresh process. It loads the model and predicts once to warm up. The second prediction is timed,
with tokenisation. Prints a Markdown table, and the differences between bertlora's results and the padded path in fp32.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from contest import Result, contest_parser, interleaved, machine, median, ratios, table

from bertlora.confidence.probabilities import Array
from bertlora.run.loaded import Run

PEERS = "transformers"
OURS = {f"bertlora, {precision}": precision for precision in ("bf16", "int8", "fp32")}


def main() -> None:
    """Measures and prints; with --precision it is one of bertlora's own programs."""
    parser = contest_parser(__doc__)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("texts", help="Parquet with a column text")
    parser.add_argument("--rows", type=int, default=0, help="use only the first N rows; 0 = all")
    parser.add_argument("--peers", help="folder with hf_pipeline_predict.py")
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.precision:
        print(json.dumps(contestant(a)))
        return
    with tempfile.TemporaryDirectory() as folder:
        merged, texts = Path(folder) / "merged", Path(folder) / "texts.parquet"
        Run.load(a.run).export(merged, "merged")
        read(a).to_parquet(texts)
        own = [sys.executable, __file__, a.run, str(texts)]
        contestants = {
            PEERS: [sys.executable, f"{a.peers}/hf_pipeline_predict.py", "--model", str(merged), "--texts", str(texts)],
        } | {name: [*own, "--precision", precision] for name, precision in OURS.items()}
        key: Result = {"contest": "prediction", "file": Path(a.texts).name, "rows": a.rows, "run": a.run}
        results = interleaved(contestants, a.rounds, Path(a.log), key)
    print(f"{Path(a.texts).name}, {results[0]['texts']} texts, {a.rounds} rounds. {machine()}\n")
    print(summary(results))
    print("\n" + faithful(a))


def read(a: argparse.Namespace) -> pd.DataFrame:
    """Returns the texts."""
    frame = pd.read_parquet(a.texts)[["text"]]
    return frame[: a.rows] if a.rows else frame


def contestant(a: argparse.Namespace) -> Result:
    """Returns the texts/s of the second prediction."""
    texts, adapted = read(a).text.tolist(), Run.load(a.run).adapted
    for _ in range(2):
        began = time.perf_counter()
        adapted.logits(adapted.reader.read(texts), precision=a.precision)
    return {"texts": len(texts), "texts_per_s": round(len(texts) / (time.perf_counter() - began), 1)}


def summary(results: list[Result]) -> str:
    """Returns the Markdown table."""
    both = [r for r in results if r["name"] == PEERS]
    split = [r for r in results if r["name"] != PEERS]
    for name in ("pipeline", "tuned"):
        split += [r | {"name": name, "texts_per_s": r[name]} for r in both]

    def pace(result: Result) -> float:
        return float(result["texts_per_s"])

    rows = [
        [
            name,
            f"{median(split, name, pace):.1f}",
            ratios(split, name, "pipeline", pace),
            ratios(split, name, "tuned", pace),
        ]
        for name in ("pipeline", "tuned", *OURS)
    ]
    return table(["", "texts/s", "times pipeline (batch 32)", "times the tuned script"], rows)


def faithful(a: argparse.Namespace) -> str:
    """Returns a sentence that compares labels and logits with the padded path in fp32."""
    adapted = Run.load(a.run).adapted
    inputs = adapted.reader.read(read(a).text.tolist())

    def answers(precision: str, pack: bool) -> Array:
        tokens = int(inputs.lengths.sum()) if pack else 0
        with adapted.execution(precision, tokens=tokens, pack=pack) as execution:
            return execution.predict(inputs, 32)

    exact, fp32 = answers("fp32", False), answers("fp32", True)
    agree = {name: np.mean(answers(name, True).argmax(1) == exact.argmax(1)) for name in ("bf16", "int8")}
    same = " and ".join(f"{name} for {100 * share:.2f} %" for name, share in agree.items())
    apart = np.abs(fp32 - exact).max()
    return f"The padded fp32 path's label: {same} of the texts; fp32 logits differ from its by at most {apart:.1e}."


if __name__ == "__main__":
    main()
