"""Attention of the last layer, where only the first token of each text has a query; it makes no keys or values.

Keys and values are linear in the layer's input x, so the products can be taken in another order:

    q · (W_k x_j + b_k) = (W_k' q) · x_j + q · b_k        the last is the same for all j: softmax ignores it
    Σ p_j (W_v x_j + b_v) = W_v (Σ p_j x_j) + b_v

This needs one vector for each text and head instead of one for each token, d times less work. It is exact, for the
gradients too. It runs in fp32; its matrices are thin and cost little.
"""

from typing import Any

import torch
from torch import Tensor, nn

from bertlora.model.engine.blocks import LOG2_E
from bertlora.model.engine.lora_linear import LoraLinear
from bertlora.model.engine.packing import FAR_BELOW, Bucket, Packing


def as_matrix(linear: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Returns W (out, in) in fp32, including the low-rank update, and b; None if the layer is not just W x + b.

    Also None if b is trained: the keys' b has no effect, but an optimiser with weight decay needs its gradient.
    """
    if isinstance(linear, LoraLinear):
        found = linear.as_matrix()
    else:
        found = (linear.weight.float(), linear.bias) if type(linear) is nn.Linear else None
    learns = found is not None and found[1] is not None and found[1].requires_grad
    return None if learns else found


def attend_without_keys(
    q: Tensor, x: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, packing: Packing, scale: float
) -> Tensor:
    """Returns each text's attention over itself, (B, H d).

    Args:
        q: (B, H, d) queries, one for every text.
        x: (T, D) the layer's input.
        key: (H d, D) the keys' weight.
        value: (H d, D) the values' weight.
        bias: (H d,) the values' bias.
        packing: where the texts are.
        scale: factor on the scores.
    """
    heads, d = q.shape[1:]
    with torch.autocast(q.device.type, enabled=False):
        asking = torch.bmm(q.float().transpose(0, 1) * scale, key.view(heads, d, -1)).transpose(0, 1)
        seen: Tensor = Gathered.apply(asking, x, packing)  # type: ignore[no-untyped-call]
        out = torch.bmm(seen.transpose(0, 1), value.view(heads, d, -1).mT).transpose(0, 1).flatten(1)
    return (out if bias is None else out + bias.float()).to(q.dtype)


class Gathered(torch.autograd.Function):
    """z = Σ_j softmax_j(u · x_j) x_j, (B, H, D) in fp32, for u (B, H, D) in fp32 and x (T, D)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, x: Tensor, packing: Packing) -> Tensor:
        z, powers_of_2 = torch.empty_like(u, memory_format=torch.contiguous_format), u * LOG2_E
        ctx.weights, ctx.packing = [], packing
        for bucket in packing.buckets:
            read = _tokens(bucket, x)
            weights = _weights(bucket, torch.bmm(_asking(bucket, powers_of_2), read.mT), u.shape[1])
            _put(bucket, z, torch.bmm(weights, read))
            ctx.weights.append(weights)
        ctx.save_for_backward(u, x)
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        u, x = ctx.saved_tensors
        gu, gx = torch.empty_like(grads[0]), torch.empty_like(x)
        gx[ctx.packing.tokens :] = 0
        for bucket, weights in zip(ctx.packing.buckets, ctx.weights, strict=True):
            read, given = _tokens(bucket, x), _asking(bucket, grads[0])
            slopes = torch.bmm(given, read.mT)
            slopes = weights * (slopes - (weights * slopes).sum(-1, keepdim=True))
            _put(bucket, gu, torch.bmm(slopes, read))
            made = torch.bmm(weights.mT, given).baddbmm_(slopes.mT, _asking(bucket, u)).flatten(0, 1)
            gx[bucket.tokens] = made if bucket.keys is None else bucket.keys.gathered(made)
        return gu, gx if ctx.needs_input_grad[1] else None, None


def _tokens(bucket: Bucket, x: Tensor) -> Tensor:
    """Returns the row of x at each place, (N, L, D) in fp32."""
    found = x[bucket.tokens] if bucket.keys is None else bucket.keys.spread(x)
    return found.float().view(bucket.count, -1, x.shape[-1])


def _asking(bucket: Bucket, u: Tensor) -> Tensor:
    """Returns the queries of each matrix, (N, texts H, D)."""
    found = u[bucket.texts] if bucket.asked is None else bucket.asked.spread(u)
    return found.reshape(bucket.count, -1, u.shape[-1])


def _put(bucket: Bucket, out: Tensor, block: Tensor) -> None:
    """Writes (N, texts H, D) to the rows of these texts in (B, H, D)."""
    rows = block.reshape(-1, *out.shape[1:])
    out[bucket.texts] = rows if bucket.asked is None else bucket.asked.gathered(rows)


def _weights(bucket: Bucket, scores: Tensor, heads: int) -> Tensor:
    """Returns 2^scores divided by their sum, (N, texts H, L); 0 at padding and at other texts."""
    by_head = scores.view(bucket.count, -1, heads, scores.shape[-1])
    mask = bucket.mask(True, None, scores)
    if mask is not None:
        by_head.add_(mask[:, :, None])
    elif bucket.keys is not None:
        scores.masked_fill_(bucket.keys.idle[:, None], FAR_BELOW)
    weights = scores.sub_(scores.amax(-1, keepdim=True)).exp2_()
    weights /= weights.sum(-1, keepdim=True)
    if bucket.asked is not None:
        by_head.masked_fill_(bucket.asked.idle[:, :, None, None], 0.0)
    return weights
