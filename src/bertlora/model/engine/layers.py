"""Packed rows through transformers' own encoders.

The model's own forward runs; MPNet and DeBERTa-v2 need others (`mpnet`, `deberta`). A `Route`, passed along with the
batch, controls what its layers do:

    embeddings ─ layer 0 ─ … ─ layer K-1 ─ layer K ─ … ─ last layer ─ final norm ─ head
                 └ skipped if their output is given ┘     └ one vector for each text ┘

Mostly, only the first token of each text reaches the head. So the last layer computes query, output projection and
feed-forward for these tokens only. This is exact, for the gradients too: the tokens left out have gradient 0. The last
layers below call the architecture's own modules in its own order, on the first tokens instead of all tokens. Where a
ModernBERT's head reads the mean over a text's tokens, the last layer runs for all tokens.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from torch import Tensor, nn

from bertlora.model.base import quiet
from bertlora.model.engine import deberta, mpnet
from bertlora.model.engine.attention import NAME, attend
from bertlora.model.engine.changes import forwards, identity, unwrapped
from bertlora.model.engine.packing import Packing, text_means


class Whole(Protocol):
    """A layer in one function: called as the layer's own forward, or for first tokens only, as those of `_FAMILIES`."""

    def __call__(self, hidden: Tensor, *_: Any, packing: Packing, **__: Any) -> Tensor: ...
    def first_tokens(self, _: nn.Module, hidden: Tensor, packing: Packing, **__: Any) -> Tensor: ...


@dataclass
class Route:
    """Which layers a batch runs through.

    Attributes:
        begin: the first layer that runs.
        given: (T, D) the input of that layer; None takes the embeddings' output.
        end: the layer to stop before; None runs all layers.
        keep: store `hidden` and `first`.
        next: the layer that is called next; an ALBERT calls the same module several times.
        hidden: (T, D) every token's state that enters the last layer; with `end`, that enters the layer to stop before.
        first: (B, D) the last layer's output for first tokens, after the final norm, if there is one; None with `end`.
    """

    begin: int = 0
    given: Tensor | None = None
    end: int | None = None
    keep: bool = False
    next: int = 0
    hidden: Tensor | None = None
    first: Tensor | None = None


def served(model: Any) -> bool:
    """Returns whether packed rows give this classifier's logits exactly; other models get padded batches."""
    inner = unwrapped(model)
    if inner.config.model_type not in _FAMILIES or getattr(inner.config, "is_decoder", False):
        return False
    own = _OWN_FORWARDS.get(inner.config.model_type)
    return _accepts_attention(inner) if own is None else bool(own.serves(inner))


def recordable(inner: Any) -> bool:
    """Returns whether a pass on a GPU reads nothing back, and knows the texts' lengths only through offsets.

    A ModernBERT may average tokens by the lengths, or have a window in its last layer, and the scores of MPNet and
    DeBERTa-v2 depend on distances: they need attention by matrix products.
    """
    return inner.config.model_type not in ("modernbert", *_OWN_FORWARDS)


def encoder_layers(model: Any) -> nn.ModuleList:
    """Returns the encoder's layers in the order of their calls; the model must be of a served architecture.

    An ALBERT calls a layer several times. It is there as often.
    """
    inner = unwrapped(model)
    path, _ = _FAMILIES[inner.config.model_type]
    layers: nn.ModuleList = getattr(inner, inner.base_model_prefix).get_submodule(path)
    if inner.config.model_type != "albert":
        return layers
    calls = inner.config.num_hidden_layers
    groups: list[Any] = [layers[int(call / (calls / len(layers)))] for call in range(calls)]
    return nn.ModuleList(layer for group in groups for layer in group.albert_layers)


def first_calls(layers: nn.ModuleList) -> dict[nn.Module, int]:
    """Returns each layer with the number of its first call."""
    numbers: dict[nn.Module, int] = {}
    for number, layer in enumerate(layers):
        numbers.setdefault(layer, number)
    return numbers


@contextmanager
def packed_layers(model: Any, whole: Mapping[nn.Module, Whole] = MappingProxyType({})) -> Iterator[None]:
    """Inside, the model takes packed rows, with the extra arguments `packing` and `route`; see `served`.

    Layers in `whole` run this forward in place of their own.
    """
    inner = unwrapped(model)
    if (own := _OWN_FORWARDS.get(inner.config.model_type)) is not None:
        with forwards(own.packed_forwards(inner)), forwards(_steered_layers(inner, whole)):
            yield
    else:
        with _our_attention(inner) as accepted, forwards(_steered_layers(inner, whole)):
            assert accepted, "a model that is not served"
            yield


