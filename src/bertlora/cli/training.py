"""The verbs that lead to a run: demo, plan, train."""

import os
from collections.abc import Sequence
from typing import Any

from bertlora.cli.options import (
    COLUMNS,
    DATA,
    LABEL_RULES,
    OVERWRITE,
    PATH,
    SPLIT_COLUMNS,
    Option,
    Whole,
    flag,
    required,
)
from bertlora.cli.recipe_options import data_and_keys, recipe_options
from bertlora.cli.verb import verb
from bertlora.recipe import Recipe

# What is said of the last figures on the validation rows: they are slightly too good.
CHOSEN = "chosen on these rows"
# Keys that change nothing in a plan. They are checked, so that a plan takes the options of its training.
NOT_PLANNED = (
    "samples",
    "alpha",
    "lora_dropout",
    "alpha_pattern",
    "head_start",
    "learning_rate",
    "head_learning_rate",
    "lora_plus_ratio",
    "evaluation_batch_size",
    "weight_decay",
    "schedule",
    "warmup_fraction",
    "max_grad_norm",
    "hidden_dropout",
    "average_weights",
    "class_weights",
    "best_metric",
    "early_stopping_patience",
    "tracker",
    "checkpoint_minutes",
)


def show_demo(found: dict[str, Any]) -> None:
    """Prints the evaluation, the samples, advice, and what the demo wrote."""
    from bertlora.cli.metrics import print_evaluation
    from bertlora.files import megabytes

    sizes = {name: megabytes(size) for name, size in found["sizes"].items()}
    print_evaluation(found["evaluation"])
    print_samples(found["samples"])
    print_validated(found)
    print_advice(found["advice"])
    adapter = os.path.join(found["run"], "adapter")
    print(f"The adapter: {adapter}, {sizes['adapter']}; the base model has {sizes['base']}.")
    print(f"The whole run: {found['run']}, {sizes['run']}.")
    print(f'Next: bertlora predict {found["run"]} "A joy from start to finish."')
    print(f"The report: {found['report']}")


@verb(
    "Train on embedded reviews, compare base and LoRA, predict samples.",
    "bertlora demo --out runs/demo",
    Option("--out", "the run folder to write", type=PATH, metavar="RUN", default="runs/demo"),
    OVERWRITE,
    show=show_demo,
    messages=True,
)
def demo(out: str, overwrite: bool) -> dict[str, Any]:
    """Shows all steps on the embedded reviews."""
    from bertlora.cli.console import say
    from bertlora.cli.display import TrainingDisplay
    from bertlora.pipeline.demo import demo

    with TrainingDisplay().shown() as display:
        return demo(out, overwrite, on_event=display, on_progress=say)


def show_plan(found: dict[str, Any]) -> None:
    """Prints parameters, sizes, memory and time."""
    from bertlora.cli.console import duration, print_table
    from bertlora.files import megabytes

    trainable = f"{found['trainable']:,} of {found['total']:,} parameters ({found['trainable_percent']:.2f} %)"
    rows = [
        ["trainable", trainable],
        ["LoRA", f"{found['lora_parameters']:,} parameters in {len(found['targets'])} layers"],
        ["trained whole", ", ".join(found["trained_whole"])],
        ["adapter", f"{megabytes(found['adapter_bytes'])}; the full model has {megabytes(found['model_bytes'])}"],
        ["precision", found["precision"]],
        ["memory", f"about {found['memory_mib']:,} MiB at most"],
    ]
    if found["steps"]:
        rows.append(["rows", ", ".join(f"{split} {count:,}" for split, count in found["rows"].items())])
        rows.append(["steps", f"{found['steps']:,} in {found['epochs']:g} epochs, {found['tokens']:,} tokens"])
        low, high = map(duration, found["seconds_range"])
        rows.append(["time", f"about {duration(found['seconds'])} on this machine ({low} to {high})"])
        rows.append(["of this", ", ".join(f"{part} {duration(took)}" for part, took in found["seconds_of"].items())])
    print_table(["", f"{found['recipe_model']} ({found['architecture']})"], rows)


@verb(
    "Show what training would do: parameters, adapter size, memory, time.",
    "bertlora plan --recipe imdb-distilbert --model models/distilbert",
    DATA,
    *COLUMNS,
    *SPLIT_COLUMNS,
    *LABEL_RULES,
    *recipe_options(hide=NOT_PLANNED),
    show=show_plan,
)
def plan(sources: Sequence[str], recipe: Recipe | None, **options: Any) -> dict[str, Any]:
    """Counts and estimates. Takes every option of `train`'s recipe; the help lists those that change the plan."""
    from bertlora.pipeline.plan import plan

    data, columns, keys = data_and_keys(sources, options)
    return plan(data, recipe, columns=columns, **keys)


