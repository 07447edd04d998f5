"""From the answers of several adapters to what `Run.predict` says, without the texts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bertlora.serving.contracts.asked import Item, by_version, logits_of
from bertlora.serving.fleet import Served
from bertlora.serving.questions import Answer, Question
from bertlora.serving.service import Service
from bertlora.task import REGRESSION


@dataclass(frozen=True)
class Options:
    """What to say of texts.

    Attributes:
        said: the options of `Run.predictions`.
        base: the base with its untrained head answers.
        explain: also say how much each word counts.
        truncation: see `Question`.
    """

    said: dict[str, Any]
    base: bool = False
    explain: bool = False
    truncation: str | None = None


async def predicted(
    service: Service, names: Sequence[str], items: Sequence[Item], options: Options
) -> list[dict[str, Any]]:
    """Returns the predictions of each adapter for all texts or pairs.

    Raises:
        RequestError: see `Service.answer`.
        InputError: an option does not fit an adapter.
    """
    # The adapters of a text are neighbours, so that they share its batch.
    questions = [Question(name, text, pair, options.truncation, options.base) for text, pair in items for name in names]
    answers = await service.answer(questions)
    found = []
    for k, name in enumerate(names):
        own = answers[k :: len(names)]
        lines, notes = await _lines(own, options)
        if options.explain:
            for line, question, answer in zip(lines, questions[k :: len(names)], own, strict=True):
                line["explanation"] = (await service.explain(question, answer.served)).to_json()
        tokens = sum(answer.tokens for answer in own)
        found.append({"adapter": name, "predictions": lines, "tokens": tokens, "notes": notes})
    return found


async def _lines(answers: Sequence[Answer], options: Options) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns a line for each answer of an adapter, and the notes."""
    lines: dict[int, dict[str, Any]] = {}
    notes: list[str] = []
    for served, places in by_version(answers):
        of_version = [answers[i] for i in places]
        if options.said["abstain"] or options.said["sets"] is not None:
            # Chosen on the validation rows, which takes a while.
            said, notes = await asyncio.to_thread(_said, served, of_version, options)
        else:
            said, notes = _said(served, of_version, options)
        lines.update(zip(places, said, strict=True))
    return [lines[i] for i in range(len(answers))], notes


def _said(served: Served, answers: Sequence[Answer], options: Options) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns a line for each answer of one version of an adapter, and the notes."""
    if options.base and served.task == REGRESSION:  # its base has no number but the mean of the training targets
        return [{"value": served.run.manifest.target_mean, "interval": None} for _ in answers], []
    # The temperature was fitted to the logits of the adapter.
    predictions = served.run.predictions(**options.said | {"raw": options.said["raw"] or options.base})
    return predictions(logits_of(answers)), list(predictions.notes)
