"""Labelled texts as a model reads them: the splits of prepared data, tokenised once and then read from disk."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertlora.data.folder import Prepared
from bertlora.data.inputs import Inputs
from bertlora.data.reader import Reader
from bertlora.data.tokens import TokenTable, kept_tokens, token_chunks


@dataclass(frozen=True)
class Examples:
    """Texts to train on or to evaluate on.

    Attributes:
        inputs: the B texts, or pairs of texts.
        labels: (B,) int64 in 0..K-1.
    """

    inputs: Inputs
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def split_examples(reader: Reader, data: Prepared, split: str) -> Examples:
    """Returns a split of prepared data. The tokens are kept in the prepared folder. Empty if there is no such split.

    Raises:
        InputError: the data hold pairs of texts and the reader reads single ones, or the reverse.
        DataError: a file of the prepared folder is damaged.
    """
    if not data.rows.get(split):
        return Examples(reader.read([]), np.zeros(0, dtype=np.int64))
    reader.check_pairs(data.has_pairs)
    folder = data.folder / "tokens" / reader.tokenizer.key

    def tokens(column: str) -> TokenTable:
        name = f"{split}.{column}"
        return kept_tokens(folder, name, lambda: token_chunks(reader.tokenizer, data.stream(split, column)))

    second = tokens("text_pair") if data.has_pairs else None
    return Examples(Inputs(reader.template, tokens("text"), second), data.label_ids(split))
