"""The verbs that lead to a run: demo, plan, train."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.cli.inputs import absolute_sources, add_data, columns, given_data
from bertlora.cli.registry import OUT, OVERWRITE, Arguments, flag, flags, resolve_recipe, verb
from bertlora.errors import InputError

if TYPE_CHECKING:
    from bertlora.data.prepared import Prepared
    from bertlora.model.predict import Reader


@verb(
    "demo",
    "with the embedded model and reviews: trains, compares base and LoRA, predicts samples",
    "bertlora demo --out runs/demo",
    flags(flag("--out", "the run folder to write; default: runs/demo", default="runs/demo"), OVERWRITE),
)
def demo(args: Arguments) -> None:
    """Tells the whole story on the embedded reviews."""
    from bertlora.cli import console
    from bertlora.cli.judging import print_evaluation
    from bertlora.cli.preparing import print_checks
    from bertlora.cli.reporting import judged_material
    from bertlora.data.prepared import prepare
    from bertlora.data.reviews import SAMPLE_TEXTS, embedded_specs
    from bertlora.evaluation.report import write_report
    from bertlora.evaluation.verdict import figures, judge_rows
    from bertlora.files import check_vacant, megabytes, set_aside, size_of
    from bertlora.pipeline import split_examples, train_run
    from bertlora.recipe import Recipe
    from bertlora.run import Run

    out = Path(args.out)
    check_vacant(out, args.overwrite)
    recipe = Recipe.named("default").replace(samples=SAMPLE_TEXTS, data=absolute_sources(embedded_specs()))
    display = console.TrainingDisplay(recipe.epochs)
    with set_aside(out, begun=out / "recipe.toml"):
        data = prepare(recipe.data, out / "data")
        console.say(
            f"{sum(data.rows.values()):,} film reviews written for bertlora: {_rows(data.rows)}; model {recipe.model}"
        )
        if data.checks:
            print_checks(data.checks, stderr=True)
        with display.shown():
            metrics = train_run(data, recipe, out, on_event=display)
    run = Run.load(out)
    test = split_examples(run.adapted.reader, data, "test")
    judged = judge_rows(run, test)
    result = figures(judged)
    report = write_report(run, judged_material(run, judged, data.split("test"), test.inputs, "test split"))
    if args.json:
        console.print_json(metrics | {"evaluation": result, "report": str(report)})
        return
    print_evaluation(result, "test split")
    _print_samples(metrics["samples"])
    print_advice(metrics["advice"])
    adapter = (out / "adapter" / "adapter_model.safetensors").stat().st_size
    beside = megabytes(run.adapted.base.weight_bytes)
    print(f"The adapter: {out / 'adapter'}, {megabytes(adapter)} beside the base model's {beside}.")
    print(f"The whole run: {out}, {megabytes(size_of(out))}.")
    print(f'Next: bertlora predict {out} "A joy from start to finish."')
    print(f"The report: {report}")


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
    flags(
        add_data,
        OUT,
        columns,
        flag("--seeds", "train under so many seeds, and tell how far they differ; default: 1", type=int, default=1),
        flag("--resume", "continue an interrupted run", action="store_true"),
        OVERWRITE,
    ),
    recipe_flags=True,
)
def train(args: Arguments) -> None:
    """Trains."""
    from contextlib import nullcontext

    import torch
    from accelerate import PartialState

    from bertlora.cli import console
    from bertlora.files import set_aside
    from bertlora.pipeline import train_seeds
    from bertlora.run.vacant import check_run_folder

    out = Path(args.out)
    if args.seeds < 1:
        raise InputError(f"--seeds: got {args.seeds}, expected a whole number (1 or more)")
    # Of several processes one alone prepares, writes and prints.
    processes = PartialState(cpu=not torch.cuda.is_available())
    main = processes.is_main_process
    if main:
        check_run_folder(out, args.resume, args.overwrite, inputs=args.sources, several=args.seeds > 1)
    recipe = _resumed_recipe(args, out) if args.resume else resolve_recipe(args)
    _check_before_reading(recipe)
    display = console.TrainingDisplay(recipe.epochs, quiet=not main)
    with set_aside(out, begun=out / "recipe.toml") if main and not args.resume else nullcontext():
        with processes.main_process_first():
            data = given_data(args, recipe, out / "data")
        if main:
            _show_checks(data, recipe)
        recipe = recipe.replace(data=absolute_sources(args.sources or recipe.data))
        with display.shown():
            metrics = train_seeds(data, recipe, out, args.seeds, resume=args.resume, on_event=display)
    if not main:
        return
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
    if seeds := metrics.get("seeds"):
        print(f"{seeds['split']} split, seeds {', '.join(map(str, seeds['values']))}: {seeds['verdict']}")
    print_advice(metrics["advice"])
    if data.rows.get("test") or data.rows.get("validation"):
        print(f"Next: bertlora evaluate {out}{'' if data.rows.get('test') else ' --split validation'}")


def _check_before_reading(recipe: Any) -> None:
    """Finds faults of recipe and base before a large source is read and anything is written."""
    from bertlora.model.adapted import check_length
    from bertlora.model.base import find_base
    from bertlora.model.plan import plan as plan_run
    from bertlora.training.trackers import check_tracker

    check_tracker(recipe)
    base = find_base(recipe.model)
    check_length(recipe, base)
    base.check_weights()
    _reader(recipe)
    plan_run(recipe, labels=2)


def _show_checks(data: "Prepared", recipe: Any) -> None:
    """Prints on stderr what is odd in the data, as the recipe reads them."""
    from bertlora.cli.preparing import checks_as_read, print_checks

    as_read = ("truncated", "unknown_tokens")
    found = [check for check in data.checks if check["name"] not in as_read]
    if found := found + checks_as_read(data, _reader(recipe)):
        print_checks(found, stderr=True)


def _reader(recipe: Any) -> "Reader":
    """Returns how the recipe's base reads texts."""
    from bertlora.model.base import find_base
    from bertlora.model.predict import Reader

    tokenizer = find_base(recipe.model).tokenizer()
    return Reader.of(tokenizer, recipe.max_length, recipe.truncation, recipe.long_texts)


