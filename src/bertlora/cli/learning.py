"""The verbs that lead to a run: demo, cache, prepare, plan, train; and recipes, env."""

import os
from pathlib import Path
from typing import Any

from bertlora.cli.inputs import SOURCES, add_data, column_arguments, columns, given_data
from bertlora.cli.registry import Arguments, flag, flags, resolve_recipe, verb

OUT = flag("--out", "the folder to write", required=True)
OVERWRITE = flag("--overwrite", "replace what the output folder holds", action="store_true")


@verb(
    "demo",
    "with the embedded model and reviews: trains, compares base and LoRA, predicts samples",
    "bertlora demo --out runs/demo",
    flags(flag("--out", "the run folder to write; default: runs/demo", default="runs/demo"), OVERWRITE),
)
def demo(args: Arguments) -> None:
    """Tells the whole story on the embedded reviews."""
    from bertlora.cli import console
    from bertlora.cli.using import print_evaluation
    from bertlora.data.prepared import prepare
    from bertlora.data.reviews import SAMPLE_TEXTS, embedded_specs
    from bertlora.evaluation.verdict import evaluate_run
    from bertlora.files import megabytes, set_aside, size_of
    from bertlora.pipeline import check_run_folder, split_examples, train_run
    from bertlora.recipe import Recipe
    from bertlora.run import Run

    out = Path(args.out)
    check_run_folder(out, resume=False, overwrite=args.overwrite)
    recipe = Recipe.named("default").replace(samples=SAMPLE_TEXTS)
    display = console.TrainingDisplay(recipe.epochs)
    with set_aside(out, begun=out / "recipe.toml"):
        data = prepare(embedded_specs(), out / "data")
        console.say(
            f"{sum(data.rows.values()):,} film reviews written for bertlora: {_rows(data.rows)}; model {recipe.model}"
        )
        with display.shown():
            metrics = train_run(data, recipe, out, on_event=display)
    run = Run.load(out)
    result = evaluate_run(run, split_examples(run.adapted.reader, data, "test"))
    if args.json:
        console.print_json(metrics | {"evaluation": result})
        return
    print_evaluation(result, "test split")
    _print_samples(metrics["samples"])
    adapter = (out / "adapter" / "adapter_model.safetensors").stat().st_size
    print(f"The adapter: {out / 'adapter'}, {megabytes(adapter)} beside the base model's {megabytes(_weights(run))}.")
    print(f"The whole run: {out}, {megabytes(size_of(out))}.")
    print(f'Next: bertlora predict {out} "A joy from start to finish."')


@verb(
    "cache",
    "fetches a base model and its tokenizer once, for later use offline",
    "bertlora cache distilbert-base-uncased --to models/distilbert",
    flags(
        flag("model", "a hub id, or minilm"),
        flag("--to", "a folder to copy it to, for a machine without a network; default: the hub's cache"),
        OVERWRITE,
    ),
)
def cache(args: Arguments) -> None:
    """Fetches a model."""
    import shutil

    from bertlora.cli import console
    from bertlora.files import megabytes, size_of, whole_folder
    from bertlora.model.base import find_base

    base = find_base(args.model)
    base.config()
    base.check_weights()
    folder = base.folder
    if args.to:
        folder = Path(args.to)
        with whole_folder(folder, args.overwrite) as partial:
            shutil.copytree(base.folder, partial, dirs_exist_ok=True)
    facts = {"model": base.id, "folder": str(folder), "revision": base.revision, "sha256": base.sha256()}
    if args.json:
        console.print_json(facts)
        return
    print(f"{base.id}: {megabytes(size_of(base.folder))} in {folder}")
    print(f"SHA-256 of its weights: {facts['sha256'] or 'no model.safetensors'}")


