"""DeBERTa-v2 and v3 over packed rows. Two more terms of their scores depend on the distance between tokens.

    S = (q k' + q K(j - i)' + k Q(i - j)') / sqrt(n d)      for query i and key j of a text; n terms, mostly 3

K and Q are a layer's keys and queries of the relative embeddings. There is one for each short distance, and one for
each range of long distances. They are made once for all texts of a row. What makes them may be adapted.

transformers' own forwards pass nothing on to attention. So inside, the forwards below run: the same modules in the same
order.

A product of L rows with a table of 2 L - 1 distances has all scores. From row to row they move by one column, so a view
with other strides is (L, L). It works by bands: W rows need only L + W - 1 distances.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from bertlora.model.engine.attention import attend
from bertlora.model.engine.blocks import Block, blocks_of
from bertlora.model.engine.packing import Packing

# W: rows of a band.
BAND = 64


class Relative(NamedTuple):
    """What all layers read of the distances in a row.

    Attributes:
        embeddings: (X, D) the relative embeddings in use.
        rows: (2 N - 1,) the row of `embeddings` for each distance i - j, from -(N - 1) to N - 1.
        places: (T,) the distance from its text's first token to each token, counted from -(N - 1).
    """

    embeddings: Tensor
    rows: Tensor
    places: Tensor


def serves(inner: Any) -> bool:
    """Returns whether packed rows are exact for this classifier: it has relative attention, and no convolution."""
    encoder = inner.deberta.encoder
    return bool(encoder.relative_attention) and encoder.conv is None


def packed_forwards(inner: Any) -> dict[nn.Module, Callable[..., Any]]:
    """Returns the forwards that take `packing` and `route`: the classifier's, its encoder's and the layers'."""
    encoder = inner.deberta

    def encode(
        input_ids: Tensor,
        position_ids: Tensor,
        packing: Packing,
        route: Any,
        token_type_ids: Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        hidden = encoder.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids)
        relative = _relative(encoder.encoder, packing, position_ids[0])
        for layer in encoder.encoder.layer:
            hidden = layer(hidden, packing=packing, route=route, relative=relative)
        return BaseModelOutput(last_hidden_state=hidden)

    def classify(**batch: Any) -> SequenceClassifierOutput:
        pooled = inner.dropout(inner.pooler(encoder(**batch)[0]))
        return SequenceClassifierOutput(logits=inner.classifier(pooled))

    found: dict[nn.Module, Callable[..., Any]] = {inner: classify, encoder: encode}
    return found | {layer: partial(_layer, layer) for layer in encoder.encoder.layer}


