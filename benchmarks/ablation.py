#!/usr/bin/env python3
"""Measures the gain of each part of the fast engine: it trains without one part at a time.

    python benchmarks/ablation.py imdb.parquet --rows 200 --batch 16 --log speed.jsonl

Each variant is a fresh process, and the variants take turns. Prints a Markdown table that compares the examples/s with
those of the whole engine.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from contest import Result, contest_parser, interleaved, machine, median, ratios, table
from torch import Tensor

from bertlora.data.reader import Examples
from bertlora.model.adapted import Adapted
from bertlora.model.engine.frozen import FrozenWeight
from bertlora.model.engine.kernels.library import library
from bertlora.model.engine.layers import _FAMILIES
from bertlora.model.engine.packing import Packing
from bertlora.recipe import Recipe
from bertlora.training.loop import Training

WHOLE = "the whole engine"
AVERAGED = "with averaged weights"
MODEL = "bertlora.model."


def put(module: str, name: str, value: Any) -> None:
    """Replaces the object that a module of the engine uses under this name."""
    setattr(sys.modules[MODEL + module], name, value)


def padded_batches() -> None:
    """Uses transformers' own padded batches."""
    put("engine.execution", "served", lambda model: False)


def fused_attention() -> None:
    """Uses torch's fused attention, one text at a time."""

    def attend(q: Tensor, k: Tensor, v: Tensor, packing: Packing, scale: float, window: int | None = None) -> Tensor:
        out, start = torch.zeros_like(q), 0
        for text, length in enumerate(packing.lengths):
            own = slice(start, start + length)
            asked = own if len(q) == len(k) else slice(text, text + 1)
            heads = [x.transpose(0, 1)[None] for x in (q[asked], k[own], v[own])]
            seen = torch.nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], scale=scale)
            out[asked] = seen[0].transpose(0, 1)
            start += length
        return out

    put("engine.attention", "attend", attend)
    put("engine.layers", "attend", attend)


def whole_last_layer() -> None:
    """Computes the last layer for every token."""

    def whole(layer: Any, hidden: Tensor, packing: Packing, **kwargs: Any) -> Tensor:
        every: Tensor = type(layer).forward(layer, hidden, packing=packing, **kwargs)
        return every[:, packing.starts]

    put("engine.layers", "_FAMILIES", {name: (path, whole) for name, (path, _) in _FAMILIES.items()})


def casts_every_step() -> None:
    """Keeps the weights in fp32; autocast casts them in every step."""
    put("engine.execution", "casts", lambda model: False)


def weights_in_given_order() -> None:
    """Leaves the weights in their original order, so that every product reorders them."""
    put("engine.weights", "_hold", lambda weight, training: FrozenWeight(weight))


def any_size() -> None:
    """Does not round the sizes of rows and buckets."""
    put("engine.packing", "rounded", lambda size, *_: size)


def serial_dropout() -> None:
    """Draws LoRA's dropout with torch, one number for each place."""

    def mask(like: Tensor, p: float) -> Tensor:
        return torch.empty_like(like).bernoulli_(1 - p).div_(1 - p)

    put("engine.lora_linear", "dropout_mask", mask)


def separate_products() -> None:
    """Computes query, key and value with one product each."""
    put("engine.weights", "joinable", lambda members: False)


def module_by_module() -> None:
    """Runs layers in 8 bits module by module."""
    put("engine.execution", "whole_layers", lambda model, training: {})


def attention_in_float() -> None:
    """Computes no attention in 16 bits."""
    for module in ("engine.attention", "engine.kernels.layer"):
        put(module, "native_half", lambda: 0)


def operators() -> None:
    """Uses torch's operators in place of native kernels; `auto` then does not choose 8 bits."""
    os.environ["BERTLORA_KERNELS"] = "off"
    library.cache_clear()


VARIANTS: dict[str, Callable[[], None]] = {
    "without packing": padded_batches,
    "without our attention": fused_attention,
    "without the first-token last layer": whole_last_layer,
    "without weights held in bf16": casts_every_step,
    "without weights in order": weights_in_given_order,
    "without few sizes": any_size,
    "without the quick dropout": serial_dropout,
    "without joint query, key, value": separate_products,
    "layers in 8 bits module by module": module_by_module,
    "attention in float": attention_in_float,
    "without native kernels": operators,
    AVERAGED: lambda: None,
}


def main() -> None:
    """Measures and prints; with --variant it runs one variant."""
    parser = contest_parser(__doc__)
    parser.add_argument("file", help="Parquet with columns text, label")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--targets", default="query")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.variant:
        print(json.dumps(contestant(a)))
        return
    own = [sys.executable, __file__, a.file, "--rows", str(a.rows), "--batch", str(a.batch), "--targets", a.targets]
    own += ["--precision", a.precision]
    contestants = {name: [*own, "--variant", name] for name in (WHOLE, *VARIANTS)}
    options = {name: getattr(a, name) for name in ("rows", "batch", "targets")}
    # `precision` of a result is what the training chose.
    key: Result = {"contest": "ablation", "file": Path(a.file).name, "wanted": a.precision} | options
    results = interleaved(contestants, a.rounds, Path(a.log), key)
    given = f"{a.rows} rows, batch {a.batch}, {a.targets}, {a.precision}"
    print(f"{Path(a.file).name}, {given}, {a.rounds} rounds. {machine()}\n")
    print(summary(results))


def contestant(a: argparse.Namespace) -> Result:
    """Trains one epoch, and returns its figures."""
    if a.variant != WHOLE:
        VARIANTS[a.variant]()
    rows = pd.read_parquet(a.file)[["text", "label"]].sample(a.rows, random_state=1)
    recipe = Recipe(
        targets=tuple(a.targets.split(",")),
        rank=4,
        alpha=32.0,
        lora_dropout=0.01,
        batch_size=a.batch,
        precision=a.precision,
        epochs=1,
        truncation="right",
        head_start="random",
        warmup_fraction=0.0,
        average_weights=0.15 if a.variant == AVERAGED else 0.0,
    )
    adapted = Adapted.fresh(recipe, ["0", "1"])
    train = Examples(adapted.reader.read(rows.text.tolist()), rows.label.to_numpy(dtype=np.int64))
    training = Training(adapted, recipe, train, Examples(adapted.reader.read([]), np.zeros(0, dtype=np.int64)))
    for _ in training.run():
        pass
    return training.summary()


def summary(results: list[Result]) -> str:
    """Returns the Markdown table."""

    def pace(result: Result) -> float:
        return float(result["examples_per_s"])

    rows = [
        [
            name,
            f"{median(results, name, pace):.1f}",
            ratios(results, name, WHOLE, pace),
            f"{median(results, name, lambda r: float(r['peak_mib'])):,.0f} MiB",
        ]
        for name in (WHOLE, *VARIANTS)
    ]
    return table(["", "examples/s", "of the whole engine's", "peak memory"], rows)


if __name__ == "__main__":
    main()
