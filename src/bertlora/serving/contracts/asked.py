"""What the contracts share: texts that can be asked, and the scores of an answer."""

from collections.abc import Sequence

import numpy as np

from bertlora.confidence.probabilities import Array
from bertlora.confidence.spread import Spread
from bertlora.serving.fleet import Served
from bertlora.serving.limits import Limits
from bertlora.serving.questions import Answer, Question
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.service import Service

# A text, and the second text of a pair.
Item = tuple[str, str | None]


def check_items(items: Sequence[Item], field: str, limits: Limits, *, one: bool = False, adapters: int = 1) -> None:
    """Refuses a request without texts, with too many, or with a blank one.

    Args:
        items: the texts or pairs.
        field: where the body has them.
        limits: how many may be asked.
        one: the field is one text or pair, not a list.
        adapters: how many are asked about each.
    """
    if not items:
        raise RequestError(Why.EMPTY, f"{field}: is empty, expected at least one text")
    if len(items) * adapters > limits.questions:
        of = f" for {adapters} adapters" if adapters > 1 else ""
        message = f"{field}: got {len(items):,} texts{of}, expected at most {limits.questions // adapters:,}"
        raise RequestError(Why.TOO_LARGE, f"{message}; send several requests")
    for i, item in enumerate(items):
        for k, text in enumerate(item):
            if text is not None and not text.strip():
                row, part = "" if one else f"[{i}]", f"[{k}]" if item[1] is not None else ""
                raise RequestError(Why.EMPTY, f"{field}{row}{part}: is blank, expected a text")


def questions_of(adapter: str, items: Sequence[Item], truncation: str | None = None) -> list[Question]:
    """Returns the questions about texts or pairs to one adapter."""
    return [Question(adapter, text, pair, truncation) for text, pair in items]


def by_version(answers: Sequence[Answer]) -> list[tuple[Served, list[int]]]:
    """Returns the versions of an adapter that answered, each with the places of its answers.

    There are several if the adapter was replaced while a request waited.
    """
    places: dict[int, list[int]] = {}
    for i, answer in enumerate(answers):
        places.setdefault(id(answer.served), []).append(i)
    return [(answers[rows[0]].served, rows) for rows in places.values()]


def logits_of(answers: Sequence[Answer]) -> Array:
    """Returns the logits of answers by one version of an adapter, (B, K).

    Raises:
        RequestError: one is not a finite number.
    """
    logits = np.stack([answer.logits for answer in answers])
    if not np.isfinite(logits).all():
        raise RequestError(Why.BACKEND, "the model gave a number that is not finite; see 'bertlora verify'")
    return logits


def scores_of(answers: Sequence[Answer], raw: bool = False) -> list[list[float]]:
    """Returns the score of each label for each answer of an adapter.

    It is the calibrated probability, the number of a regression, or the logit if raw.
    """
    scores: dict[int, list[float]] = {}
    for served, places in by_version(answers):
        logits, learned = logits_of([answers[i] for i in places]), served.run.calibration
        rows = logits if raw or isinstance(learned, Spread) else learned.probabilities(logits)
        scores.update(zip(places, rows.tolist(), strict=True))
    return [scores[i] for i in range(len(answers))]


def default_adapter(service: Service) -> str:
    """Returns the name of the adapter that answers where a request names none.

    Raises:
        RequestError: no adapter is loaded.
    """
    if not service.fleet.names:
        raise RequestError(Why.NOT_READY, "no adapter is loaded")
    return service.fleet.names[0]