def _steered_layers(inner: Any, whole: Mapping[nn.Module, Whole]) -> dict[nn.Module, Callable[..., Tensor]]:
    """Returns the forwards of the layers, and of a final norm, under a route."""
    layers = encoder_layers(inner)
    _, first_tokens = _FAMILIES[inner.config.model_type]
    if layers[-1] in whole:
        first_tokens = whole[layers[-1]].first_tokens
    # A final norm runs in the last layer's forward: before a mean, and so not after it.
    norms = [m for name, m in getattr(inner, inner.base_model_prefix).named_children() if name == "final_norm"]
    norm = norms[0].forward if norms else identity
    averages = getattr(inner.config, "classifier_pooling", "cls") == "mean"
    last = _last(layers[-1], None if averages else first_tokens, norm)
    return {
        layer: _steered(layer, len(layers), last, whole.get(layer, layer.forward)) for layer in layers
    } | dict.fromkeys(norms, identity)


@contextmanager
def _our_attention(inner: Any) -> Iterator[bool]:
    """Inside, the model uses our attention, and gets True; or it keeps its own, and gets False.

    Some versions of transformers cannot switch the attention of some architectures (ModernBERT up to 5.5). They only
    log it, and packed texts would then see each other. So the config of every attention module is checked afterwards.
    """
    before = inner.config._attn_implementation
    inner.set_attn_implementation(NAME)
    try:
        attending = [inner, *(module for module in encoder_layers(inner).modules() if hasattr(module, "config"))]
        yield all(module.config._attn_implementation == NAME for module in attending)
    finally:
        inner.set_attn_implementation(before)


def _accepts_attention(inner: Any) -> bool:
    """Returns whether transformers can give this class of model our attention; tried once for each class."""
    kind = type(inner)
    if kind not in _ACCEPTING:
        with quiet(), _our_attention(inner) as accepted:
            _ACCEPTING[kind] = accepted
    return _ACCEPTING[kind]