def print_validated(found: dict[str, Any]) -> None:
    """Prints how long training took, and how good LoRA and its rivals are on the validation rows."""
    from bertlora.cli.console import duration

    best, metric = found["validation"], found.get("best_metric", "")
    good = _validated(best, metric)
    evaluated = f"; validation {good} (epoch {best['epoch']:g}, {CHOSEN})" if good else ""
    precision = found["train"].get("precision", "fp32")
    bits = "" if precision == "fp32" else f" in {precision}"
    print(f"{found['run']}: trained in {duration(found['train']['seconds'])}{bits}{evaluated}")
    if good and found.get("rivals"):
        rivals = [_rival(name, figures, metric) for name, figures in found["rivals"].items()]
        print(f"On the same rows: {'; '.join(rivals)}")


def _rival(name: str, found: dict[str, Any], metric: str) -> str:
    """Returns how good a rival is, and how long it took."""
    from bertlora.cli.metrics import NAMES

    figures = {key.removeprefix("validation_"): value for key, value in found.items()}
    return f"{NAMES[name]} {_validated(figures, metric)} in {found['seconds']:.1f} s"


def _validated(best: dict[str, Any], metric: str) -> str:
    """Returns how good a model is on the validation rows; empty without these rows.

    Args:
        best: figures of the model.
        metric: what chose the epoch. A score of classes comes before accuracy.
    """
    from bertlora.evaluation.scores import METRIC_NAMES, choosing_score

    score = choosing_score(metric)
    if score != "accuracy" and best.get(score) is not None:
        return f"{METRIC_NAMES[score]} {best[score]:.4f}"
    if best.get("accuracy") is not None:
        return f"accuracy {100 * best['accuracy']:.2f} %"
    if best.get("macro_f1") is not None:
        return f"macro F1 {best['macro_f1']:.4f}"
    return f"RMSE {best['rmse']:.4g}" if best.get("rmse") is not None else ""


def show_trained(found: dict[str, Any]) -> None:
    """Prints the samples, how training went, advice, and what to do next."""
    run, rows = found["run"], found.get("rows", {})
    print_samples(found["samples"])
    print_validated(found)
    if seeds := found.get("seeds"):
        epochs = f" (each epoch {CHOSEN})" if seeds["split"] == "validation" else ""
        print(f"{seeds['split']} split{epochs}, seeds {', '.join(map(str, seeds['values']))}: {seeds['verdict']}")
    print_advice(found["advice"])
    if rows.get("test") or rows.get("validation"):
        print(f"Next: bertlora evaluate {run}{'' if rows.get('test') else ' --split validation'}")


@verb(
    "Train an adapter and write a run folder.",
    "bertlora train data/reviews --recipe default --out runs/a --rank 16",
    DATA,
    required("--out", "the run folder to write", "RUN"),
    *COLUMNS,
    *SPLIT_COLUMNS,
    *LABEL_RULES,
    Option(
        "--seeds",
        "train under this number of seeds, and report how much they differ",
        type=Whole(1),
        default=1,
    ),
    flag("--resume", "continue an interrupted run"),
    OVERWRITE,
    *recipe_options(),
    show=show_trained,
    messages=True,
)
def train(
    sources: Sequence[str],
    out: str,
    recipe: Recipe | None,
    seeds: int,
    resume: bool,
    overwrite: bool,
    **options: Any,
) -> dict[str, Any] | None:
    """Trains. Of several processes only the main one prints."""
    from bertlora.cli.display import TrainingDisplay
    from bertlora.pipeline.train import train

    main = os.environ.get("RANK", "0") == "0"
    data, columns, keys = data_and_keys(sources, options)
    with TrainingDisplay(quiet=not main).shown() as display:
        found = train(
            data,
            out,
            recipe,
            seeds=seeds,
            resume=resume,
            overwrite=overwrite,
            on_event=display,
            columns=columns,
            **keys,
        )
    return found if main else None


def print_advice(advice: Sequence[dict[str, str]]) -> None:
    """Prints what to do next, each with its figure."""
    for one in advice:
        print(f"Advice: {one['text']}\n  {one['figure']}")


def print_samples(samples: Sequence[dict[str, Any]]) -> None:
    """Prints the sample texts with their labels before and after training."""
    from bertlora.cli.console import print_table

    if samples:
        rows = [[s["text"], *map(_shown, (s["before"], s["after"], s["confidence"]))] for s in samples]
        print_table(["sample text", "before", "after training", "confidence"], rows)


def _shown(value: str | float | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.3f}"
