"""A question, and its answer."""

from dataclasses import dataclass

from bertlora.confidence.probabilities import Array
from bertlora.serving.fleet import Served


@dataclass(frozen=True)
class Question:
    """A text, or a pair of texts, for one adapter.

    Attributes:
        adapter: its name.
        text: the text.
        pair: the second text, if the adapter reads pairs.
        truncation: where a long text is cut, `left` or `right`; `none` refuses it; None does what the run does.
        base: the base with its untrained head answers, without the adapter.
    """

    adapter: str
    text: str
    pair: str | None = None
    truncation: str | None = None
    base: bool = False


@dataclass(frozen=True)
class Answer:
    """What the model says of a question.

    Attributes:
        served: the adapter that answered, in the version that did; `served.lines(logits[None])` is its prediction.
        logits: (K,) float64.
        tokens: tokens that the model read.
        queue_s: seconds from acceptance to the start of its batch, without tokenisation.
        tokenization_s: seconds of tokenisation.
        compute_s: seconds of its batch.
    """

    served: Served
    logits: Array
    tokens: int
    queue_s: float = 0.0
    tokenization_s: float = 0.0
    compute_s: float = 0.0
