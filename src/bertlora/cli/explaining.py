"""An explanation on a terminal: the text, with its words in colour by how much they count for the label."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from bertlora.cli.answers import labels_text, value_text
from bertlora.cli.console import visible
from bertlora.task import MULTILABEL

if TYPE_CHECKING:
    from bertlora.model.explain import Explanation, Word

# Blue and orange, which colour-blind people can tell apart. Their contrast on black and on white is above 4.
FOR, AGAINST = "#1f7ae0", "#c85a17"
# From this fraction of the largest attribution on: what is added to the colour, and whether the sign is written.
STEPS = ((0.6, "bold underline", True), (0.3, "bold", True), (0.1, "", False))


def print_explained(answer: dict[str, Any], explanation: "Explanation", console: Console | None = None) -> None:
    """Prints label and confidence, the text in colour, and what the colours mean."""
    console = console or Console(highlight=False)
    headline = _headline(answer, explanation.label)
    console.print(Text(headline, style="bold"))
    words = [*explanation.words, *(explanation.pair_words or ())]
    largest = max((abs(word.attribution) for word in words if word.attribution is not None), default=0.0)
    console.print(coloured(answer["text"], explanation.words, largest), overflow="fold")
    if explanation.pair_words is not None:
        console.print(coloured(answer["text_pair"], explanation.pair_words, largest), overflow="fold")
    console.print(_legend(explanation, any(word.attribution is None for word in words)), overflow="fold")
    console.print()


def _headline(answer: dict[str, Any], likeliest: str) -> str:
    """Returns label and confidence, or that the run abstains, and the labels that may be right; a number; or labels."""
    if "value" in answer:
        return value_text(answer)
    if "label" not in answer:
        return f"{labels_text(answer)}  (explained: {likeliest})"
    confidence = f"{100 * answer['confidence']:.1f} %"
    headline = f"{likeliest}  {confidence}"
    if not answer["label"]:
        headline = f"no label; the likeliest, {likeliest}, has {confidence}"
    return f"{headline}  (may be: {', '.join(answer['labels'])})" if "labels" in answer else headline


def coloured(text: str, words: Sequence["Word"], largest: float) -> Text:
    """Returns the text with each word styled by its fraction of the largest attribution; `[unread]` words are dim."""
    shown, place, unread = Text(), 0, False
    for word in words:
        cut = word.attribution is None
        # Brackets enclose each sequence of words that were not read.
        shown.append("]" if unread and not cut else "", "dim")
        shown.append(visible(text[place : word.start]))
        shown.append("[" if cut and not unread else "", "dim")
        shown.append_text(_styled(word, largest))
        place, unread = word.end, cut
    shown.append("]" if unread else "", "dim")
    return shown


def _styled(word: "Word", largest: float) -> Text:
    """Returns a word in the colour of its sign. The strongest words also get the sign itself."""
    if word.attribution is None:
        return Text(visible(word.text), "dim")
    fraction = abs(word.attribution) / largest if largest else 0.0
    for least, more, signed in STEPS:
        if fraction >= least:
            sign = ("+" if word.attribution > 0 else "-") if signed else ""
            return Text(sign + visible(word.text), f"{more} {FOR if word.attribution > 0 else AGAINST}")
    return Text(visible(word.text))


def _legend(explanation: "Explanation", unread: bool) -> Text:
    by_words = explanation.logit_difference - explanation.baseline_difference
    if not explanation.rival:
        what = f"the logit of {visible(explanation.label)}" if explanation.task == MULTILABEL else "the number"
        return Text.assemble(
            (f"+raises {what}", f"bold {FOR}"),
            "  ",
            ("-lowers it", f"bold {AGAINST}"),
            ("  bolder means more", "dim"),
            ("  [not read]" if unread else "", "dim"),
            (f"  {by_words:+.3g} by the words, {explanation.baseline_difference:.3g} without them", "dim"),
        )
    return Text.assemble(
        (f"+for {visible(explanation.label)}", f"bold {FOR}"),
        "  ",
        (f"-for {visible(explanation.rival)}", f"bold {AGAINST}"),
        ("  bolder means more", "dim"),
        ("  [not read]" if unread else "", "dim"),
        (f"  logit difference {explanation.logit_difference:.2f}: {by_words:+.2f} by the words", "dim"),
        (f", {explanation.baseline_difference:+.2f} without them", "dim"),
    )
