"""From questions to texts that wait: tokenisation, and the model that answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bertlora.confidence.probabilities import Array
from bertlora.errors import BertloraError
from bertlora.serving.fleet import Served
from bertlora.serving.questions import Question
from bertlora.serving.refused import RequestError, Why
from bertlora.serving.texts import Source, Text


@dataclass(frozen=True)
class Mean:
    """A model that gives the same number for every text."""

    value: float

    def logits(self, inputs: Any) -> Array:
        """Returns the number, (B, 1)."""
        return np.full((len(inputs), 1), self.value)


def read(served: Served, source: Source, questions: Sequence[Question]) -> list[Text]:
    """Returns the texts of some questions with their token ids. Either all questions have pairs, or none has.

    Raises:
        RequestError: pairs are missing or not expected, or a text is too long and must not be cut.
    """
    reader, first = served.run.model.reader, questions[0]
    if reader.pairs is not None and reader.pairs != (first.pair is not None):
        wanted = "pairs of texts" if reader.pairs else "single texts"
        raise RequestError(Why.INVALID, f"adapter {served.name!r} reads {wanted}; send them")
    pairs = None if first.pair is None else [str(question.pair) for question in questions]
    try:
        inputs = replace(reader, template=source.template).read([question.text for question in questions], pairs)
    except BertloraError as error:
        raise RequestError(Why.INVALID, f"adapter {served.name!r}: {error}") from None
    if first.truncation == "none":
        _check_length(served.name, int(inputs.whole.max()), source.template.room(pairs is not None))
    seconds = inputs.second
    return [
        Text(served.name, source, inputs.first[i], None if seconds is None else seconds[i], tokens)
        for i, tokens in enumerate(inputs.lengths.tolist())
    ]


def _check_length(name: str, longest: int, room: int) -> None:
    if longest > room:
        reason = f"a text has {longest:,} tokens; adapter {name!r} reads at most {room:,}"
        raise RequestError(Why.INVALID, f"{reason}, and truncation is off; shorten it, or allow truncation")
