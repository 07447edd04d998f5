"""What an adapter adds to a shared encoder, and a row of texts of several adapters.

    y[s] = W x[s] + b + s B A x[s]      s: the tokens of one adapter, which are neighbours in the row

W x is one product for all tokens; each adapter's low-rank part then runs on its own tokens. After Chen et al. 2023,
"Punica: Multi-Tenant LoRA Serving". Letters: T tokens, B texts, D hidden size, R rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bertlora.model.engine.heads import Head
from bertlora.model.engine.packing import Packing


@dataclass(frozen=True)
class LowRank:
    """One adapter's updates of linear layers that have the same input.

    Attributes:
        down: (R, in) A of all of them, one below the other.
        ups: for each: its part of the outputs and of the ranks, as (start, length), and s B, (out, R).
    """

    down: Tensor
    ups: tuple[tuple[tuple[int, int], tuple[int, int], Tensor], ...]

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, Tensor, Tensor]]) -> "LowRank":
        """Returns the updates of layers; each pair is where its outputs begin, A (R, in) and s B (out, R)."""
        ups, rank = [], 0
        for begin, a, b in pairs:
            ups.append(((begin, b.shape[0]), (rank, a.shape[0]), b))
            rank += a.shape[0]
        return cls(torch.cat([a for _, a, _ in pairs]), tuple(ups))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Adds s B A x to y, (n, out) for x (n, in), in place.

        On a CPU it runs in fp32: oneDNN would generate code for every new n in bf16.
        """
        down = x.to(self.down.dtype) @ self.down.T
        for columns, ranks, up in self.ups:
            into, low = y.narrow(1, *columns), down.narrow(1, *ranks)
            if y.dtype == up.dtype:
                into.addmm_(low, up.T)
            else:
                into.add_(low @ up.T)

    def merged(self, weight: Tensor) -> Tensor:
        """Returns a copy of a weight (out, in) with the updates added."""
        total = weight.clone()
        for columns, ranks, up in self.ups:
            total.narrow(0, *columns).add_(up @ self.down.narrow(0, *ranks))
        return total

    @property
    def bytes(self) -> int:
        """Bytes of memory that it takes."""
        return sum(x.numel() * x.itemsize for x in (self.down, *(up for _, _, up in self.ups)))


@dataclass(frozen=True, eq=False)
class Update:
    """What one adapter adds to a shared encoder.

    Attributes:
        low: number of a product of the encoder → its low-rank update.
        lowest: the lowest layer that has one; the number of layers if none has.
        head: its head.
    """

    low: Mapping[int, LowRank]
    lowest: int
    head: Head


@dataclass(frozen=True)
class Mix:
    """Whose texts a packed row holds. The texts of an adapter are neighbours.

    Attributes:
        updates: the adapters, in the order of the row.
        texts: number of texts of each.
        tokens: number of tokens of each.
        row: T, tokens of the row, including filler.
    """

    updates: tuple[Update, ...]
    texts: tuple[int, ...]
    tokens: tuple[int, ...]
    row: int

    @classmethod
    def of(cls, updates: Sequence[Update], packing: Packing) -> "Mix":
        """Returns the mix of a row; `updates` has the adapter of each text."""
        found: list[Any] = []
        for update, length in zip(updates, packing.lengths, strict=True):
            if not found or found[-1][0] is not update:
                found.append([update, 0, 0])
            found[-1][1] += 1
            found[-1][2] += length
        return cls(*(tuple(column) for column in zip(*found, strict=True)), packing.row)

    def add(self, product: int, x: Tensor, y: Tensor) -> None:
        """Adds every adapter's update of a product to y, in place; x and y have a row for each token or each text."""
        # As many rows as tokens, and fewer texts: only a row of texts with one token each has as many of both.
        counts = self.tokens if len(x) == self.row else self.texts
        start = 0
        for update, count in zip(self.updates, counts, strict=True):
            low = update.low.get(product)
            if low is not None:
                low.add(x.narrow(0, start, count), y.narrow(0, start, count))
            start += count
