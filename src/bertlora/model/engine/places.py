"""Places: how the rows of packed texts are laid out in matrices."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Places:
    """The places of rows in N matrices with L places each.

    Attributes:
        rows: (N L,) the row at each place; at padding, the bucket's first row.
        real: the place of each row of the bucket, in order.
        owners: (N, L) the text at each place; negative at padding.
        positions: (N, L) the position in its text of the token at each place.
    """

    rows: Tensor
    real: Tensor
    owners: Tensor
    positions: Tensor

    @classmethod
    def of(cls, starts: Tensor, lengths: Tensor, shape: tuple[int, int], rows: slice) -> "Places":
        """Returns the places of texts with these lengths and first places; `rows` are their rows, in order."""
        texts = torch.arange(len(lengths)).repeat_interleave(lengths)
        positions = torch.arange(len(texts)) - (lengths.cumsum(0) - lengths)[texts]
        real = starts[texts] + positions

        def spread(values: Tensor, elsewhere: int) -> Tensor:
            return torch.full((shape[0] * shape[1],), elsewhere).index_copy_(0, real, values)

        owners, where = spread(texts, -1).view(shape), spread(positions, 0).view(shape)
        return cls(spread(torch.arange(rows.start, rows.stop), rows.start), real, owners, where)

    def spread(self, x: Tensor) -> Tensor:
        """Returns the row of x (rows, ...) for each place, (N L, ...); at padding, some row of the bucket."""
        return x.index_select(0, self.rows)

    def gathered(self, x: Tensor) -> Tensor:
        """Returns the bucket's rows, in order, from values for each place, (N L, ...)."""
        return x.index_select(0, self.real)

    @cached_property
    def idle(self) -> Tensor:
        """(N, L) True at padding."""
        return self.owners < 0

    def to(self, device: torch.device) -> "Places":
        """Returns the same on `device`."""
        return Places(*(x.to(device) for x in (self.rows, self.real, self.owners, self.positions)))
