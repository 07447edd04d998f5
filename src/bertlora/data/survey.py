"""The first pass over a source: its labels, 4 bytes a row; and the hash that tells texts apart."""

from array import array
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from bertlora.data.columns import Columns
from bertlora.data.labels import MAX_CLASSES, unknown_label
from bertlora.data.rows import no_rows, text_batches
from bertlora.data.source import Source
from bertlora.errors import DataError


@dataclass(frozen=True)
class Survey:
    """What is known of a source of N rows after one pass.

    Attributes:
        source: the source.
        columns: its columns.
        first_places: its labels in order of appearance, each with the position of its first row.
        label_ids: (N,) int32, index of each row's label in `first_places`.
    """

    source: Source
    columns: Columns
    first_places: dict[str, int]
    label_ids: NDArray[np.int32]

    def ids(self, labels: list[str], trained_by: str) -> NDArray[np.int32]:
        """Returns (N,) int32, the index of each row's label in `labels`.

        Args:
            labels: the labels of training, in order.
            trained_by: name of the source that they come from, for the message.

        Raises:
            DataError: a label is not one of them; the message names its first place.
        """
        for label, position in self.first_places.items():
            if label not in labels:
                raise unknown_label(self.source.place(position), label, labels, f", the labels of {trained_by}")
        index = {label: i for i, label in enumerate(labels)}
        return np.array([index[label] for label in self.first_places], np.int32)[self.label_ids]


def survey(source: Source, columns: Columns) -> Survey:
    """Reads a source once.

    Raises:
        DataError: it is broken, holds no rows, a blank text or label, or far too many labels.
    """
    first_places: dict[str, int] = {}
    ids: dict[str, int] = {}
    label_ids = array("i")
    for batch in text_batches(source, columns):
        for label, position in zip(batch.labels or [], batch.positions, strict=True):
            if label not in ids:
                ids[label] = len(ids)
                first_places[label] = position
            label_ids.append(ids[label])
        if len(ids) > MAX_CLASSES:
            raise DataError(
                f"{source.name}: column '{columns.label}' has more than {MAX_CLASSES:,} different labels; "
                "name the right column with --label-column"
            )
    if not label_ids:
        raise no_rows(source)
    return Survey(source, columns, first_places, np.frombuffer(label_ids, np.int32))


def text_hash(text: str, pair: str = "") -> int:
    """Returns 64 bits that tell texts apart; in ten million rows, two texts share theirs with odds of 1 to 400,000."""
    parts = f"{text.strip()}\0{pair.strip()}".encode()
    return int.from_bytes(blake2b(parts, digest_size=8).digest())
