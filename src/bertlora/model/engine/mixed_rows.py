"""Texts of several adapters as rows of a shared encoder, and back to the logits of each adapter.

    a text of one adapter         → one entry of a row
    a text of several adapters    → the layers below the lowest adapted one run once; then one entry for each adapter

Equal texts are recognised by their tokens. Letters: B texts, P windows, D hidden size, K classes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs, token_batches
from bertlora.errors import FullMemoryError, InputError
from bertlora.model.engine.mixed import MixedEncoder
from bertlora.model.engine.packing import Window, pooled
from bertlora.model.engine.updates import Update
from bertlora.model.machine import ONE_TEXT, give_back_memory, out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Text:
    """A window of a text, and the answers to it.

    Attributes:
        window: ids and token types.
        askers: the adapters that are asked, each once.
        logits: adapter → its logits, (K,), once they are known.
    """

    window: Window
    askers: list[Update] = field(default_factory=list)
    logits: dict[Update, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class _Entry:
    """A text of a row, for one adapter; `state` is the input of the first layer that runs, if layers are skipped."""

    text: _Text
    update: Update
    state: Tensor | None = None


def mixed_logits(encoder: MixedEncoder, parts: Sequence[tuple[Update, Inputs]], row_tokens: int) -> list[Array]:
    """Returns the logits of each part, (B, K) float64, in the order of its texts.

    Args:
        encoder: the shared encoder.
        parts: adapters, and the texts that each is asked.
        row_tokens: maximum number of tokens in a row. A longer text gets its own row.

    Raises:
        InputError: a token is not in the base's vocabulary, or memory runs out with a single text.
    """
    known: dict[tuple[bytes, bytes], _Text] = {}
    asked = [_texts(known, update, inputs) for update, inputs in parts]
    _check_ids(encoder, known.values())
    with torch.inference_mode():
        for depth, texts in _by_depth(encoder, known.values()).items():
            for some in _rows(texts, texts, row_tokens):
                entries = _entries(encoder, some, depth)
                for row in _rows(entries, [entry.text for entry in entries], row_tokens):
                    _answer(encoder, row, depth)
    give_back_memory()
    return [
        _averaged(update, inputs, [text.logits[update] for text in texts])
        for (update, inputs), texts in zip(parts, asked, strict=True)
    ]


def _texts(known: dict[tuple[bytes, bytes], _Text], update: Update, inputs: Inputs) -> list[_Text]:
    """Returns the text of each window, and notes that this adapter is asked. Equal windows are one text."""
    found = []
    for p in range(len(inputs.windows.texts)):
        ids, types = window = inputs.window(p)
        key = ids.tobytes(), b"" if types is None else types.tobytes()
        text = known.setdefault(key, _Text(window))
        if update not in text.askers:
            text.askers.append(update)
        found.append(text)
    return found


def _check_ids(encoder: MixedEncoder, texts: Iterable[_Text]) -> None:
    vocabulary = int(encoder.inner.config.vocab_size)
    largest = max((int(text.window[0].max()) for text in texts), default=0)
    if largest >= vocabulary:
        raise InputError(f"token id {largest}: the base has {vocabulary} tokens; the tokenizer belongs to another base")


def _by_depth(encoder: MixedEncoder, texts: Iterable[_Text]) -> dict[int, list[_Text]]:
    """Returns the texts by the number of first layers that all their adapters share; 0 for texts of one adapter."""
    top, found = len(encoder.layers) - 1, dict[int, list[_Text]]()
    for text in texts:
        shared = min(update.lowest for update in text.askers) if len(text.askers) > 1 else 0
        found.setdefault(min(top, shared), []).append(text)
    return found


def _rows(items: Sequence[Item], texts: Iterable[_Text], tokens: int) -> Iterator[list[Item]]:
    """Yields items by row, longest first; `texts` has the text of each."""
    lengths = np.array([len(text.window[0]) for text in texts], dtype=np.int64)
    for row in token_batches(lengths, len(items), tokens, padding=False):
        yield [items[i] for i in row]


def _entries(encoder: MixedEncoder, texts: Sequence[_Text], depth: int) -> list[_Entry]:
    """Returns an entry for each text and adapter; the first `depth` layers run here, once for each text."""
    states: Sequence[Tensor | None] = [None] * len(texts)
    if depth:
        states = _halving(lambda some: encoder.states([text.window for text in some], depth), texts)
    return [_Entry(text, update, state) for text, state in zip(texts, states, strict=True) for update in text.askers]


def _answer(encoder: MixedEncoder, entries: Sequence[_Entry], depth: int) -> None:
    """Gives each entry its logits."""
    numbers = {update: i for i, update in enumerate(dict.fromkeys(entry.update for entry in entries))}
    ordered = sorted(entries, key=lambda entry: numbers[entry.update])
    vectors = torch.stack(_halving(lambda some: list(_vectors(encoder, some, depth)), ordered))
    start = 0
    for update, own in groupby(ordered, key=lambda entry: entry.update):
        texts = [entry.text for entry in own]
        logits = update.head.logits(vectors[start : start + len(texts)]).double().cpu().numpy()
        start += len(texts)
        for text, values in zip(texts, logits, strict=True):
            text.logits[update] = values


def _vectors(encoder: MixedEncoder, entries: Sequence[_Entry], depth: int) -> Tensor:
    """Returns what each text's head reads, (B, D). An adapter whose numbers overflow does not touch others' texts."""
    windows, updates = [entry.text.window for entry in entries], [entry.update for entry in entries]
    states = [entry.state for entry in entries if entry.state is not None]
    vectors = encoder.vectors(windows, updates, depth, states)
    # Attention multiplies hidden texts by 0, and 0 times infinity is not a number.
    if len(set(updates)) > 1 and not bool(vectors.isfinite().all()):
        alone = groupby(entries, key=lambda entry: entry.update)
        return torch.cat([_vectors(encoder, list(own), depth) for _, own in alone])
    return vectors


def _halving(compute: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> list[Result]:
    """Returns a result for each item; if memory runs out, it computes one half after the other."""
    try:
        return list(compute(items))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if len(items) == 1:
            raise FullMemoryError(ONE_TEXT) from error
    half = len(items) // 2
    return [*_halving(compute, items[:half]), *_halving(compute, items[half:])]


def _averaged(update: Update, inputs: Inputs, logits: Sequence[Array]) -> Array:
    """Returns the logits of each text, (B, K), the mean over its windows."""
    if not len(logits):
        return np.empty((0, update.head.classes))
    values: Array = pooled(torch.from_numpy(np.stack(logits)), inputs.windows.texts, len(inputs)).numpy()
    return values
