#!/usr/bin/env python3
"""Compares the accuracy of a recipe in bertlora with the accuracy in transformers' Trainer with PEFT.

    python benchmarks/parity_with_trainer.py imdb.parquet --recipe imdb-distilbert --model minilm --epochs 3

Both train on the same rows of one file with the same seeds. Both are evaluated on the same other rows after each epoch.
Both use bf16 if it is fast, and have the encoder's own dropout off. Prints a Markdown table.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments, set_seed

from bertlora.data.reader import Examples
from bertlora.model.adapted import Adapted
from bertlora.model.base import find_base, quiet
from bertlora.model.build import build_classifier, new_modules
from bertlora.model.machine import choose_precision
from bertlora.model.roles import target_modules
from bertlora.recipe import Recipe
from bertlora.training.loop import Training


def main() -> None:
    """Trains both with every seed, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet with columns text, label (0 or 1)")
    parser.add_argument("--recipe", default="imdb-distilbert")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--validation", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--log", help="a JSONL file; a result that it has is not computed again")
    a = parser.parse_args()
    frame = pd.read_parquet(a.file)[["text", "label"]].sample(frac=1, random_state=1)
    if len(frame) < a.train + a.validation:
        parser.error(f"{a.file} has {len(frame)} rows, expected {a.train + a.validation} or more")
    if Recipe.named(a.recipe).variant != "lora" or Recipe.named(a.recipe).truncation == "head-tail":
        parser.error(f"recipe {a.recipe} has keys that the Trainer does not have; use one of the published recipes")
    train, validation = frame[: a.train], frame[-a.validation :]
    log = Path(a.log) if a.log else None
    results = [json.loads(line) for line in log.read_text().splitlines()] if log and log.exists() else []
    for seed in a.seeds:
        changes = {"model": a.model, "epochs": a.epochs, "max_length": a.max_length, "seed": seed}
        recipe = Recipe.named(a.recipe).replace(**changes)
        for name, learn in (("bertlora", with_bertlora), ("Trainer + PEFT", with_trainer)):
            if any(r["name"] == name and r["seed"] == seed for r in results):
                continue
            results.append({"name": name, "seed": seed, "accuracy": learn(recipe, train, validation)})
            if log:
                with log.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    print(table(results))


def with_bertlora(recipe: Recipe, train: pd.DataFrame, validation: pd.DataFrame) -> list[float]:
    """Returns the accuracy after each epoch of bertlora's loop."""
    adapted = Adapted.fresh(recipe, ["0", "1"])
    sets = [Examples(adapted.reader.read(list(f.text)), f.label.to_numpy(np.int64)) for f in (train, validation)]
    training = Training(adapted, recipe, sets[0], sets[1])
    for _ in training.run():
        pass
    return [e["accuracy"] for e in training.progress.history]


def with_trainer(recipe: Recipe, train: pd.DataFrame, validation: pd.DataFrame) -> list[float]:
    """Returns the accuracy after each epoch of transformers' Trainer on PEFT's own model."""
    base = find_base(recipe.model)
    tokenizer = base.tokenizer()
    tokenizer.truncation_side = recipe.truncation
    set_seed(recipe.seed)
    model = build_classifier(base, ["0", "1"], recipe.encoder_dropout, recipe.seed)
    targets = target_modules(model, recipe.targets, new_modules(model))
    with quiet():
        model = get_peft_model(
            model,
            LoraConfig(
                task_type="SEQ_CLS",
                r=recipe.rank,
                lora_alpha=recipe.alpha,
                lora_dropout=recipe.lora_dropout,
                target_modules=targets,
            ),
        )
    accuracies: list[float] = []

    class Keeper(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            accuracies.append(more["metrics"]["eval_accuracy"])

    def read(frame: pd.DataFrame) -> Any:
        encoded = tokenizer(list(frame.text), truncation=True, max_length=recipe.max_length)["input_ids"]
        return [{"input_ids": ids, "label": int(y)} for ids, y in zip(encoded, frame.label, strict=True)]

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                learning_rate=recipe.learning_rate,
                per_device_train_batch_size=recipe.batch_size,
                per_device_eval_batch_size=32,
                num_train_epochs=recipe.epochs,
                weight_decay=recipe.weight_decay,
                gradient_accumulation_steps=recipe.gradient_accumulation,
                lr_scheduler_type=recipe.schedule,
                warmup_steps=round(recipe.warmup_fraction * recipe.epochs * -(-len(train) // recipe.batch_size)),
                max_grad_norm=recipe.max_grad_norm,
                eval_strategy="epoch",
                save_strategy="no",
                report_to=[],
                use_cpu=not torch.cuda.is_available(),
                bf16=choose_precision(recipe.precision) == "bf16",
                seed=recipe.seed,
                disable_tqdm=True,
                logging_steps=10**9,
            ),
            train_dataset=read(train),
            eval_dataset=read(validation),
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda p: {"accuracy": float(np.mean(np.argmax(p.predictions, -1) == p.label_ids))},
            callbacks=[Keeper()],
        )
        trainer.train()
    return accuracies


def table(results: list[dict[str, Any]]) -> str:
    """Returns a Markdown table: accuracy by epoch, as the mean over seeds with lowest and highest."""
    names = list(dict.fromkeys(r["name"] for r in results))
    lines = [f"| epoch | {' | '.join(names)} |", "|" + "---|" * (len(names) + 1)]
    for epoch in range(len(results[0]["accuracy"])):
        cells = []
        for name in names:
            found = [100 * r["accuracy"][epoch] for r in results if r["name"] == name]
            cells.append(f"{statistics.mean(found):.1f} ({min(found):.1f} to {max(found):.1f})")
        lines.append(f"| {epoch + 1} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
