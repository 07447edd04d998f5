#!/usr/bin/env python3
"""Measures many adapters on one base in memory: texts a second under a Zipf mix, and what the last adapter costs.

    python benchmarks/mixed.py sst2_train.parquet

The adapters are random: ranks 4 to 16 on every linear layer, 2 to 7 labels. Adapter number n is asked for texts in
proportion to 1 / n. Texts are tokenised before, and come in random order. The contestants take turns, in one
process, in fp32:

- 1, 8 and 64 adapters that share a base (`MixedBase`), on the same batches of texts;
- PEFT's mixed batches (`adapter_names`) with the same 64 adapters, padded: the same batches, and batches of all texts
  sorted by length. Its adapters have two labels each, since PEFT cannot mix numbers of labels.

Measure on an idle machine. On a busy one, with OMP_NUM_THREADS=1, only the processor time says something. Prints a
Markdown table of medians.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from contest import machine, resident_mib
from peft import LoraConfig, PeftModel, TaskType
from safetensors.torch import save_file
from torch import nn

from bertlora.data.inputs import Inputs, token_batches
from bertlora.data.reader import Reader
from bertlora.model.base import Base, find_base, quiet
from bertlora.model.build import build_classifier
from bertlora.model.engine import padded, takes_token_types
from bertlora.model.mixed import MixedAdapter, MixedBase

COUNTS = (1, 8, 64)
COPIES = 8
RANKS, LABELS = (4, 8, 12, 16), (2, 3, 4, 5, 6, 7)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="Parquet with a column text")
    parser.add_argument("--model", default="minilm", help="the base")
    parser.add_argument("--rows", type=int, default=192, help="number of texts")
    parser.add_argument("--batch", type=int, default=64, help="texts in a batch")
    parser.add_argument("--rounds", type=int, default=3, help="the contestants take turns this often")
    parser.add_argument("--without-peft", action="store_true", help="leave PEFT out, which takes most of the time")
    a = parser.parse_args()
    base, texts = find_base(a.model), pd.read_parquet(a.texts)["text"].sample(a.rows, random_state=0).tolist()
    reader = Reader.of(base.text_tokenizer(), 128, "right")
    inputs = reader.read(texts)
    with tempfile.TemporaryDirectory() as folder:
        contestants = ours(base, reader, inputs, Path(folder), a.batch)
        if not a.without_peft:
            contestants |= peft(base, inputs, Path(folder), a.batch)
        asked = f"{a.rows} texts, {int(inputs.lengths.sum())} tokens, batches of {a.batch}, {a.rounds} rounds"
        print(f"{asked}. {machine()}\n")
        print(table(contestants, a.rows, a.rounds))


def ours(base: Base, reader: Reader, inputs: Inputs, folder: Path, size: int) -> dict[str, Callable[[], None]]:
    """Returns a function for each number of adapters that answers all texts once. Prints the last adapter's cost."""
    shared, adapters, model = MixedBase(base), list[MixedAdapter](), build_classifier(base, ["0", "1"], 0.0, 0)
    for number in range(max(COUNTS)):
        classes = LABELS[number % len(LABELS)]
        path = saved(model, folder / str(number), RANKS[number % len(RANKS)], classes, number)
        adapters.append(shared.load(path, [str(k) for k in range(classes)], reader))
    # The last one has the highest rank. One load takes less memory than the allocator's blocks.
    before, began = held(), time.perf_counter()
    copies = [shared.load(path, adapters[-1].labels, reader) for _ in range(COPIES)]
    seconds, mib = (time.perf_counter() - began) / len(copies), (held() - before) / len(copies)
    print(f"adapter number {len(adapters)}, rank {RANKS[-1]}: {1000 * seconds:.0f} ms to load, {mib:.2f} MiB\n")

    def contestant(count: int) -> Callable[[], None]:
        chosen, parts = np.array(zipf(len(inputs), count)), []
        for start in range(0, len(inputs), size):
            batch = chosen[start : start + size]
            own = {n: (start + np.flatnonzero(batch == n)).tolist() for n in sorted(set(batch.tolist()))}
            parts.append([(adapters[n], inputs.take(rows)) for n, rows in own.items()])

        def answer() -> None:
            for some in parts:
                shared.logits(some)

        return answer

    return {f"shared base, {count} adapters": contestant(count) for count in COUNTS}