@verb(
    "prepare",
    "reads, checks and splits data",
    "bertlora prepare reviews.csv --out data/reviews --split 70/15/15",
    flags(
        flag("source", SOURCES, nargs="+", metavar="SOURCE"),
        OUT,
        columns,
        flag("--split", "train/validation/test in percent; default: 70/15/15", default="70/15/15"),
        flag("--sample", "rows drawn at random, each class in its share; default: all", type=int, default=0),
        flag("--seed", "seed of sample and split; default: 42", type=int, default=42),
        flag("--model", "tokenise for this base model right away; default: minilm, where it is installed"),
        OVERWRITE,
    ),
)
def prepare(args: Arguments) -> None:
    """Prepares data."""
    from bertlora.cli import console
    from bertlora.data.prepared import prepare as prepare_data
    from bertlora.errors import BertloraError

    if args.model:
        _check_model(args.model)
    data = prepare_data(
        args.source,
        Path(args.out),
        split=args.split,
        sample=args.sample,
        seed=args.seed,
        overwrite=args.overwrite,
        **column_arguments(args),
    )
    try:
        _tokenise(data, args.model or "minilm")
    except BertloraError:
        # Without a model at hand, training tokenises; only a model that was asked for must be there.
        if args.model:
            raise
    if args.json:
        console.print_json(data.summary() | {"data": args.out})
        return
    console.print_table(["split", "rows"], list(data.rows.items()))
    print(f"labels: {', '.join(data.labels)}\nfingerprint: {data.fingerprint}")
    for check in data.checks:
        print(f"{check['severity']}: {check['name']}, {check['count']:,} rows; {check['advice']}")
    for note in data.notes:
        print(f"note: {note}")
    print(f"Next: bertlora train {args.out} --out runs/a")


@verb(
    "plan",
    "what training would do, without weights: parameters, adapter size, memory, time",
    "bertlora plan --recipe imdb-distilbert --model models/distilbert",
    flags(add_data, columns),
    recipe_flags=True,
)
def plan(args: Arguments) -> None:
    """Counts and estimates."""
    from bertlora.cli import console
    from bertlora.files import megabytes
    from bertlora.model.plan import plan as plan_run

    recipe = resolve_recipe(args)
    classes, examples, tokens = _size_of_data(args, recipe)
    found = plan_run(recipe, classes, examples, tokens)
    if args.json:
        console.print_json(found)
        return
    rows: list[list[Any]] = [
        ["trainable", f"{found['trainable']:,} of {found['total']:,} parameters ({found['trainable_percent']:.2f} %)"],
        ["LoRA alone", f"{found['lora_parameters']:,} parameters in {len(found['targets'])} layers"],
        ["trained whole", ", ".join(found["trained_whole"])],
        ["adapter", f"{megabytes(found['adapter_bytes'])} beside {megabytes(found['model_bytes'])} for the full model"],
        ["precision", found["precision"]],
        ["memory", f"about {found['memory_mib']:,} MiB at most"],
    ]
    if found["steps"]:
        rows.append(["steps", f"{found['steps']:,}"])
        rows.append(["time", f"about {console.duration(found['seconds'])} on this machine, evaluation left out"])
    console.print_table(["", f"{recipe.model} ({found['architecture']})"], rows)


@verb(
    "train",
    "trains an adapter and writes a run folder",
    "bertlora train data/reviews --recipe default --out runs/a --rank 16",
    flags(add_data, OUT, columns, flag("--resume", "continue an interrupted run", action="store_true"), OVERWRITE),
    recipe_flags=True,
)
def train(args: Arguments) -> None:
    """Trains."""
    from contextlib import nullcontext

    from bertlora.cli import console
    from bertlora.files import set_aside
    from bertlora.pipeline import check_run_folder, train_run

    out = Path(args.out)
    check_run_folder(out, args.resume, args.overwrite)
    recipe = _resumed_recipe(args, out) if args.resume else resolve_recipe(args)
    _check_before_reading(recipe)
    display = console.TrainingDisplay(recipe.epochs)
    with nullcontext() if args.resume else set_aside(out, begun=out / "recipe.toml"):
        data = given_data(args, recipe, out / "data")
        recipe = recipe.replace(data=recipe.data if data.folder == out / "data" else str(data.folder))
        with display.shown():
            metrics = train_run(data, recipe, out, resume=args.resume, on_event=display)
    if args.json:
        console.print_json(metrics)
        return
    _print_samples(metrics["samples"])
    seconds, best = metrics["train"]["seconds"], metrics["validation"]
    judged = (
        ""
        if best["accuracy"] is None
        else f"; validation accuracy {100 * best['accuracy']:.2f} % (epoch {best['epoch']:g})"
    )
    print(f"{out}: trained in {console.duration(seconds)}{judged}")
    print(f"Next: bertlora evaluate {out}")


