#!/usr/bin/env python3
"""Prediction side by side with transformers' pipeline and a tuned script: same classifier, texts and machine, in turn.

    python benchmarks/prediction_speed.py runs/a sst2_validation.parquet --peers PEERS --log speed.jsonl

PEERS holds hf_pipeline_predict.py. The run is merged for it; bertlora reads the run itself. Each contestant is a fresh
process that loads the model, predicts once to warm up, and is timed the second time, tokenisation included. Prints a
Markdown table, and how far bertlora's answers are from the padded path's in fp32.
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

from bertlora.deploy.export import export_run
from bertlora.model.engine.execution import executing
from bertlora.model.predict import Array, executed_logits
from bertlora.run import Run

PEERS, BF16, FP32 = "transformers", "bertlora, bf16", "bertlora, fp32"


def main() -> None:
    """Measures and prints; with --precision it is bertlora's own contestant."""
    parser = contest_parser(__doc__)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("texts", help="Parquet with a column text")
    parser.add_argument("--rows", type=int, default=0, help="the first so many; 0 = all")
    parser.add_argument("--peers", help="folder with hf_pipeline_predict.py")
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.precision:
        print(json.dumps(contestant(a)))
        return
    with tempfile.TemporaryDirectory() as folder:
        merged, texts = Path(folder) / "merged", Path(folder) / "texts.parquet"
        export_run(Run.load(a.run), merged, "merged")
        read(a).to_parquet(texts)
        own = [sys.executable, __file__, a.run, str(texts)]
        contestants = {
            PEERS: [sys.executable, f"{a.peers}/hf_pipeline_predict.py", "--model", str(merged), "--texts", str(texts)],
            BF16: [*own, "--precision", "bf16"],
            FP32: [*own, "--precision", "fp32"],
        }
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
    """Returns texts/s of the second pass."""
    texts, adapted = read(a).text.tolist(), Run.load(a.run).adapted
    for _ in range(2):
        began = time.perf_counter()
        adapted.logits(adapted.read(texts), precision=a.precision)
    return {"texts": len(texts), "texts_per_s": round(len(texts) / (time.perf_counter() - began), 1)}


def summary(results: list[Result]) -> str:
    """Returns the table."""
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
        for name in ("pipeline", "tuned", BF16, FP32)
    ]
    return table(["", "texts/s", "times pipeline (batch 32)", "times the tuned script"], rows)


def faithful(a: argparse.Namespace) -> str:
    """Returns how labels and logits compare with the padded path's in fp32."""
    adapted = Run.load(a.run).adapted
    inputs = adapted.read(read(a).text.tolist())

    def answers(precision: str, pack: bool) -> Array:
        tokens = int(inputs.lengths.sum()) if pack else 0
        with executing(adapted.model, adapted.reader.pad_id, precision, tokens=tokens, pack=pack) as execution:
            return executed_logits(execution, inputs, 32)

    exact, fp32 = answers("fp32", False), answers("fp32", True)
    agree = np.mean(adapted.logits(inputs, precision="bf16").argmax(1) == exact.argmax(1))
    apart = np.abs(fp32 - exact).max()
    same = f"bf16 gives the padded fp32 path's label for {100 * agree:.2f} % of the texts"
    return f"{same}; fp32 logits differ from it by at most {apart:.1e}."


if __name__ == "__main__":
    main()