def peft(base: Base, inputs: Inputs, folder: Path, size: int) -> dict[str, Callable[[], None]]:
    """Returns functions that answer all texts once with PEFT's own layers."""
    chosen, model = zipf(len(inputs), max(COUNTS)), build_classifier(base, ["0", "1"], 0.0, 0)
    types = takes_token_types(model)
    paths = [saved(model, folder / f"two{n}", RANKS[n % len(RANKS)], 2, n) for n in range(max(COUNTS))]
    with quiet():
        for number, path in enumerate(paths):
            if number == 0:
                model = PeftModel.from_pretrained(model, str(path), adapter_name="0")
            else:
                model.load_adapter(str(path), adapter_name=str(number))
    model.eval()

    def contestant(batches: Iterable[list[int]]) -> Callable[[], None]:
        ready = [(padded(inputs, rows, 0, types), [str(chosen[i]) for i in rows]) for rows in batches]

        def answer() -> None:
            with torch.inference_mode():
                for batch, names in ready:
                    model(**batch, adapter_names=names)

        return answer

    texts = list(range(len(inputs)))
    return {
        "PEFT, 64 adapters, the same batches": contestant(texts[i : i + size] for i in range(0, len(texts), size)),
        "PEFT, 64 adapters, sorted by length": contestant(token_batches(inputs.lengths, size, 1 << 20)),
    }


def saved(model: Any, folder: Path, rank: int, classes: int, seed: int) -> Path:
    """Writes a random adapter on every linear layer of this classifier, with a head, and returns its folder."""
    draws, prefix = torch.Generator().manual_seed(seed), "base_model.model"
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and ".layer." in name}
    tensors = {f"{prefix}.classifier.bias": torch.zeros(classes)}
    tensors[f"{prefix}.classifier.weight"] = torch.randn(classes, model.config.hidden_size, generator=draws)
    for name, layer in layers.items():
        a, b = (rank, layer.in_features), (layer.out_features, rank)
        tensors[f"{prefix}.{name}.lora_A.weight"] = 0.02 * torch.randn(*a, generator=draws)
        tensors[f"{prefix}.{name}.lora_B.weight"] = 0.02 * torch.randn(*b, generator=draws)
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=2 * rank, target_modules=list(layers))
    config.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def zipf(texts: int, adapters: int) -> list[int]:
    """Returns the adapter of each text: number n with a probability in proportion to 1 / n."""
    weights = 1 / np.arange(1, adapters + 1)
    chosen: list[int] = np.random.default_rng(0).choice(adapters, texts, p=weights / weights.sum()).tolist()
    return chosen


def held() -> float:
    """Returns the memory that this process holds, in MiB."""
    gc.collect()
    return resident_mib()


def table(contestants: dict[str, Callable[[], None]], texts: int, rounds: int) -> str:
    """Returns the medians of texts a second, by the wall and by processor time, of each contestant."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):  # the first one warms up
        for name, run in contestants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if turn:
                found[name].append((texts / (time.perf_counter() - wall), texts / (time.process_time() - cpu)))
    medians = {name: [median(speeds) for speeds in zip(*pairs, strict=True)] for name, pairs in found.items()}
    first, _ = next(iter(medians.values()))
    rows = [f"| {name} | {wall:.0f} | {wall / first:.2f} | {cpu:.0f} |" for name, (wall, cpu) in medians.items()]
    return "\n".join(["| | texts/s | of one adapter's | texts per CPU second |", "|---|---:|---:|---:|", *rows])


if __name__ == "__main__":
    main()