def _steered(
    layer: nn.Module, calls: int, last: Callable[..., Tensor], own: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """Returns the forward of a layer under a route, (1, T, D) → (1, T, D).

    Args:
        layer: the layer.
        calls: number of calls of layers in a batch.
        last: the forward for the last of them.
        own: the forward for the others.
    """

    def forward(hidden: Tensor, *args: Any, packing: Packing, route: Route, **kwargs: Any) -> Tensor:
        number, route.next = route.next, (route.next + 1) % calls
        if number == route.begin:
            # The first layer that runs takes the route's input, in the layers' dtype.
            given = hidden if route.given is None else route.given[None]
            hidden = given.to(next(layer.parameters()).dtype)
        runs = number >= route.begin and (route.end is None or number < route.end)
        if number == calls - 1:
            return last(hidden, *args, packing=packing, route=route, **kwargs)
        return own(hidden, *args, packing=packing, route=route, **kwargs) if runs else hidden

    return forward


def _last(
    layer: nn.Module, first_tokens: Callable[..., Tensor] | None, norm: Callable[[Tensor], Tensor]
) -> Callable[..., Tensor]:
    """Returns the forward of the last layer and the final norm, (1, T, D) → (B, 1, D) in fp32: what the head reads.

    Args:
        layer: the last layer.
        first_tokens: runs the layer for first tokens, which the head reads; None if it reads means over tokens.
        norm: the final norm.
    """
    own = layer.forward

    def forward(hidden: Tensor, *args: Any, packing: Packing, route: Route, **kwargs: Any) -> Tensor:
        if route.keep:
            route.hidden = hidden[0]
        if route.end is not None:
            return hidden[0, packing.starts][:, None].float()
        if first_tokens is None:
            every = norm(own(hidden, *args, packing=packing, route=route, **kwargs)[0].float())
            first, read = every[packing.starts], text_means(every, packing.lengths)
        else:
            first = read = norm(first_tokens(layer, hidden, packing, **kwargs)[0].float())
        if route.keep:
            route.first = first
        return read[:, None]

    return forward


def _bert(layer: Any, hidden: Tensor, packing: Packing, **_: Any) -> Tensor:
    """The last layer of BERT, and of models built like it, (1, T, D) → (1, B, D)."""
    attention, first = layer.attention.self, hidden[:, packing.starts]
    made = (attention.query(first), attention.key(hidden), attention.value(hidden))
    seen = _attended(*made, packing, attention.num_attention_heads, attention.scaling)
    out: Tensor = layer.feed_forward_chunk(layer.attention.output(seen, first))
    return out


def _albert(layer: Any, hidden: Tensor, packing: Packing, **_: Any) -> Tensor:
    """The last layer of ALBERT, (1, T, D) → (1, B, D).

    Its weights serve the layers before it too, where query, key and value of all tokens are one product. So they are
    here, and the queries of other tokens go.
    """
    attention, first = layer.attention, hidden[:, packing.starts]
    query, key, value = attention.query(hidden), attention.key(hidden), attention.value(hidden)
    seen = _attended(query[:, packing.starts], key, value, packing, attention.num_attention_heads, attention.scaling)
    seen = attention.LayerNorm(first + attention.output_dropout(attention.dense(seen)))
    out: Tensor = layer.full_layer_layer_norm(layer.ff_chunk(seen) + seen)
    return out


def _distilbert(layer: Any, hidden: Tensor, packing: Packing, **_: Any) -> Tensor:
    """The last layer of DistilBERT, (1, T, D) → (1, B, D)."""
    attention, first = layer.attention, hidden[:, packing.starts]
    made = (attention.q_lin(first), attention.k_lin(hidden), attention.v_lin(hidden))
    seen = attention.out_lin(_attended(*made, packing, attention.n_heads, attention.scaling))
    seen = layer.sa_layer_norm(seen + first)
    out: Tensor = layer.output_layer_norm(layer.ffn(seen) + seen)
    return out


def _modernbert(
    layer: Any, hidden: Tensor, packing: Packing, position_embeddings: tuple[Tensor, Tensor], **_: Any
) -> Tensor:
    """The last layer of ModernBERT, (1, T, D) → (1, B, D). One product makes queries, keys and values of all tokens."""
    from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

    attention = layer.attn
    made = attention.Wqkv(layer.attn_norm(hidden)).view(*hidden.shape[:2], 3, -1, attention.head_dim)
    query, key, value = (x.transpose(1, 2) for x in made.unbind(-3))
    query, key = apply_rotary_pos_emb(query, key, *position_embeddings, unsqueeze_dim=1)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    seen = attend(q[packing.starts], k, v, packing, attention.head_dim**-0.5, attention.sliding_window)
    seen = seen.flatten(1)[None]
    first = hidden[:, packing.starts] + attention.out_drop(attention.Wo(seen))
    out: Tensor = first + layer.mlp(layer.mlp_norm(first))
    return out


def _attended(query: Tensor, key: Tensor, value: Tensor, packing: Packing, heads: int, scale: float) -> Tensor:
    """Returns the attention output of the first tokens, (1, B, D).

    Args:
        query: (1, B, D) the first tokens' queries.
        key: (1, T, D) the keys of all tokens.
        value: (1, T, D) the values of all tokens.
        packing: where the texts are.
        heads: number of heads.
        scale: factor on the scores.
    """
    q, k, v = (x[0].view(x.shape[1], heads, -1) for x in (query, key, value))
    return attend(q, k, v, packing, scale).flatten(1)[None]


# Class of a classifier → whether it accepts our attention.
_ACCEPTING: dict[type, bool] = {}
# Architectures that take no attention; their modules run in other forwards.
_OWN_FORWARDS: dict[str, Any] = {"mpnet": mpnet, "deberta-v2": deberta}
# Architecture → the path of its layers, and its last layer on first tokens.
_FAMILIES: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "bert": ("encoder.layer", _bert),
    "roberta": ("encoder.layer", _bert),
    "xlm-roberta": ("encoder.layer", _bert),
    "camembert": ("encoder.layer", _bert),
    "data2vec-text": ("encoder.layer", _bert),
    "electra": ("encoder.layer", _bert),
    "ernie": ("encoder.layer", _bert),
    "albert": ("encoder.albert_layer_groups", _albert),
    "mpnet": ("encoder.layer", mpnet.first_tokens),
    "deberta-v2": ("encoder.layer", deberta.first_tokens),
    "distilbert": ("transformer.layer", _distilbert),
    "modernbert": ("layers", _modernbert),
}
