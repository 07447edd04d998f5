"""Texts that wait, and how they become portions of a request and parts of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.data.template import InputTemplate
from bertlora.data.tokens import Ids, TokenTable
from bertlora.serving.fair import PORTION_TOKENS, Portion


@dataclass(eq=False, frozen=True)
class Source:
    """What answers texts: a model, and the template with which it reads them. Texts of one source share a batch's part.

    Attributes:
        model: has `logits(inputs)`.
        template: where texts are cut.
    """

    model: Any
    template: InputTemplate


@dataclass(eq=False)
class Text:
    """A text that waits, and its answer.

    Attributes:
        lane: the adapter's name.
        source: what answers it.
        first: its token ids, without special tokens and not cut.
        second: those of the second text of a pair.
        tokens: that the model reads.
        logits: (K,) float64, once it is answered.
        began: when its batch began, by `time.perf_counter`.
        ended: when its batch ended.
    """

    lane: str
    source: Source
    first: Ids
    second: Ids | None
    tokens: int
    logits: Array = field(default_factory=lambda: np.empty(0))
    began: float = 0.0
    ended: float = 0.0


def portions(texts: Sequence[Text]) -> list[Portion]:
    """Returns texts of a request in portions, by adapter and in order."""
    found: list[Portion] = []
    for lane, group in groupby(sorted(texts, key=lambda text: text.lane), key=lambda text: text.lane):
        members: list[Text] = []
        tokens = 0
        for text in group:
            if members and tokens + text.tokens > PORTION_TOKENS:
                found.append(Portion(lane, None, tokens, members))
                members, tokens = [], 0
            members.append(text)
            tokens += text.tokens
        found.append(Portion(lane, None, tokens, members))
    return found


def parts_of(texts: Sequence[Text]) -> list[tuple[tuple[Any, Inputs], list[Text]]]:
    """Returns the parts of a batch, one for each source and for single texts and pairs; each with its texts."""
    groups: dict[tuple[int, bool], list[Text]] = {}
    for text in texts:
        groups.setdefault((id(text.source), text.second is None), []).append(text)
    found = []
    for (_, single), members in groups.items():
        source = members[0].source
        second = None if single else TokenTable.of([text.second for text in members if text.second is not None])
        inputs = Inputs(source.template, TokenTable.of([text.first for text in members]), second)
        found.append(((source.model, inputs), members))
    return found
