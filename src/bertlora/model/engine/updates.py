"""What an adapter adds to a shared encoder, and a row of texts of several adapters.

    y[s] = W x[s] + b + s B A x[s]      s: the tokens of one adapter, which are neighbours in the row

W x is one product for all tokens; each adapter's low-rank part then runs on its own tokens. After Chen et al. 2023,
"Punica: Multi-Tenant LoRA Serving". Letters: T tokens, B texts, D hidden size, R rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from bertlora.model.engine.heads import Head
from bertlora.model.engine.kernels.low_rank import SegmentUpdate, add_segments, widened
from bertlora.model.engine.packing import Packing


@dataclass(frozen=True)
class LowRank:
    """One adapter's updates of linear layers that have the same input.

    Attributes:
        down: (in, R) A' of all of them, side by side.
        ranks: the rank of each.
        ups: for each: which of the layers it is, and s B', (rank, out).
        native: the same for the native kernel; None where it does not serve.
    """

    down: Tensor
    ranks: tuple[int, ...]
    ups: tuple[tuple[int, Tensor], ...]
    native: SegmentUpdate | None

    @classmethod
    def of(cls, pairs: Mapping[int, tuple[Tensor, Tensor]], widths: Sequence[int]) -> "LowRank":
        """Returns the updates of these layers; a pair is A (R, in) and s B (out, R).

        Args:
            pairs: by the number of the layer in its product.
            widths: outputs of each layer of the product.
        """
        down, ranks = torch.cat([a for a, _ in pairs.values()]), tuple(a.shape[0] for a, _ in pairs.values())
        ups = tuple((member, b.T.contiguous()) for member, (_, b) in pairs.items())
        if not SegmentUpdate.serves(down, widths):
            # The layouts that torch multiplies fastest for few tokens: A by rows, B by columns.
            return cls(down.T, ranks, ups, None)
        wide, columns = widened(down.T), [0, *accumulate(widths)]
        return cls(wide[:, : len(down)], ranks, ups, SegmentUpdate(wide, [(columns[member], up) for member, up in ups]))

    def add(self, x: Tensor, outputs: Sequence[Tensor]) -> None:
        """Adds s B A x, in place, to the outputs of the layers, (n, out) for x (n, in)."""
        for (member, up), low in zip(self.ups, torch.split(x @ self.down, list(self.ranks), 1), strict=True):
            y = outputs[member]
            if y.dtype == up.dtype:
                y.addmm_(low, up)
            else:
                y.add_(low @ up)

    def merged(self, weight: Tensor, widths: Sequence[int]) -> Tensor:
        """Returns a copy of the layers' weights (out, in), one below the other, with the updates added."""
        total = weight.clone()
        parts, downs = torch.split(total, list(widths)), torch.split(self.down.T, list(self.ranks))
        for (member, up), down in zip(self.ups, downs, strict=True):
            parts[member].add_(up.T @ down)
        return total


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
        tokens: number of tokens of each, then of the filler.
        low_dtype: what low-rank parts run in.
    """

    updates: tuple[Update, ...]
    texts: list[int]
    tokens: list[int]
    low_dtype: torch.dtype

    @classmethod
    def of(cls, updates: Sequence[Update], packing: Packing, low_dtype: torch.dtype) -> "Mix":
        """Returns the mix of a row; `updates` has the adapter of each text."""
        own, texts, tokens = list[Update](), list[int](), list[int]()
        for update, length in zip(updates, packing.lengths, strict=True):
            if not own or own[-1] is not update:
                own.append(update)
                texts.append(0)
                tokens.append(0)
            texts[-1] += 1
            tokens[-1] += length
        return cls(tuple(own), texts, [*tokens, packing.row - packing.tokens], low_dtype)

    def add(self, product: int, x: Tensor, y: Tensor, widths: Sequence[int]) -> None:
        """Adds every adapter's update of a product to y, in place.

        Args:
            product: the number of the product.
            x: (N, in), a row for each token or each text.
            y: (N, out), the outputs of its layers side by side.
            widths: outputs of each layer.
        """
        # As many rows as tokens, and fewer texts: only a row of texts with one token each has as many of both.
        counts = self.tokens if len(x) == sum(self.tokens) else self.texts
        lows = [update.low.get(product) for update in self.updates]
        natives = [None if low is None else low.native for low in lows]
        if x.dtype == y.dtype and all(low is None or low.native for low in lows):
            add_segments(x, y, natives, [0, *accumulate(counts[: len(lows)])])
            return
        inputs = torch.split_with_sizes(x.to(self.low_dtype), counts)
        # One call of `split` takes a third of the time of as many slices.
        outputs = zip(*(torch.split(part, counts) for part in torch.split(y, list(widths), 1)), strict=True)
        for low, own, into in zip(lows, inputs, outputs, strict=False):
            if low is not None:
                low.add(own, into)