def _resumed_recipe(args: Arguments, out: Path) -> Any:
    """Returns the recipe of the run that is continued; flags that say otherwise are an error."""
    from bertlora.errors import RecipeError
    from bertlora.recipe import Recipe, recipe_keys

    stored = Recipe.named(str(out / "recipe.toml"))
    asked = resolve_recipe(args, default=str(out / "recipe.toml"))
    asked = asked.replace(data=absolute_sources(args.sources or asked.data) or stored.data)
    for key in recipe_keys():
        got, begun = getattr(asked, key), getattr(stored, key)
        if got != begun:
            if key == "data":
                got, begun = " ".join(got), " ".join(begun) or "none named"
            source = "DATA" if key == "data" else "the recipe"
            raise RecipeError(f"{key}: got {got}, but {out} was begun with {begun}; leave {source} out when resuming")
    return stored


def _size_of_data(args: Arguments, recipe: Any) -> tuple[int, int, float]:
    """Returns classes, training rows and mean tokens a text of DATA; 2, 0 and 0 where none is named."""
    import tempfile

    import numpy as np

    from bertlora.pipeline import split_examples

    if not args.sources:
        return max(2, len(recipe.label_names)), 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        data = given_data(args, recipe, Path(folder) / "data")
        examples = split_examples(_reader(recipe), data, "train")
        return len(data.labels), len(examples), float(np.mean(examples.inputs.lengths))


def print_advice(advice: list[dict[str, str]]) -> None:
    """Prints what to do next, each with its figure."""
    for one in advice:
        print(f"Advice: {one['text']}\n  {one['figure']}")


def _print_samples(samples: list[dict[str, Any]]) -> None:
    from bertlora.cli import console

    if samples:
        rows = [[s["text"], s["before"], s["after"], f"{s['confidence']:.3f}"] for s in samples]
        console.print_table(["sample text", "before", "after training", "confidence"], rows)


def _rows(rows: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {split}" for split, n in rows.items())
