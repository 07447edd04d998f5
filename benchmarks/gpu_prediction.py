#!/usr/bin/env python3
"""Compares prediction on a GPU with transformers' pipeline and a tuned script, on the same merged classifier.

    python benchmarks/gpu_prediction.py runs/a sst2_train.parquet --rows 20000

- pipeline: fp32, batches of --batch texts, in the order of the file; on the first fifth of the texts, for it is slow.
- tuned: the classifier in bf16, batches sorted by length, inference mode, one wait at the end.
- bertlora: `Run.adapted.logits` in bf16 and fp32.

Each runs once to warm up and is timed the second time, with tokenisation. Prints a Markdown table, also
of each part of a prediction. Without a GPU it runs on the CPU.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from contest import table
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from transformers.utils import logging

from bertlora.model.machine import default_device
from bertlora.run.loaded import Run

PIPELINE_SHARE = 5


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("texts", help="Parquet with a column text")
    parser.add_argument("--rows", type=int, default=0, help="use only the first N rows; 0 = all")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--max-length", type=int, default=512)
    a = parser.parse_args()
    logging.set_verbosity_error()
    texts = pd.read_parquet(a.texts).text.tolist()
    texts = texts[: a.rows] if a.rows else texts
    with tempfile.TemporaryDirectory() as folder:
        Run.load(a.run).export(Path(folder) / "merged", "merged")
        lines = peers(Path(folder) / "merged", texts, a.batch, a.max_length)
    device = default_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU"
    print(f"{Path(a.texts).name}, {len(texts)} texts, on {name}, torch {torch.__version__}\n")
    print(table(["", "texts/s"], [[name, f"{pace:,.0f}"] for name, pace in (lines | own(a.run, texts)).items()]))


def peers(merged: Path, texts: list[str], batches: list[int], max_length: int) -> dict[str, float]:
    """Returns the texts/s of the pipeline and of the tuned script for each batch size."""
    device, tokenizer = default_device(), AutoTokenizer.from_pretrained(merged)
    fp32 = AutoModelForSequenceClassification.from_pretrained(merged).eval().to(device)
    bf16 = AutoModelForSequenceClassification.from_pretrained(merged, dtype=torch.bfloat16).eval().to(device)
    few, found = texts[: max(1, len(texts) // PIPELINE_SHARE)], dict[str, float]()
    for batch in batches:
        options: Any = {"batch_size": batch, "truncation": True, "max_length": max_length}
        classify = pipeline("text-classification", model=fp32, tokenizer=tokenizer, device=device, **options)
        found[f"pipeline, batch {batch}"] = len(few) / seconds(partial(classify, few))

        def tuned(batch: int = batch) -> None:
            ids = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
            order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
            parts = [[ids[i] for i in order[k : k + batch]] for k in range(0, len(order), batch)]
            with torch.inference_mode():
                padded = (tokenizer.pad({"input_ids": part}, return_tensors="pt").to(device) for part in parts)
                torch.cat([bf16(**inputs).logits for inputs in padded]).cpu()

        found[f"tuned script, batch {batch}"] = len(texts) / seconds(tuned)
    return found


def own(run: str, texts: list[str]) -> dict[str, float]:
    """Returns the same for bertlora, and for each of its two parts."""
    adapted, found = Run.load(run).adapted, dict[str, float]()
    inputs = adapted.reader.read(texts)
    for precision in ("bf16", "fp32"):

        def predict(precision: str = precision) -> None:
            adapted.logits(adapted.reader.read(texts), precision=precision)

        found[f"bertlora, {precision}"] = len(texts) / seconds(predict)
        with adapted.execution(precision) as execution:
            found[f"{precision} without tokenisation"] = len(texts) / seconds(partial(execution.predict, inputs))
    return found | {"only tokenisation": len(texts) / seconds(lambda: adapted.reader.read(texts))}


def seconds(act: Callable[[], object]) -> float:
    """Returns the seconds of the second of two calls. Each ends with values on the CPU, so no wait is needed."""
    act()
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
