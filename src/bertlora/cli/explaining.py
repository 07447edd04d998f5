"""An explanation as a terminal shows it: the text, its words in colour by what they did for the label."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from bertlora.model.explain import Explanation, Word

# Blue and orange, which colour-blind people tell apart; on black and on white their contrast is above 4.
FOR, AGAINST = "#1f7ae0", "#c85a17"
# From this share of the largest attribution on: what is added to the colour, and whether the sign is written.
STEPS = ((0.6, "bold underline", True), (0.3, "bold", True), (0.1, "", False))
# What would steer the terminal is shown as its picture.
PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
PICTURES |= dict.fromkeys(range(0x7F, 0xA0), "\ufffd")


def print_explained(answer: dict[str, Any], explanation: "Explanation", console: Console | None = None) -> None:
    """Prints label and confidence, the text in colour, and what the colours mean."""
    console = console or Console(highlight=False)
    console.print(Text(_said(answer, explanation.label), style="bold"))
    words = [*explanation.words, *(explanation.pair_words or ())]
    largest = max((abs(word.attribution) for word in words if word.attribution is not None), default=0.0)
    console.print(coloured(answer["text"], explanation.words, largest), overflow="fold")
    if explanation.pair_words is not None:
        console.print(coloured(answer["text_pair"], explanation.pair_words, largest), overflow="fold")
    console.print(_legend(explanation, any(word.attribution is None for word in words)), overflow="fold")
    console.print()


def _said(answer: dict[str, Any], likeliest: str) -> str:
    """Returns label and confidence; that there is none, where the run abstains; and the labels that may be right."""
    sure = f"{100 * answer['confidence']:.1f} %"
    said = f"{likeliest}  {sure}" if answer["label"] else f"no label; the likeliest, {likeliest}, has {sure}"
    return f"{said}  (may be: {', '.join(answer['labels'])})" if "labels" in answer else said


def coloured(text: str, words: Sequence["Word"], largest: float) -> Text:
    """Returns the text with its words styled by their share of the largest attribution; `[unread]` ones are dim."""
    shown, place, unread = Text(), 0, False
    for word in words:
        cut = word.attribution is None
        # Brackets stand around each run of words that were not read.
        shown.append("]" if unread and not cut else "", "dim")
        shown.append(_visible(text[place : word.start]))
        shown.append("[" if cut and not unread else "", "dim")
        shown.append_text(_styled(word, largest))
        place, unread = word.end, cut
    shown.append("]" if unread else "", "dim")
    return shown


def _styled(word: "Word", largest: float) -> Text:
    """Returns a word in the hue of its sign; the strongest have the sign written before them."""
    if word.attribution is None:
        return Text(_visible(word.text), "dim")
    share = abs(word.attribution) / largest if largest else 0.0
    for least, more, signed in STEPS:
        if share >= least:
            sign = ("+" if word.attribution > 0 else "-") if signed else ""
            return Text(sign + _visible(word.text), f"{more} {FOR if word.attribution > 0 else AGAINST}")
    return Text(_visible(word.text))


def _legend(explanation: "Explanation", unread: bool) -> Text:
    by_words = explanation.logit_difference - explanation.baseline_difference
    return Text.assemble(
        (f"+for {_visible(explanation.label)}", f"bold {FOR}"),
        "  ",
        (f"-for {_visible(explanation.rival)}", f"bold {AGAINST}"),
        ("  the more, the bolder", "dim"),
        ("  [not read]" if unread else "", "dim"),
        (f"  logit difference {explanation.logit_difference:.2f}: {by_words:+.2f} by the words", "dim"),
        (f", {explanation.baseline_difference:+.2f} without them", "dim"),
    )


def _visible(text: str) -> str:
    return text.translate(PICTURES)
