"""From texts to what a model learns from and is evaluated on: the reader, and the labelled examples that it reads.

Letters: B texts, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.data.folder import Prepared
from bertlora.data.inputs import Inputs
from bertlora.data.template import InputTemplate
from bertlora.data.tokenizer import AnyTokenizer
from bertlora.data.tokens import TokenTable, has_tokens, kept_tokens, token_chunks, tokenize
from bertlora.errors import InputError


@dataclass(frozen=True)
class Reader:
    """Turns texts into the inputs of one model: tokenizer and input template.

    Attributes:
        tokenizer: texts → token ids.
        template: token ids → input.
        pairs: whether the model reads pairs of texts; None if that is not known.
    """

    tokenizer: AnyTokenizer
    template: InputTemplate
    pairs: bool | None = None

    @classmethod
    def of(
        cls,
        tokenizer: AnyTokenizer,
        max_length: int,
        truncation: str,
        long_texts: str = "truncate",
        pairs: bool | None = None,
    ) -> "Reader":
        """Returns the reader for a maximum length in tokens and a treatment of long texts; see `InputTemplate`."""
        return cls(tokenizer, InputTemplate.of(tokenizer, max_length, truncation, long_texts), pairs)

    @property
    def pad_id(self) -> int:
        """The id that fills short rows."""
        return self.tokenizer.pad_id

    def read(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Inputs:
        """Returns the inputs of texts, or of pairs of texts.

        Raises:
            InputError: an item is not a string, a second text is missing, or the model reads pairs and gets single
                texts, or the reverse.
        """
        if len(texts):
            self.check_pairs(pairs is not None)
        for name, column in (("text", texts), ("second text", pairs or ())):
            for i, text in enumerate(column):
                if not isinstance(text, str):
                    raise InputError(f"{name} {i}: got {type(text).__name__}, expected a string")
        if pairs is not None and len(pairs) != len(texts):
            raise InputError(f"got {len(texts)} texts and {len(pairs)} second texts, expected as many of each")
        second = None if pairs is None else tokenize(self.tokenizer, pairs)
        return Inputs(self.template, tokenize(self.tokenizer, texts), second)

    def check_pairs(self, pairs: bool) -> None:
        """Raises InputError if the model reads pairs and gets single texts, or the reverse."""
        if self.pairs is not None and self.pairs != pairs:
            wanted, got = ("pairs of texts", "single texts") if self.pairs else ("single texts", "pairs of texts")
            raise InputError(f"got {got}, but the classifier was trained on {wanted}; name both columns, or one")


@dataclass(frozen=True)
class Examples:
    """Texts to train on or to evaluate on.

    Attributes:
        inputs: the B texts, or pairs of texts.
        labels: the targets: (B,) int64 in 0..K-1, (B, K) bool which labels a text has, or (B,) float64 numbers.
        weights: (B,) above 0, how much each text counts in training; None if all count equally.
    """

    inputs: Inputs
    labels: npt.NDArray[Any]
    weights: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def weights_of(self, rows: Any = slice(None)) -> npt.NDArray[np.float64]:
        """Returns the weights of rows; 1 where all count equally."""
        return np.ones(len(self.labels[rows])) if self.weights is None else np.asarray(self.weights[rows])


def split_examples(reader: Reader, data: Prepared, split: str, scratch: Path | None = None) -> Examples:
    """Returns a split of prepared data. The tokens are kept in the prepared folder. Empty if there is no such split.

    Args:
        reader: turns texts into inputs.
        data: the prepared data.
        split: the split.
        scratch: an existing folder that takes new tokens, so that the prepared folder stays as it is.

    Raises:
        InputError: the data hold pairs of texts and the reader reads single ones, or the reverse.
        DataError: a file of the prepared folder is damaged.
    """
    if not data.rows.get(split):
        return Examples(reader.read([]), data.no_targets())
    reader.check_pairs(data.has_pairs)
    folder = data.folder / "tokens" / reader.tokenizer.key

    def tokens(column: str) -> TokenTable:
        name = f"{split}.{column}"
        place = folder if scratch is None or has_tokens(folder, name) else scratch
        return kept_tokens(place, name, lambda: token_chunks(reader.tokenizer, data.stream(split, column)))

    second = tokens("text_pair") if data.has_pairs else None
    return Examples(Inputs(reader.template, tokens("text"), second), data.targets(split))
