"""Shadows: candidates that read an adapter's questions in its batches, and whose answers nobody gets."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from bertlora.errors import InputError
from bertlora.serving.fleet import Fleet, Served
from bertlora.serving.questions import Answer, Question
from bertlora.serving.reading import read
from bertlora.serving.shadow_file import ShadowLog
from bertlora.serving.texts import Text
from bertlora.task import MULTILABEL, REGRESSION

OUTCOMES = AGREED, DISAGREED, FAILED, DROPPED = ("agreed", "disagreed", "failed", "dropped")
# Texts of candidates that may wait to be compared; a disk may be slow.
PENDING = 4096

# Called with adapter and outcome.
Count = Callable[[str, str], None]


@dataclass
class Riders:
    """The questions of a request that candidates read too.

    Attributes:
        places: which questions.
        candidates: who reads each.
        texts: the same, with token ids.
    """

    places: list[int] = field(default_factory=list)
    candidates: list[Served] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)


class Shadows:
    """The candidates of a server. Nothing that goes wrong in them is raised.

    Args:
        candidates: by the name of the adapter whose questions they read.
        log: keeps disagreements; None keeps none.

    Attributes:
        count: is called with adapter and outcome, one of `OUTCOMES`, for each question.
    """

    def __init__(self, candidates: Mapping[str, Served], log: ShadowLog | None = None) -> None:
        self._candidates, self._log = dict(candidates), log
        self.count: Count = lambda adapter, outcome: None
        self._comparing = ThreadPoolExecutor(1, "bertlora-shadow")
        # Of texts; each is changed by one thread.
        self._submitted = self._compared = 0
        for adapter, served in candidates.items():
            if log is not None:
                log.begin(adapter, served)

    @classmethod
    def load(cls, fleet: Fleet, runs: Mapping[str, Path], log: Path | None = None) -> Self:
        """Loads candidates.

        Args:
            fleet: has the adapters.
            runs: the candidate of each adapter, by the adapter's name.
            log: the file of the log; None keeps no disagreements.

        Raises:
            InputError: there is no such adapter, or the candidate is a regression, or has another task or other labels.
            RunError, OutputError: a candidate cannot be loaded, or the log cannot be written.
        """
        candidates = {}
        for name, path in runs.items():
            if name not in fleet.names:
                raise InputError(f"--shadow {name}={path}: no adapter is called '{name}'; serve it too")
            # No client can ask for a name with a space.
            candidate, served = fleet.load_apart(f"{name} (shadow)", path), fleet.get(name)
            if not _comparable(candidate, served):
                raise InputError(f"--shadow {name}={path}: has another task or other labels than the adapter '{name}'")
            if candidate.task == REGRESSION:
                raise InputError(f"--shadow {name}={path}: predicts numbers, which never quite agree; leave it out")
            candidates[name] = candidate
        return cls(candidates, ShadowLog(log) if log else None)

    def candidate(self, question: Question) -> Served | None:
        """Returns the candidate that reads a question too; None if there is none."""
        return None if question.base else self._candidates.get(question.adapter)

    async def riders(self, questions: Sequence[Question], tokens: Sequence[int], room: float) -> Riders:
        """Returns the questions that candidates read too.

        Args:
            questions: of a request.
            tokens: of each question.
            room: tokens that candidates may read. The other questions are dropped.
        """
        riders = Riders()
        for place, question in enumerate(questions):
            candidate = self.candidate(question)
            if candidate is not None and tokens[place] <= room and self._submitted - self._compared < PENDING:
                riders.places.append(place)
                riders.candidates.append(candidate)
                room -= tokens[place]
            elif candidate is not None:
                self.count(question.adapter, DROPPED)
        if riders.places:
            asked = [questions[place] for place in riders.places]
            await asyncio.to_thread(_tokenize, riders, asked)
            if not riders.texts:
                self._failed(asked)
                return Riders()
        return riders

    def compare(
        self, questions: Sequence[Question], answers: Sequence[Answer], riders: Riders, done: "Future[Any]"
    ) -> None:
        """Compares the answers of a request with those of candidates, as soon as these are there, on another thread.

        Args:
            questions: of the request.
            answers: that its client gets.
            riders: the questions that candidates read too.
            done: ends when their texts are computed.
        """
        self._submitted += len(riders.places)

        def job() -> None:
            try:
                done.result()
                for place, candidate, text in zip(riders.places, riders.candidates, riders.texts, strict=True):
                    self.seen(questions[place], answers[place], Answer(candidate, text.logits, text.tokens))
            except Exception:
                self._failed([questions[place] for place in riders.places])
            finally:
                self._compared += len(riders.places)

        self._comparing.submit(job)

    def seen(self, question: Question, answer: Answer, candidate: Answer) -> None:
        """Compares what adapter and candidate say.

        Args:
            question: the question.
            answer: the adapter's, which the client gets.
            candidate: the candidate's.
        """
        try:
            outcome = self._outcome(question, answer, candidate)
        except Exception:
            outcome = FAILED
        self.count(question.adapter, outcome)

    def close(self) -> None:
        """Compares what is left, and writes the counts of the log."""
        self._comparing.shutdown()
        if self._log is not None:
            self._log.close()

    def _failed(self, questions: Sequence[Question]) -> None:
        for question in questions:
            self.count(question.adapter, FAILED)

    def _outcome(self, question: Question, answer: Answer, candidate: Answer) -> str:
        if not _comparable(candidate.served, answer.served):  # the adapter was replaced by another one
            return FAILED
        first, second = _line(answer), _line(candidate)
        key = "labels" if answer.served.task == MULTILABEL else "label"
        agreed = bool(first[key] == second[key] if key == "label" else set(first[key]) == set(second[key]))
        if self._log is not None:
            self._log.add(question, None if agreed else _kept(question, first, second, key))
        return AGREED if agreed else DISAGREED


def _comparable(candidate: Served, served: Served) -> bool:
    """Returns whether two adapters predict the same; the order of their labels does not matter."""
    return candidate.task == served.task and sorted(candidate.labels) == sorted(served.labels)


def _tokenize(riders: Riders, questions: Sequence[Question]) -> None:
    """Fills in the texts of riders; leaves them out if one cannot be read."""
    try:
        together = groupby(zip(riders.candidates, questions, strict=True), key=_read_together)
        for (_, truncation, _), group in together:
            members = list(group)
            candidate = members[0][0]
            riders.texts += read(candidate, candidate.source(truncation), [question for _, question in members])
    except Exception:
        riders.texts = []


def _read_together(one: tuple[Served, Question]) -> tuple[int, str | None, bool]:
    candidate, question = one
    return id(candidate), question.truncation, question.pair is None


def _line(answer: Answer) -> dict[str, Any]:
    return answer.served.lines(answer.logits[None])[0]


def _kept(question: Question, first: dict[str, Any], second: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns the line of a disagreement."""
    texts = {"text": question.text} | ({} if question.pair is None else {"text_pair": question.pair})
    answers = {"adapter_label": first[key], "candidate_label": second[key]}
    confidences = {"adapter_confidence": first.get("confidence"), "candidate_confidence": second.get("confidence")}
    return texts | answers | confidences | {"label": None}
