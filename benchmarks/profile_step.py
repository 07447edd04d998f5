#!/usr/bin/env python3
"""Shows where the time of a training step goes, part by part, and the least time that this machine would need.

    python benchmarks/profile_step.py sst2_train.parquet --batch 32
    python benchmarks/profile_step.py imdb_train.parquet --batch 16 --steps 4

The recipe is `default`, on one epoch of random rows. Steps with torch's profiler and steps without it take turns; the
table is of the former. The profiler gives each operator's own time; an operator belongs to the nearest part that called
it. What the operators do not account for is Python and dispatch.

The ideal of a product is its arithmetic at the rate of this machine's matrix product. The ideal of GELU and norms is
their memory traffic, at the rate of a copy of such a tensor.
"""

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from contest import machine, table
from torch.profiler import ProfilerActivity, profile, record_function

from bertlora.data.reader import Examples
from bertlora.model.adapted import Adapted
from bertlora.model.engine import frozen, kernels, lora_linear
from bertlora.model.engine.attention import MatrixAttention, NativeAttention
from bertlora.model.engine.kernels.layer import Pass
from bertlora.model.machine import speed
from bertlora.recipe import Recipe
from bertlora.training import loop
from bertlora.training.loop import Training

FROZEN, LOW_RANK, ATTENTION, MASKS = "frozen products", "low-rank products", "attention", "dropout masks"
# In int8 one native call computes several products, with LoRA's.
ASKING, REST = "query, key and value", "output projection, feed-forward, norms"
GELU, NORMS, GATHERS, OPTIMISER = "GELU", "norms and residuals", "embeddings and gathers", "optimiser"
OTHER, DISPATCH = "other operators", "Python and dispatch"
PARTS = (ATTENTION, ASKING, REST, FROZEN, LOW_RANK, MASKS, GELU, NORMS, GATHERS, OPTIMISER, OTHER)
# Parts that are known by an operator's name. The others are marked where they are called.
OPERATORS = {"aten::gelu": GELU, "aten::gelu_backward": GELU}
OPERATORS |= {"aten::native_layer_norm": NORMS, "aten::native_layer_norm_backward": NORMS, "aten::add": NORMS}
OPERATORS |= dict.fromkeys(("aten::embedding", "aten::index", "aten::index_select", "aten::index_add"), GATHERS)
WARM = 6
# Two products forward, and five backward, where the scores are computed again.
ATTENTION_PRODUCTS = 7

flops: Counter[str] = Counter()
# By the clock of the native calls for whole layers, in the order of `_Pass.seconds`.
WHOLE = (ASKING, ATTENTION, REST)
seconds: dict[str, float] = dict.fromkeys(WHOLE, 0.0)


def marked(part: str, function: Callable[..., Any], cost: Callable[..., float] = lambda *_: 0.0) -> Callable[..., Any]:
    """Returns the function, with its operators counted to `part`, and the FLOP that `cost` gives for its arguments."""

    def marked_function(*args: Any, **kwargs: Any) -> Any:
        flops[part] += int(cost(*args))
        with record_function(part):
            return function(*args, **kwargs)

    return marked_function


def mark_parts() -> None:
    """Marks the parts of the engine."""
    for kind in (frozen.FrozenWeight, frozen.Reordered, frozen.InInt8):
        for name in ("product", "transposed"):
            setattr(kind, name, marked(FROZEN, getattr(kind, name), lambda held, x, *_: len(x) * _frozen_cost(held)))
    fed = frozen.FedForward
    fed.forward = staticmethod(marked(FROZEN, fed.forward, _fed_cost))  # type: ignore[method-assign]
    fed.backward = staticmethod(marked(FROZEN, fed.backward))  # type: ignore[method-assign]
    low = lora_linear.LoraProduct
    low.forward = staticmethod(marked(LOW_RANK, low.forward, _low_rank_cost))  # type: ignore[method-assign]
    low.backward = staticmethod(marked(LOW_RANK, low.backward))  # type: ignore[method-assign]
    for attention in (MatrixAttention, NativeAttention):
        attention.forward = staticmethod(marked(ATTENTION, attention.forward, _attention_cost))  # type: ignore[method-assign]
        attention.backward = staticmethod(marked(ATTENTION, attention.backward))  # type: ignore[method-assign]
    for name, low_rank in (("forward", 1), ("backward", 2)):
        setattr(Pass, name, timed_by_itself(getattr(Pass, name), low_rank))
    for module, name, part in ((lora_linear, "dropout_mask", MASKS), (loop, "descend", OPTIMISER)):
        setattr(module, name, marked(part, getattr(module, name)))


