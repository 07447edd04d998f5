"""Parts: the rows that are scored in one go, written in one file, and done again after a kill.

Where a part begins depends only on the sources, so parts of a second start are the same as those of the first.
"""

from collections.abc import Container, Generator, Mapping
from contextlib import closing
from typing import NamedTuple

from bertlora.scoring.sources import Fault, Origin, Rows

# Long texts take long, and a kill loses up to a part. With fewer short texts, batches of similar length are hard to
# fill.
PART_ROWS = 4096
PART_CHARACTERS = 500_000


class Part(NamedTuple):
    """Rows of one part; the fields are those of `Rows`, and its number, from 0."""

    number: int
    texts: list[str]
    pairs: list[str] | None
    kept: dict[str, list[object]]
    origins: list[Origin]
    faults: list[Fault]
    fraction: float | None

    def without(self, reasons: Mapping[int, str]) -> "Part":
        """Returns the part with some rows, each with a reason, among its faults."""
        if not reasons:
            return self
        good = [i for i in range(len(self.texts)) if i not in reasons]
        return self._replace(
            texts=[self.texts[i] for i in good],
            pairs=None if self.pairs is None else [self.pairs[i] for i in good],
            kept={name: [values[i] for i in good] for name, values in self.kept.items()},
            origins=[self.origins[i] for i in good],
            faults=self.faults + [self.origins[i](reason) for i, reason in reasons.items()],
        )


def in_parts(rows: Generator[Rows, None, None], done: Container[int] = ()) -> Generator[Part, None, None]:
    """Yields rows in parts of about `PART_ROWS` rows or `PART_CHARACTERS` characters.

    Args:
        rows: the rows, in order.
        done: the numbers of parts that are read, but not yielded.
    """
    number, waiting = 0, list[Rows]()
    with closing(rows):
        for some in rows:
            waiting.append(some)
            if _is_full(waiting):
                if number not in done:
                    yield _joined(number, waiting)
                number, waiting = number + 1, []
    if waiting and number not in done:
        yield _joined(number, waiting)


def _is_full(waiting: list[Rows]) -> bool:
    rows = sum(len(some.texts) + len(some.faults) for some in waiting)
    return rows >= PART_ROWS or sum(len(text) for some in waiting for text in some.texts) >= PART_CHARACTERS


def _joined(number: int, waiting: list[Rows]) -> Part:
    pairs = [pair for some in waiting for pair in some.pairs or ()]
    return Part(
        number,
        [text for some in waiting for text in some.texts],
        pairs or None,
        {name: [value for some in waiting for value in some.kept[name]] for name in waiting[0].kept},
        [origin for some in waiting for origin in some.origins],
        [fault for some in waiting for fault in some.faults],
        waiting[-1].fraction,
    )
