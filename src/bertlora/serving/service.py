"""What the contracts call: questions in, answers out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bertlora.confidence.probabilities import Array
from bertlora.model.explain import Explanation, explain
from bertlora.serving.fleet import Fleet, Served


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


class Service:
    """Answers questions. There is one in a server, and its event loop calls it.

    Attributes:
        fleet: the adapters.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    @property
    def ready(self) -> bool:
        """Whether it takes questions: adapters are loaded, and it does not end."""
        return bool(self.fleet.names)

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers all questions of a request, in order.

        Raises:
            RequestError: an adapter is unknown, a text is too long and must not be cut, pairs are missing, the queue is
                full, the server ends, or the model failed.
        """
        return await asyncio.to_thread(lambda: [self._answer(question) for question in questions])

    async def explain(self, question: Question) -> Explanation:
        """Returns how much each word counts; see `model.explain`.

        Raises:
            RequestError: as for `answer`, and for an adapter that cannot be explained, such as an export.
        """
        adapted = self.fleet.get(question.adapter).run.adapted
        pairs = None if question.pair is None else [question.pair]
        return (await asyncio.to_thread(explain, adapted, [question.text], pairs, question.base))[0]

    def _answer(self, question: Question) -> Answer:
        served = self.fleet.get(question.adapter)
        inputs = served.run.model.reader.read([question.text], None if question.pair is None else [question.pair])
        run = served.run
        logits = run.adapted.logits(inputs, base=True) if question.base else run.model.logits(inputs)
        return Answer(served, logits[0], int(inputs.lengths.sum()))