def timed_by_itself(function: Callable[..., Any], low_rank: int) -> Callable[..., Any]:
    """Returns a pass of a whole layer, which takes the time of its parts itself; all of it is marked as one of them.

    Args:
        function: forward or backward.
        low_rank: how many products it computes with each of A and B.
    """

    def marked_function(own: Any, *args: Any) -> Any:
        given, layer, lengths = own.structure, own.layer, own.offsets.diff().double()
        apart, before = len(layer.asking) == 2, list(given.seconds)
        rows = [given.texts if apart else given.tokens, given.tokens]
        flops[ASKING] += int(sum(n * _layer_cost(x, low_rank) for n, x in zip(rows, layer.asking, strict=False)))
        flops[REST] += int(sum(rows[0] * _layer_cost(x, low_rank) for x in (layer.out, layer.up, layer.down)))
        if low_rank == 1:
            scores = float(lengths.sum() if apart else (lengths**2).sum())
            flops[ATTENTION] += int(2 * scores * layer.out.forward.inner * ATTENTION_PRODUCTS)
        with record_function(REST):
            result = function(own, *args)
        for part, now, then in zip(WHOLE, given.seconds, before, strict=True):
            seconds[part] += now - then
        return result

    return marked_function


def _layer_cost(layer: Any, low_rank: int) -> float:
    """Returns the FLOP of a row: one product with the frozen weight, and this many with each of A and B."""
    matrices = sum(matrix.numel() for update in layer.updates for matrix in update[:2])
    return 2.0 * float(layer.forward.out * layer.forward.inner + low_rank * matrices)


def _frozen_cost(held: Any) -> int:
    return 2 * int(
        held.weight.numel() if hasattr(held, "weight") else held.forward_order.out * held.forward_order.inner
    )


def _fed_cost(_: Any, x: Any, up: Any, down: Any) -> float:
    # The backward has two products as well.
    return float(2 * len(x) * (_frozen_cost(up[0]) + _frozen_cost(down[0])))


def _low_rank_cost(_: Any, x: Any, __: Any, ___: Any, ____: Any, _____: Any, *matrices: Any) -> float:
    # Each product with A or B runs once forward and twice backward.
    return float(6 * x.shape[0] * sum(m.numel() for m in matrices))


def _attention_cost(_: Any, q: Any, k: Any, __: Any, given: Any) -> float:
    scores = sum(length if len(q) != len(k) else length**2 for length in given.packing.lengths)
    return float(2 * scores * q.shape[1] * q.shape[2] * ATTENTION_PRODUCTS)


def part_of(event: Any) -> str:
    """Returns the part of an operator: its own, or the part of the nearest operator that called it."""
    while event is not None:
        if event.name in PARTS:
            return str(event.name)
        above = event.cpu_parent
        if event.name in OPERATORS and not _within_part(above):
            return OPERATORS[event.name]
        event = above
    return OTHER


def _within_part(event: Any) -> bool:
    while event is not None:
        if event.name in PARTS:
            return True
        event = event.cpu_parent
    return False


def copy_rate(tokens: int, hidden: int, dtype: torch.dtype) -> float:
    """Returns the bytes/s, read and written, of a copy of a tensor of this size."""
    source = torch.ones(tokens, hidden, dtype=dtype)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(50):
        began = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - began)
    return 2 * source.numel() * source.element_size() / best


