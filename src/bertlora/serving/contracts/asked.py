"""What the contracts share: texts that can be asked, and the scores of an answer."""

from collections.abc import Sequence

import numpy as np

from bertlora.confidence.probabilities import Array
from bertlora.confidence.spread import Spread
from bertlora.serving.limits import Limits
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.service import Answer, Question, Service

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


def logits_of(answers: Sequence[Answer]) -> Array:
    """Returns the logits of answers by one adapter, (B, K).

    Raises:
        RequestError: one is not a finite number.
    """
    logits = np.stack([answer.logits for answer in answers])
    if not np.isfinite(logits).all():
        raise RequestError(Why.BACKEND, "the model gave a number that is not finite; see 'bertlora verify'")
    return logits


def scores_of(answer: Answer, raw: bool = False) -> list[float]:
    """Returns the score of each label: its calibrated probability; the number of a regression; or raw logits."""
    logits, learned = logits_of([answer]), answer.served.run.calibration
    if raw or isinstance(learned, Spread):
        return [float(one) for one in logits[0]]
    return [float(one) for one in learned.probabilities(logits)[0]]


def default_adapter(service: Service) -> str:
    """Returns the name of the adapter that answers where a request names none.

    Raises:
        RequestError: no adapter is loaded.
    """
    if not service.fleet.names:
        raise RequestError(Why.NOT_READY, "no adapter is loaded")
    return service.fleet.names[0]
