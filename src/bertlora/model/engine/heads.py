"""Heads on their own: from the encoder's vector for each text to the logits, for every architecture that is mixed.

transformers' classifier has one head. Adapters on a shared encoder have one each, as copies of its modules.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bertlora.model.engine.changes import unwrapped


@dataclass(frozen=True)
class Head:
    """The modules of one head, without dropout.

    Attributes:
        kind: the architecture.
        modules: name in the classifier → module, in the order in which they run.
    """

    kind: str
    modules: dict[str, nn.Module]

    @staticmethod
    def known(model: Any) -> bool:
        """Returns whether the head of this classifier can be taken."""
        return unwrapped(model).config.model_type in _FAMILIES

    @classmethod
    def of(cls, model: Any) -> "Head":
        """Returns the head of a classifier; they share the modules."""
        inner = unwrapped(model)
        names = [name.format(inner.base_model_prefix) for name in _FAMILIES[inner.config.model_type][0]]
        return cls(inner.config.model_type, {name: inner.get_submodule(name) for name in names})

    def parameters(self) -> dict[str, nn.Parameter]:
        """Returns the parameters by their names in the classifier; the last linear layer's come last."""
        return {f"{at}.{name}": p for at, module in self.modules.items() for name, p in module.named_parameters()}

    @property
    def classes(self) -> int:
        """K, the number of its logits."""
        return list(self.parameters().values())[-1].shape[0]

    def replaced(self, values: Mapping[str, Tensor]) -> "Head":
        """Returns a copy with these values by name; it shares all other parameters with this head."""
        new = {
            id(parameter): nn.Parameter(values[name], requires_grad=False) if name in values else parameter
            for name, parameter in self.parameters().items()
        }
        return Head(self.kind, {name: copy.deepcopy(module, dict(new)) for name, module in self.modules.items()})

    def logits(self, vectors: Tensor) -> Tensor:
        """Returns the logits, (B, K), of the encoder's vectors, (B, D): a text's first token, or its tokens' mean."""
        found: Tensor = _FAMILIES[self.kind][1](*self.modules.values(), vectors)
        return found


def _bert(pooler: nn.Module, classifier: nn.Module, vectors: Tensor) -> Tensor:
    logits: Tensor = classifier(pooler(vectors[:, None]))
    return logits


def _roberta(classifier: nn.Module, vectors: Tensor) -> Tensor:
    logits: Tensor = classifier(vectors[:, None])
    return logits


def _distilbert(pre_classifier: nn.Module, classifier: nn.Module, vectors: Tensor) -> Tensor:
    logits: Tensor = classifier(pre_classifier(vectors).relu())
    return logits


def _albert(pooler: nn.Module, classifier: nn.Module, vectors: Tensor) -> Tensor:
    logits: Tensor = classifier(pooler(vectors).tanh())
    return logits


def _modernbert(head: nn.Module, classifier: nn.Module, vectors: Tensor) -> Tensor:
    logits: Tensor = classifier(head(vectors))
    return logits


# Architecture → the modules of its head ({} is the encoder's name), and how they run.
_FAMILIES: dict[str, tuple[tuple[str, ...], Callable[..., Tensor]]] = {
    "bert": (("{}.pooler", "classifier"), _bert),
    "roberta": (("classifier",), _roberta),
    "xlm-roberta": (("classifier",), _roberta),
    "camembert": (("classifier",), _roberta),
    "data2vec-text": (("classifier",), _roberta),
    "electra": (("classifier",), _roberta),
    "mpnet": (("classifier",), _roberta),
    "ernie": (("{}.pooler", "classifier"), _bert),
    "albert": (("{}.pooler", "classifier"), _albert),
    "distilbert": (("pre_classifier", "classifier"), _distilbert),
    "modernbert": (("head", "classifier"), _modernbert),
}
