"""The verb that uses a run: predict."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bertlora.cli.inputs import text_columns
from bertlora.cli.lines import text_chunks
from bertlora.cli.registry import MODEL, PRECISION, RUN, Arguments, flag, flags, verb
from bertlora.errors import InputError

if TYPE_CHECKING:
    from bertlora.evaluation.answers import Answers
    from bertlora.model.explain import Explanation
    from bertlora.run import Run

# Texts a call: enough that readying the weights tells little, few enough that answers come while the rest is read.
CHUNK_TEXTS = 1024


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
        flag(
            "--explain", "tell what each word did for the label, in fp32; in colour on a terminal", action="store_true"
        ),
        flag("--raw", "probabilities as they come, not calibrated", action="store_true"),
        flag("--abstain", "give no label where unsure: accuracy=0.95, or coverage=0.8 of the texts", metavar="X"),
        flag("--sets", "also give the labels that may be right, so that this share of sets holds it", type=float),
        text_columns,
        MODEL,
        PRECISION,
    ),
)
def predict(args: Arguments) -> None:
    """Labels texts as they come."""
    from bertlora.cli import console
    from bertlora.evaluation.answers import Answers
    from bertlora.run import Run

    if args.explain and args.precision == "bf16":
        raise InputError("--explain works in fp32; leave --precision bf16 out")
    chunks = text_chunks(args, CHUNK_TEXTS)
    run = Run.load(args.run, args.model or "")
    if run.adapted.pairs and not args.file:
        raise InputError(f"{args.run}: was trained on pairs of texts; give --file with both columns")
    if args.base and (args.abstain or args.sets is not None):
        raise InputError("--abstain and --sets are chosen for the adapter; leave --base out")
    answers = Answers.of(run, raw=args.raw or args.base, abstain=args.abstain or "", sets=args.sets)
    if answers.threshold is not None:
        console.say(f"a label from a confidence of {answers.threshold.value:.3f}: {answers.threshold.promise}")
    in_colour = args.explain and not args.json and sys.stdout.isatty()
    for chunk in chunks:
        for answer, explanation in _answered(args, run, answers, chunk):
            if explanation is None:
                console.print_json(answer)
            elif in_colour:
                from bertlora.cli.explaining import print_explained

                print_explained(answer, explanation)
            else:
                console.print_json(answer | {"explanation": explanation.to_json()})


def _answered(
    args: Arguments, run: "Run", answers: "Answers", chunk: Sequence[tuple[str, str | None]]
) -> Iterator[tuple[dict[str, Any], "Explanation | None"]]:
    """Yields for each text what is printed of it, and its explanation where one is asked for."""
    from bertlora.model.precision import choose_precision

    adapted = run.adapted
    precision = "fp32" if args.explain else choose_precision(args.precision, adapted.architecture)
    texts, pairs = [text for text, _ in chunk], [pair for _, pair in chunk if pair is not None]
    scores = adapted.logits(adapted.read(texts, pairs or None), args.base, precision)
    for (text, pair), answer in zip(chunk, answers(scores), strict=True):
        line = {"text": text} | ({} if pair is None else {"text_pair": pair}) | answer
        # One by one: each takes a while, and is shown as soon as it is there.
        yield line, _explained(args, run, text, pair) if args.explain else None


def _explained(args: Arguments, run: "Run", text: str, pair: str | None) -> "Explanation":
    """Returns why a text, or a pair of texts, got its label."""
    from bertlora.model.explain import explain

    return explain(run.adapted, [text], None if pair is None else [pair], args.base)[0]