def traffic(event: Any, item: int) -> float:
    """Returns the bytes that an operator must at least read and write: its first input, twice."""
    shape: list[int] = next((shape for shape in event.input_shapes if shape), [])
    return 2.0 * float(np.prod(shape)) * item if shape else 0.0


def training_on(file: str, rows: int, batch: int, precision: str) -> Training:
    """Returns a training of `default` on random rows."""
    frame = pd.read_parquet(file)[["text", "label"]].sample(rows, random_state=1)
    recipe = Recipe(batch_size=batch, epochs=1, head_start="random", precision=precision)
    adapted = Adapted.fresh(recipe, ["0", "1"])
    train = Examples(adapted.reader.read(frame.text.tolist()), frame.label.to_numpy(dtype=np.int64))
    return Training(adapted, recipe, train, Examples(adapted.reader.read([]), np.zeros(0, dtype=np.int64)))


def timed(steps: Iterator[Any], training: Training) -> float:
    """Returns the seconds of the next step."""
    began = training.progress.seconds
    next(steps)
    return training.progress.seconds - began


def main() -> None:
    """Profiles and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet with columns text, label")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12, help="steps with the profiler, and as many without")
    parser.add_argument("--precision", default="auto")
    a = parser.parse_args()
    training = training_on(a.file, a.batch * (WARM + 2 * a.steps + 1), a.batch, a.precision)
    mark_parts()
    steps = training.run()
    for _ in range(WARM):
        next(steps)
    item = 2 if training.precision == "bf16" else 4
    plain, profiled, tokens = list[float](), list[float](), 0
    operators, own, ideal = 0, dict.fromkeys((*PARTS, DISPATCH), 0.0), dict.fromkeys(PARTS, 0.0)
    flops.clear()
    for _ in range(a.steps):
        before = training.progress.tokens
        plain.append(timed(steps, training) / max(1, training.progress.tokens - before))
        products, spent, before = Counter(flops), dict(seconds), training.progress.tokens
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
            profiled.append(timed(steps, training))
        tokens += training.progress.tokens - before
        for event in profiler.events():
            part = part_of(event)
            own[part] += event.self_cpu_time_total / 1e6 / a.steps
            operators += event.name.startswith(("aten::", "mkldnn::"))
            if part in (GELU, NORMS) and event.name in OPERATORS:
                ideal[part] += traffic(event, item) / a.steps
        for part, count in (flops - products).items():
            ideal[part] += count / a.steps
        for part in (ASKING, ATTENTION):
            own[part] += (seconds[part] - spent[part]) / a.steps
            own[REST] -= (seconds[part] - spent[part]) / a.steps
    step = statistics.mean(profiled)
    own[DISPATCH] = max(0.0, step - sum(own.values()))
    hidden, tokens = int(training.plain.config.hidden_size), tokens // a.steps
    moved = copy_rate(tokens, hidden, torch.bfloat16 if item == 2 else torch.float32)
    rate = speed("fp32" if training.precision == "int8" else training.precision)
    rates = dict.fromkeys((ASKING, REST, FROZEN, LOW_RANK, ATTENTION), rate)
    print(
        f"{Path(a.file).name}, default, batch {a.batch}, {training.precision}, kernels: {kernels.in_use()}. A step: "
        f"{tokens:,} tokens, {operators // a.steps:,} operators, {step * 1000:.1f} ms with the profiler. Without: "
        f"{1e6 * statistics.median(plain):.0f} µs a token. Copy: {moved / 1e9:.0f} GB/s. {machine()}\n"
    )
    rows = []
    for part in (*PARTS, DISPATCH):
        least = ideal.get(part, 0.0) / rates.get(part, moved)
        share = f"{100 * least / own[part]:.0f} %" if least and own[part] else ""
        rows.append([part, f"{own[part] * 1000:.1f}", f"{100 * own[part] / step:.0f} %", share])
    print(table(["part", "ms", "of the step", "ideal / measured"], rows))


if __name__ == "__main__":
    main()
