#!/usr/bin/env python3
"""Shows how long a training step takes on a GPU, how much of the card's arithmetic it uses, and which kernels run.

    python benchmarks/gpu_step.py imdb_train.parquet --batch 32 --bert-base
    python benchmarks/gpu_step.py sst2_train.parquet --batch 32

The recipe is `default`, on random rows. With --bert-base the encoder has the shape of BERT-base, and random weights.
FLOP are those of the frozen products: four for each weight of the encoder's layers and token, without attention.
"""

import argparse
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from contest import table
from torch.profiler import ProfilerActivity, profile

from bertlora.data.reader import Examples
from bertlora.model.adapted import Adapted
from bertlora.model.base import find_base
from bertlora.recipe import Recipe
from bertlora.training.loop import Training

WARM, PROFILED = 100, 10
# Kinds of kernels, by what their names contain; the first that fits counts.
KINDS = {
    "attention": "flash|fmha",
    "products": "nvjet|gemm|cutlass|splitK|gemv",
    "GELU": "[Gg]elu",
    "LayerNorm": "layer_norm",
    "optimiser, norms of vectors": "multi_tensor|[Aa]dam",
    "additions": "CUDAFunctor_add|AddFunctor",
    "stacking": "CatArray",
    "casts and copies": "copy|[Mm]emcpy",
}
OTHER = "other"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet with columns text, label")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--bert-base", action="store_true", help="a random encoder of BERT-base's shape, not MiniLM")
    parser.add_argument("--peak", type=float, default=989.0, help="the card's TFLOP/s in half precision")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = bert_base(folder) if a.bert_base else "minilm"
        training = training_on(
            a.file, (WARM + a.steps + PROFILED + 1) * a.batch, Recipe(model=model, batch_size=a.batch)
        )
    steps = training.run()
    for _ in range(WARM):
        next(steps)
    tokens, took = training.progress.tokens, [timed(steps) for _ in range(a.steps)]
    rate = (training.progress.tokens - tokens) / sum(took)
    flops = 4 * rate * sum(p.numel() for n, p in training.plain.named_parameters() if is_product(n, p)) / 1e12
    print(
        f"{Path(a.file).name}, {'BERT-base' if a.bert_base else 'MiniLM'}, batch {a.batch}, {training.precision}, "
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {1000 * statistics.median(took):.2f} ms a step "
        f"(median), {a.batch * a.steps / sum(took):,.0f} examples/s, {rate:,.0f} tokens/s, {flops:.0f} TFLOP/s, "
        f"{100 * flops / a.peak:.1f} % of {a.peak:.0f}; {torch.cuda.max_memory_allocated() >> 20:,} MiB\n"
    )
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            next(steps)
        torch.cuda.synchronize()
    print(kinds(profiler))


def bert_base(folder: str) -> str:
    """Returns the folder of a random encoder of BERT-base's shape, with MiniLM's tokenizer, which is BERT's."""
    torch.manual_seed(0)
    transformers.AutoModel.from_config(transformers.BertConfig()).save_pretrained(folder)
    tokenizer = find_base("minilm").tokenizer()
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    return folder


def training_on(file: str, rows: int, recipe: Recipe) -> Training:
    """Returns a training of a recipe on random rows, without validation."""
    frame = pd.read_parquet(file)[["text", "label"]]
    frame = frame.sample(rows, random_state=1, replace=rows > len(frame))
    adapted = Adapted.fresh(recipe.replace(epochs=1, head_start="random"), ["0", "1"])
    train = Examples(adapted.reader.read(frame.text.tolist()), frame.label.to_numpy(dtype=np.int64))
    validation = Examples(adapted.reader.read([]), np.zeros(0, dtype=np.int64))
    return Training(adapted, recipe.replace(epochs=1, head_start="random"), train, validation)


def timed(steps: Any) -> float:
    """Returns the seconds of the next step; the GPU runs one step behind, so they are those of the step before."""
    began = time.perf_counter()
    next(steps)
    return time.perf_counter() - began


def is_product(name: str, parameter: torch.nn.Parameter) -> bool:
    """Returns whether it is a frozen matrix of the encoder's layers."""
    return "encoder" in name and parameter.ndim == 2 and "lora_" not in name


def kinds(profiler: Any) -> str:
    """Returns a table of the GPU's time in a step, by kind of kernel."""
    spent, count = dict.fromkeys((*KINDS, OTHER), 0.0), dict.fromkeys((*KINDS, OTHER), 0)
    spans = []
    for event in profiler.events():
        span = event.time_range
        # Ranges that cover several kernels are events of the GPU too.
        if not str(event.device_type).endswith("CUDA") or re.search("_Replay|Optimizer|Backward$", event.name):
            continue
        kind = next((kind for kind, part in KINDS.items() if re.search(part, event.name)), OTHER)
        spent[kind] += span.elapsed_us() / 1000 / PROFILED
        count[kind] += 1
        spans.append((span.start, span.end))
    whole = (max(end for _, end in spans) - min(start for start, _ in spans)) / 1000 / PROFILED
    rows = [
        [kind, f"{spent[kind]:.2f}", f"{count[kind] / PROFILED:.0f}"]
        for kind in sorted(spent, key=lambda kind: -spent[kind])
    ]
    between = ["between kernels, with the profiler", f"{whole - sum(spent.values()):.2f}", ""]
    return table(["part", "ms a step", "kernels"], [*rows, between])


if __name__ == "__main__":
    main()