def _relative(encoder: Any, packing: Packing, positions: Tensor) -> Relative:
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    embeddings, reach = encoder.get_rel_embedding(), max(bucket.longest for bucket in packing.buckets)
    numbers = torch.arange(1 - reach, reach, device=embeddings.device)
    if encoder.position_buckets > 0:
        numbers = make_log_bucket_position(numbers, encoder.position_buckets, encoder.max_relative_positions).long()
    rows = (numbers + len(embeddings) // 2).clamp(0, len(embeddings) - 1)
    return Relative(embeddings[rows[0] : rows[-1] + 1], rows - rows[0], positions + reach - 1)


def _layer(layer: Any, hidden: Tensor, packing: Packing, relative: Relative, **_: Any) -> Tensor:
    """A layer for all tokens, (1, T, D) → (1, T, D)."""
    q, k, v = _projected(layer, hidden, hidden)
    tables = _tables(layer, relative, q)
    with torch.autocast(q.device.type, enabled=False):
        seen = Disentangled.apply(q, k, v, *tables, packing, _scale(layer))  # type: ignore[no-untyped-call]
    return _finished(layer, seen, hidden)


def first_tokens(layer: Any, hidden: Tensor, packing: Packing, relative: Relative, **_: Any) -> Tensor:
    """The last layer, (1, T, D) → (1, B, D).

    A text has one query, so each key has one distance: S = q (k + K)' + k Q'. The second part is one more column.
    """
    first = hidden[:, packing.starts]
    q, k, v = _projected(layer, first, hidden)
    keys, queries = _tables(layer, relative, q)
    alone = (k * queries.flip(0)[relative.places]).sum(-1, keepdim=True)
    q, v = pad(q, (0, 1), value=1.0), pad(v, (0, 1))
    seen = attend(q, torch.cat((k + keys[relative.places], alone), -1), v, packing, _scale(layer))
    return _finished(layer, seen[..., :-1], first)


def _projected(layer: Any, asking: Tensor, hidden: Tensor) -> list[Tensor]:
    """Returns queries of `asking`, (1, Q, D), and keys and values of `hidden`, (1, T, D), each (tokens, H, d)."""
    attention = layer.attention.self
    made = attention.query_proj(asking), attention.key_proj(hidden), attention.value_proj(hidden)
    return [_by_head(attention, x) for x in made]


def _by_head(attention: Any, x: Tensor) -> Tensor:
    return x[0].view(x.shape[1], attention.num_attention_heads, -1)


def _tables(layer: Any, relative: Relative, q: Tensor) -> tuple[Tensor, Tensor]:
    """Returns K by j - i and Q by i - j, (2 N - 1, H, d) from -(N - 1), in q's dtype; 0 if the model has none."""
    attention = layer.attention.self
    embeddings = attention.pos_dropout(relative.embeddings)[None].to(q.dtype)
    if attention.share_att_key:
        # The values too, which are not used: one product may make all three.
        made = dict(zip(("p2c", "c2p", ""), _projected(layer, embeddings, embeddings), strict=True))
    else:
        own = {"p2c": "pos_query_proj", "c2p": "pos_key_proj"}.items()
        layers = {kind: getattr(attention, name) for kind, name in own if kind in attention.pos_att_type}
        made = {kind: _by_head(attention, layer(embeddings)) for kind, layer in layers.items()}

    def by_distance(kind: str, rows: Tensor) -> Tensor:
        return made[kind][rows] if kind in attention.pos_att_type else q.new_zeros(len(rows), *q.shape[1:])

    return by_distance("c2p", relative.rows.flip(0)), by_distance("p2c", relative.rows)


def _scale(layer: Any) -> float:
    attention = layer.attention.self
    parts = 1 + sum(kind in attention.pos_att_type for kind in ("c2p", "p2c"))
    return float((attention.attention_head_size * parts) ** -0.5)


def _finished(layer: Any, seen: Tensor, asking: Tensor) -> Tensor:
    """Returns the layer's output for the tokens in `asking`, (1, Q, D), of what they saw, (Q, H, d)."""
    mixed = layer.attention.output(seen.flatten(1)[None], asking)
    out: Tensor = layer.output(layer.intermediate(mixed), mixed)
    return out


class Disentangled(torch.autograd.Function):
    """Attention over packed rows: q, k, v (T, H, d), K, Q (2 N - 1, H, d) → (T, H, d); the backward makes P again."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, queries: Tensor, packing: Packing, scale: float
    ) -> Tensor:
        out = packing.outputs(q)
        for block in blocks_of(packing.buckets, q, k, None, None):
            scored = _Scored.of(block, q, k, keys, queries, scale)
            block.put(out, torch.bmm(scored.weights(), block.keys(v)), 1.0)
        ctx.save_for_backward(q, k, v, keys, queries, out)
        ctx.given = packing, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, keys, queries, out = ctx.saved_tensors
        packing, scale = ctx.given
        g = grads[0].to(q.dtype)
        due = (g * out).sum(-1, keepdim=True)
        gq, gk, gv = (packing.outputs(x) for x in (q, k, v))
        g_keys, g_queries = (
            x.new_zeros(x.shape, dtype=torch.promote_types(x.dtype, torch.float32)) for x in (keys, queries)
        )
        for block in blocks_of(packing.buckets, q, k, None, None):
            scored = _Scored.of(block, q, k, keys, queries, scale)
            weights = scored.weights()
            change = block.queries(g, 1.0, 0.0)
            change[..., -1:] = block.queries(due, -1.0)
            change = block.cleared(change)
            block.put_keys(gv, torch.bmm(weights.mT, change[..., :-1]))
            slopes = torch.bmm(change, block.keys(v, 1.0).mT).mul_(weights)
            g_left, g_right = scored.gradients(slopes, _near(block, g_keys), _near(block, g_queries))
            block.put(gq, g_left, 1 / scale)
            block.put_keys(gk, g_right)
        return gq, gk, gv, g_keys.to(keys.dtype), g_queries.mul_(scale).to(queries.dtype), None, None


@dataclass(frozen=True)
class _Scored:
    """A block with its factors: [q scale, 0, 1] and [k, 1, c], (h N, L, d + 2), and K and scale Q, (h, 2 L - 1, d)."""

    block: Block
    left: Tensor
    right: Tensor
    keys: Tensor
    queries: Tensor

    @classmethod
    def of(cls, block: Block, q: Tensor, k: Tensor, keys: Tensor, queries: Tensor, scale: float) -> "_Scored":
        left = block.queries(q, 1 / scale, 0.0, 1.0)
        return cls(block, left, block.asked(k), _near(block, keys), _near(block, queries) * scale)

    def weights(self) -> Tensor:
        """Returns P, (h N, L, L)."""
        scores = torch.bmm(self.left, self.right.mT)
        square, left, right = map(self.block.by_text, (scores, self.left, self.right))
        _add_products(square, left[..., :-2], self.keys)
        _add_products(square.mT, right[..., :-2], self.queries)
        return torch.softmax(self.block.masked(scores), -1)

    def gradients(self, slopes: Tensor, g_keys: Tensor, g_queries: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the gradients of `left` and `right`, (h N, L, d), for those of S; adds those of K and Q."""
        left, right = self.left[..., :-2], self.right[..., :-2]
        g_left, g_right = torch.bmm(slopes, right), torch.bmm(slopes.mT, left)
        by_text = self.block.by_text
        _add_gradients(by_text(slopes), by_text(left), self.keys, by_text(g_left), g_keys)
        _add_gradients(by_text(slopes).mT, by_text(right), self.queries, by_text(g_right), g_queries)
        return g_left, g_right


def _near(block: Block, table: Tensor) -> Tensor:
    """Returns the part of K or Q for a block, (h, 2 L - 1, d)."""
    middle, reach = len(table) // 2, block.bucket.longest - 1
    return table[middle - reach : middle + reach + 1, block.heads].transpose(0, 1)


def _bands(length: int) -> Iterator[tuple[slice, slice]]:
    """Yields the rows of each band, and the distances from them to all L places."""
    for start in range(0, length, BAND):
        end = min(start + BAND, length)
        yield slice(start, end), slice(length - end, 2 * length - 1 - start)


def _skewed(products: Tensor) -> Tensor:
    """Returns a view (..., W, L) of (..., W, L + W - 1): each row from one place before the row above."""
    *_, rows, distances = products.shape
    *outer, own, one = products.stride()
    shape = (*products.shape[:-1], distances - rows + 1)
    return products.as_strided(shape, (*outer, own - one, one), products.storage_offset() + (rows - 1) * one)


def _add_products(scores: Tensor, x: Tensor, table: Tensor) -> None:
    """Adds x times the table's row for the distance to each place to scores (h, N, L, L); x is (h, N, L, d)."""
    for rows, near in _bands(x.shape[2]):
        part = x[:, :, rows]
        products = torch.bmm(part.flatten(1, 2), table[:, near].mT)
        scores[:, :, rows] += _skewed(products.view(*part.shape[:3], -1))


def _add_gradients(slopes: Tensor, x: Tensor, table: Tensor, g_x: Tensor, g_table: Tensor) -> None:
    """Adds the gradients of x and the table, for those of the scores."""
    for rows, near in _bands(x.shape[2]):
        part = x[:, :, rows]
        spread = x.new_zeros(*part.shape[:3], near.stop - near.start)
        _skewed(spread).copy_(slopes[:, :, rows])
        by_distance = spread.flatten(1, 2)
        g_x[:, :, rows] += torch.bmm(by_distance, table[:, near]).view(part.shape)
        g_table[:, near] += torch.bmm(by_distance.mT, part.flatten(1, 2))