@verb(
    "recipes",
    "lists the recipes, or prints one as TOML",
    "bertlora recipes imdb-distilbert > mine.toml",
    flag("name", "a recipe's name, or a TOML file", nargs="?"),
)
def recipes(args: Arguments) -> None:
    """Lists or prints."""
    from bertlora.cli import console
    from bertlora.recipe import Recipe, recipe_keys, recipe_names, recipe_path

    if args.name:
        recipe = Recipe.named(args.name)
        if args.json:
            console.print_json({key: getattr(recipe, key) for key in recipe_keys()})
        else:
            print(recipe.to_toml(), end="")
        return
    found = {name: _first_comment(recipe_path(name)) for name in recipe_names()}
    if args.json:
        console.print_json({"recipes": found})
    else:
        console.print_table(["recipe", "what it is"], list(found.items()))


@verb(
    "env",
    "versions, threads, precision support: what to paste into a bug report",
    "bertlora env",
    flags(),
)
def env(args: Arguments) -> None:
    """Describes the machine."""
    import platform

    import torch

    from bertlora.cli import console
    from bertlora.model.precision import choose_precision, default_device, speed
    from bertlora.run import versions

    facts = versions() | {
        "platform": platform.platform(),
        "device": str(default_device()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "fp32_gflops": round(speed("fp32") / 1e9),
        "bf16_gflops": round(speed("bf16") / 1e9),
        "precision": choose_precision("auto"),
        "offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
    }
    if args.json:
        console.print_json(facts)
    else:
        console.print_table(["what", "value"], [[name, str(value)] for name, value in facts.items()])


def _check_before_reading(recipe: Any) -> None:
    """Finds faults of recipe and base before a large source is read and anything is written."""
    from bertlora.model.adapted import check_length
    from bertlora.model.base import find_base
    from bertlora.model.plan import plan as plan_run
    from bertlora.model.predict import Reader
    from bertlora.training.trackers import check_tracker

    check_tracker(recipe)
    base = find_base(recipe.model)
    check_length(recipe, base)
    base.check_weights()
    Reader.of(base.tokenizer(), recipe.max_length, recipe.truncation)
    plan_run(recipe, labels=2)


def _resumed_recipe(args: Arguments, out: Path) -> Any:
    """Returns the recipe of the run that is continued; flags that say otherwise are an error."""
    from bertlora.errors import RecipeError
    from bertlora.recipe import Recipe, recipe_keys

    stored = Recipe.named(str(out / "recipe.toml"))
    asked = resolve_recipe(args, default=str(out / "recipe.toml"))
    for key in recipe_keys():
        if key != "data" and getattr(asked, key) != getattr(stored, key):
            raise RecipeError(
                f"{key}: got {getattr(asked, key)}, but {out} was begun with {getattr(stored, key)}; "
                "leave the recipe out when resuming"
            )
    return stored


def _size_of_data(args: Arguments, recipe: Any) -> tuple[int, int, float]:
    """Returns classes, training rows and mean tokens a text of DATA; 2, 0 and 0 where none is named."""
    import tempfile

    import numpy as np

    from bertlora.model.base import find_base
    from bertlora.model.predict import Reader
    from bertlora.pipeline import split_examples

    if not args.sources:
        return max(2, len(recipe.label_names)), 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        data = given_data(args, recipe, Path(folder) / "data")
        reader = Reader.of(find_base(recipe.model).tokenizer(), recipe.max_length, recipe.truncation)
        examples = split_examples(reader, data, "train")
        return len(data.labels), len(examples), float(np.mean(examples.inputs.lengths))


def _check_model(model: str) -> None:
    """Finds out that a model cannot serve before anything is read and written."""
    from bertlora.model.base import find_base

    base = find_base(model)
    base.config()
    base.tokenizer()


def _tokenise(data: Any, model: str) -> None:
    from bertlora.model.base import find_base
    from bertlora.model.predict import Reader
    from bertlora.pipeline import split_examples

    reader = Reader.of(find_base(model).tokenizer(), max_length=512, truncation="right")
    for split in data.rows:
        split_examples(reader, data, split)


def _print_samples(samples: list[dict[str, Any]]) -> None:
    from bertlora.cli import console

    if samples:
        rows = [[s["text"], s["before"], s["after"], f"{s['confidence']:.3f}"] for s in samples]
        console.print_table(["sample text", "before", "after training", "confidence"], rows)


def _rows(rows: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {split}" for split, n in rows.items())


def _weights(run: Any) -> int:
    return sum(path.stat().st_size for path in run.adapted.base.weight_files)


def _first_comment(path: Path) -> str:
    line = path.read_text(encoding="utf-8").splitlines()[0]
    return line.removeprefix("#").strip()
