"""The verbs that use a run: evaluate, predict, export."""

import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertlora.cli.inputs import SOURCES, columns, labelled_rows, text_columns
from bertlora.cli.registry import OVERWRITE, Arguments, flag, flags, verb
from bertlora.errors import DataError, InputError

RUN = flag("run", "a run folder, or an adapter that PEFT saved", metavar="RUN")
MODEL = flag("--model", "where the base model lies now, if not where it was in training")
PRECISION = flag("--precision", "fp32 (default), bf16, or auto", choices=("fp32", "bf16", "auto"), default="fp32")
# Texts a call: enough that readying the weights tells little, few enough that answers come while the rest is read.
CHUNK_TEXTS = 1024


@verb(
    "evaluate",
    "base, linear probe and LoRA on the same rows",
    "bertlora evaluate runs/a --split test",
    flags(
        RUN,
        flag("--data", f"a prepared folder, or {SOURCES}; default: the data of the run", nargs="+"),
        flag("--split", "which split to judge by; default: test", default="test"),
        columns,
        MODEL,
        PRECISION,
    ),
)
def evaluate(args: Arguments) -> None:
    """Judges a run."""
    from bertlora.cli import console
    from bertlora.evaluation.verdict import evaluate_run
    from bertlora.model.precision import choose_precision
    from bertlora.run import Run

    run = Run.load(args.run, args.model or "")
    rows, name = labelled_rows(args, run)
    result = evaluate_run(run, rows, choose_precision(args.precision, run.adapted.architecture))
    if args.json:
        console.print_json(result)
    else:
        print_evaluation(result, name)


@verb(
    "predict",
    "labels texts: one JSON object a text, a line each, in order",
    'bertlora predict runs/a "A joy from start to finish."',
    flags(
        RUN,
        flag("texts", "texts to label; without any, lines are read from stdin", nargs="*", metavar="TEXT"),
        flag("--file", "label the texts of a file instead: any that `prepare` reads, or plain text, a line each"),
        flag("--split", "which split of the file, if it has several; default: test", default="test"),
        flag("--base", "ask the base with its untrained head", action="store_true"),
        text_columns,
        MODEL,
        PRECISION,
    ),
)
def predict(args: Arguments) -> None:
    """Labels texts as they come."""
    from bertlora.cli import console
    from bertlora.model.precision import choose_precision
    from bertlora.model.predict import softmax
    from bertlora.run import Run

    chunks = _texts(args)
    run = Run.load(args.run, args.model or "")
    if run.adapted.pairs and not args.file:
        raise InputError(f"{args.run}: was trained on pairs of texts; give --file with both columns")
    precision = choose_precision(args.precision, run.adapted.architecture)
    labels = run.manifest.labels
    for chunk in chunks:
        texts, pairs = [text for text, _ in chunk], [pair for _, pair in chunk if pair is not None]
        inputs = run.adapted.read(texts, pairs or None)
        for (text, pair), row in zip(chunk, softmax(run.adapted.logits(inputs, args.base, precision)), strict=True):
            best = int(row.argmax())
            line = {"text": text} | ({} if pair is None else {"text_pair": pair})
            probabilities = {label: float(p) for label, p in zip(labels, row, strict=True)}
            console.print_json(
                line | {"label": labels[best], "confidence": float(row[best]), "probabilities": probabilities}
            )


@verb(
    "export",
    "writes the run in another format; merged is checked for parity before it is kept",
    "bertlora export runs/a --to models/a --format merged",
    flags(
        RUN,
        flag("--to", "the folder to write", required=True),
        flag("--format", "merged: a plain transformers model; adapter: PEFT's folder alone", default="merged"),
        OVERWRITE,
        MODEL,
    ),
)
def export(args: Arguments) -> None:
    """Exports a run."""
    from bertlora.cli import console
    from bertlora.deploy.export import export_run
    from bertlora.files import megabytes
    from bertlora.run import Run

    result = export_run(Run.load(args.run, args.model or ""), Path(args.to), args.format, args.overwrite)
    if args.json:
        console.print_json(result)
        return
    sizes = f"{megabytes(result['bytes'])}; the full base model: {megabytes(result['base_bytes'])}"
    print(f"{args.to}: {args.format}, {sizes}")
    if "largest_difference" in result:
        apart = f"logits differ by at most {result['largest_difference']:.2g}, labels agree"
        print(f"parity on {result['texts']} texts: {apart}")


