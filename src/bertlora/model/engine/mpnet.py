"""MPNet over packed rows. transformers' own forwards pass nothing on to attention, and have a (T, T) bias.

    S = q k' / sqrt(d) + b(j - i)      for query i and key j of a text; each head has its b, in all layers the same

So inside, the classifier, the encoder and the layers run the forwards below: the same modules in the same order.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from bertlora.model.engine.attention import attend
from bertlora.model.engine.packing import Packing


def serves(inner: Any) -> bool:
    """Returns whether packed rows are exact for this MPNet classifier, with or without an adapter.

    They give the bias no gradient. If it is trained, PEFT has wrapped it.
    """
    same_positions = inner.mpnet.embeddings.padding_idx == inner.config.pad_token_id
    return same_positions and type(inner.mpnet.encoder.relative_attention_bias) is nn.Embedding


def packed_forwards(inner: Any) -> dict[nn.Module, Callable[..., Any]]:
    """Returns the forwards that take `packing` and `route`: the classifier's, its encoder's and the layers'."""
    encoder = inner.mpnet
    bias = _bias(encoder.encoder, inner.config.max_position_embeddings)

    def encode(input_ids: Tensor, position_ids: Tensor, packing: Packing, route: Any, **_: Any) -> BaseModelOutput:
        hidden = encoder.embeddings(input_ids=input_ids, position_ids=position_ids)
        for layer in encoder.encoder.layer:
            hidden = layer(hidden, packing=packing, route=route, bias=bias)
        return BaseModelOutput(last_hidden_state=hidden)

    def classify(**batch: Any) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=inner.classifier(encoder(**batch)[0]))

    found: dict[nn.Module, Callable[..., Any]] = {inner: classify, encoder: encode}
    return found | {layer: partial(_layer, layer) for layer in encoder.encoder.layer}


def _bias(encoder: Any, reach: int) -> Tensor:
    """Returns the bias of each head, (H, 2 reach - 1), by the distance from query to key, from -(reach - 1)."""
    distances = torch.arange(1 - reach, reach, device=encoder.relative_attention_bias.weight.device)
    bias: Tensor = encoder.relative_attention_bias(encoder.relative_position_bucket(distances))
    return bias.detach().T.contiguous()


def _layer(layer: Any, hidden: Tensor, packing: Packing, bias: Tensor, **_: Any) -> Tensor:
    """A layer for all tokens, (1, T, D) → (1, T, D)."""
    return _run(layer, hidden, hidden, packing, bias)


def first_tokens(layer: Any, hidden: Tensor, packing: Packing, bias: Tensor, **_: Any) -> Tensor:
    """The last layer, (1, T, D) → (1, B, D)."""
    return _run(layer, hidden, hidden[:, packing.starts], packing, bias)


def _run(layer: Any, hidden: Tensor, asking: Tensor, packing: Packing, bias: Tensor) -> Tensor:
    """Returns the layer's output for the tokens in `asking`, (1, Q, D), which see all tokens of their texts."""
    attention = layer.attention.attn
    made = (attention.q(asking), attention.k(hidden), attention.v(hidden))
    q, k, v = (x[0].unflatten(-1, (attention.num_attention_heads, -1)) for x in made)
    seen = attend(q, k, v, packing, q.shape[-1] ** -0.5, bias=bias).flatten(1)[None]
    seen = layer.attention.LayerNorm(layer.attention.dropout(attention.o(seen)) + asking)
    out: Tensor = layer.output(layer.intermediate(seen), seen)
    return out
