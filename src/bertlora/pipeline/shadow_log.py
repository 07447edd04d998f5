"""The log of shadows: how often a candidate and the adapter agreed, and the texts on which they did not.

`serve --shadow-log` writes it, and `compare FILE` reads it. It has a JSON object on each line. There are two kinds:

- counts, one line for each start of the server and candidate: `shadow` {`adapter`, `candidate`, `labels`, `agreed`,
  `disagreed`}
- a disagreement: `adapter`, `candidate`, `text` (and `text_pair`), both answers, and `label`, which people fill in
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.data.label_sets import DELIMITERS
from bertlora.errors import DataError, suggestion

if TYPE_CHECKING:
    from bertlora.evaluation.comparison import Comparison

COUNTS = "shadow"  # the key of a line of counts
MOST_TEXTS = 10**12  # that a line may count
PROMOTE, KEEP, OPEN = "promote", "keep", "undecided"
NOTE = (
    "Only texts on which the two differ count in the test. Disagreements without a label are taken to be like the "
    "labelled ones: label all of them, or the first ones."
)


@dataclass
class Shadowed:
    """What a log has of a candidate.

    Attributes:
        adapter: the name of the adapter that answered.
        candidate: the run that was its shadow.
        labels: the names that a label may have.
        agreed: texts on which both gave the same answer.
        disagreed: other texts.
        right: for each labelled disagreement, whether the adapter and the candidate are right.
        unlabelled: disagreements in the file that have no label.
        repeated: disagreements whose text is in the file already; they are left out.
    """

    adapter: str
    candidate: str
    labels: list[str]
    agreed: int = 0
    disagreed: int = 0
    right: list[tuple[bool, bool]] = field(default_factory=list)
    unlabelled: int = 0
    repeated: int = 0
    texts: set[tuple[str, str | None]] = field(default_factory=set, repr=False)


def compare_shadows(file: Path) -> dict[str, Any]:
    """Returns what `compare FILE --json` prints for the log of shadows.

    Returns:
        `where`, `note`, and `shadows`, an object for each candidate:

        - `adapter`, `candidate`; `texts` that both answered, `agreed`, `disagreed`, and `agreement`, the share.
        - `labelled`, `unlabelled` and `repeated` disagreements of the file.
        - `decision`: `promote`, `keep` or `undecided`, and `verdict`, which says why.
        - `comparison`: what `Comparison.figures` says of the candidate against the adapter; None without labels.

    Raises:
        DataError: the file cannot be read, or a line is not one of a log.
    """
    shadows = [_figures(shadow) for shadow in read_shadows(file)]
    return {"where": str(file), "shadows": shadows, "note": NOTE}


def read_shadows(file: Path) -> list[Shadowed]:
    """Returns what a log has of each candidate, in the order in which they come."""
    found: dict[tuple[str, str], Shadowed] = {}
    for where, line in _lines(file):
        try:
            if COUNTS in line:
                counts = line[COUNTS]
                key = counts["adapter"], counts["candidate"]
                shadow = found.setdefault(key, Shadowed(*key, counts["labels"]))
                shadow.agreed += _count(counts["agreed"])
                shadow.disagreed += _count(counts["disagreed"])
            else:
                _add(found[line["adapter"], line["candidate"]], line, where)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where}: is not a line of a shadow log; leave all but 'label' unchanged") from error
    if not found:
        raise DataError(f"{file}: is empty, expected the file that 'bertlora serve --shadow-log' wrote")
    return list(found.values())


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each object with the place of its line."""
    try:
        with file.open(encoding="utf-8") as lines:
            for number, text in enumerate(lines, start=1):
                if text.strip():
                    yield f"{file} line {number}", json.loads(text)
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON lines ({error}); expected a shadow log") from error


def _count(value: Any) -> int:
    """Returns a number of texts; JSON has infinite numbers too."""
    if not isinstance(value, int) or not 0 <= value <= MOST_TEXTS:
        raise TypeError(value)
    return value


def _add(shadow: Shadowed, line: dict[str, Any], where: str) -> None:
    """Counts a disagreement."""
    text, answers = (line["text"], line.get("text_pair")), (line["adapter_label"], line["candidate_label"])
    if text in shadow.texts:
        shadow.repeated += 1
        return
    shadow.texts.add(text)
    several = isinstance(answers[0], list)
    if line["label"] is None or (line["label"] == "" and not several):
        shadow.unlabelled += 1
        return
    label = _names(line["label"], several)
    for name in label:
        if name not in shadow.labels:
            near = suggestion(str(name), shadow.labels)
            raise DataError(f"{where}: label '{name}' is unknown, expected one of {', '.join(shadow.labels)}{near}")
    first, second = (_names(answer, several) == label for answer in answers)
    shadow.right.append((first, second))


def _names(label: Any, several: bool) -> set[str]:
    """Returns the labels of a text; several in one cell have `|` between them."""
    if isinstance(label, str):
        return {name.strip() for name in label.split(DELIMITERS[0]) if name.strip()} if several else {label.strip()}
    return set(label)


def _figures(shadow: Shadowed) -> dict[str, Any]:
    """Returns the figures and the decision on a candidate."""
    texts = shadow.agreed + shadow.disagreed
    found = _comparison(shadow)
    decision = OPEN
    if found is not None and found.significant:
        decision = PROMOTE if found.gain > 0 else KEEP
    return {
        "adapter": shadow.adapter,
        "candidate": shadow.candidate,
        "texts": texts,
        "agreed": shadow.agreed,
        "disagreed": shadow.disagreed,
        "agreement": shadow.agreed / texts if texts else None,
        "labelled": len(shadow.right),
        "unlabelled": shadow.unlabelled,
        "repeated": shadow.repeated,
        "comparison": None if found is None else found.figures((shadow.adapter, shadow.candidate)),
        "decision": decision,
        "verdict": _verdict(shadow, found, decision),
    }


def _comparison(shadow: Shadowed) -> "Comparison | None":
    """Returns the candidate against the adapter, on as many texts as were read for the labelled disagreements."""
    from bertlora.evaluation.comparison import Comparison  # scipy takes a while to import
    from bertlora.evaluation.gains import AccuracyGain

    if not shadow.right:
        return None
    lost, won = (sum(pair == one for pair in shadow.right) for one in ((True, False), (False, True)))
    texts = (shadow.agreed + shadow.disagreed) * len(shadow.right) / max(shadow.disagreed, len(shadow.right))
    gain = AccuracyGain(max(round(texts), len(shadow.right)), lost, won)
    return Comparison(gain, gain, p=gain.p)


def _verdict(shadow: Shadowed, found: "Comparison | None", decision: str) -> str:
    """Returns the decision and its reason, and without one what would bring it."""
    from bertlora.evaluation.comparison import two_digits  # scipy takes a while to import

    if found is None:
        return f"{decision}: no disagreement has a label; fill in 'label' in the file."
    reason = (
        f"of {len(shadow.right):,} labelled disagreements the candidate is right in {found.accuracy.won:,} and the "
        f"adapter in {found.accuracy.lost:,}. {found.sentence((shadow.adapter, shadow.candidate))}"
    )
    if decision != OPEN:
        return f"{decision}: {reason}"
    verdict, needed = f"{decision}: {reason} {found.open_sentence}", found.rows_to_settle
    if needed is None or not shadow.agreed:
        return verdict
    labels = two_digits(needed * shadow.disagreed / (shadow.agreed + shadow.disagreed))
    return f"{verdict} That is about {labels:,} labelled disagreements."