def print_evaluation(result: dict[str, Any], where: str) -> None:
    """Prints base, probe and LoRA: the four lines, the table, the report a class, the confusion matrix, the verdict."""
    from bertlora.cli import console

    base, lora = result["base"]["accuracy"], result["lora"]["accuracy"]
    print(f"{result['n']:,} rows ({where})\n")
    print(f"Base BERT Accuracy: {base:.4f} ({100 * base:.2f}%)")
    print(f"BERT + LoRA Accuracy: {lora:.4f} ({100 * lora:.2f}%)")
    print(f"Improvement: {result['improvement_points']:.2f} percentage points")
    relative = result["improvement_relative_percent"]
    print(f"Relative Improvement: {'not defined, the base is never right' if relative is None else f'{relative:.2f}%'}")
    names = {"base": "base, untrained head", "probe": "linear probe", "lora": "LoRA"}
    rows = []
    for key, name in names.items():
        if figures := result[key]:
            low, high = figures["accuracy_ci95"]
            rows.append(
                [
                    name,
                    f"{100 * figures['accuracy']:.2f} %",
                    f"{100 * low:.1f} to {100 * high:.1f}",
                    f"{figures['macro_f1']:.4f}",
                    f"{figures['loss']:.4f}",
                    f"{figures['ece']:.4f}",
                ]
            )
    console.print_table(["", "accuracy", "95 % interval", "macro F1", "loss", "calibration error"], rows)
    _print_classes(result["lora"])
    print(result["verdict"])


def _print_classes(figures: dict[str, Any]) -> None:
    from bertlora.cli import console

    rows = [
        [label, f"{f['precision']:.3f}", f"{f['recall']:.3f}", f"{f['f1']:.3f}", f["support"]]
        for label, f in figures["per_class"].items()
    ]
    console.print_table(["LoRA, class", "precision", "recall", "F1", "support"], rows)
    labels = list(figures["per_class"])
    console.print_table(
        ["given \\ predicted", *labels],
        [[label, *row] for label, row in zip(labels, figures["confusion"], strict=True)],
    )


def _texts(args: Arguments) -> Iterator[list[tuple[str, str | None]]]:
    """Returns chunks of (text, second text or None) from the arguments, a file, or stdin."""
    if args.file and args.texts:
        raise InputError("predict takes texts or --file, not both; leave one out")
    if args.file:
        from bertlora.data.prepared import iter_texts

        where = {"text_column": args.text_column, "text_pair_column": args.text_pair_column, "split": args.split}
        return iter_texts(args.file, **where)
    if args.texts:
        if blank := [i for i, text in enumerate(args.texts, 1) if not text.strip()]:
            raise DataError(f"text {blank[0]} is blank; give a text to label")
        if odd := [i for i, text in enumerate(args.texts, 1) if not _is_utf8(text)]:
            raise DataError(f"text {odd[0]} is not UTF-8; convert it first")
        return iter([[(text, None) for text in args.texts]])
    return _stdin_chunks()


def _stdin_chunks() -> Iterator[list[tuple[str, str | None]]]:
    """Yields the lines of stdin as they come, all that wait in one call, so that neither a pipe nor a person waits."""
    lines: queue.Queue[str | UnicodeDecodeError | None] = queue.Queue(maxsize=4 * CHUNK_TEXTS)

    def read() -> None:
        try:
            for line in sys.stdin:
                lines.put(line)
            lines.put(None)
        except UnicodeDecodeError as error:
            lines.put(error)

    threading.Thread(target=read, daemon=True).start()
    number, ended = 0, False
    while not ended:
        chunk: list[tuple[str, str | None]] = []
        fault = ""
        while not fault and (not chunk or (len(chunk) < CHUNK_TEXTS and not lines.empty())):
            line = lines.get()
            number += 1
            if line is None:
                ended = True
                break
            if not isinstance(line, str):
                fault = f"stdin line {number} or after: is not UTF-8 ({line.reason}); convert it first"
            elif not _is_utf8(line):
                fault = f"stdin line {number}: is not UTF-8; convert it first"
            elif not line.strip():
                fault = f"stdin line {number}: is blank, expected a text; leave blank lines out"
            else:
                chunk.append((line.rstrip("\r\n"), None))
        # What came before a bad line is answered all the same.
        if chunk:
            yield chunk
        if fault:
            raise DataError(fault)


def _is_utf8(text: str) -> bool:
    """Tells whether a text came from UTF-8: where the locale is C, Python takes odd bytes in as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
