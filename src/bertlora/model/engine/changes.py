"""Changes of a model that last as long as a block, by one owner at a time.

Making a model ready to run changes its weights and forwards in place. While one thread owns a model, other threads wait
for it. All changes are undone before the next owner starts. Dropout, the last of them, draws its masks faster than
torch.
"""

import inspect
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from bertlora.errors import InUseError
from bertlora.model.base import quiet
from bertlora.model.engine import kernels
from bertlora.model.engine.kernels.dropout import drawn_mask


class _Lock:
    """A lock that knows which thread holds it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: int | None = None


_LOCKS: WeakKeyDictionary[Any, _Lock] = WeakKeyDictionary()
_TABLE = threading.Lock()


@contextmanager
def owned(model: Any) -> Iterator[None]:
    """Inside, no other thread runs or changes `model`, with or without PEFT's wrapper.

    Raises:
        InUseError: this thread owns the model already, for example because it trains or holds it ready.
    """
    with _TABLE:
        held = _LOCKS.setdefault(unwrapped(model), _Lock())
    if held.thread == threading.get_ident():
        raise InUseError(
            "this thread already uses the model: it trains it or holds it ready in another precision; finish that first"
        )
    with held.lock:
        held.thread = threading.get_ident()
        try:
            yield
        finally:
            held.thread = None


class Turns:
    """A lock that threads get in the order in which they asked for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, there is no other thread."""
        me = object()
        with self._changed:
            self._queue.append(me)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._queue[0] is me)
            yield
        finally:  # also if something interrupted the wait
            with self._changed:
                self._queue.remove(me)
                self._changed.notify_all()


def unwrapped(model: Any) -> Any:
    """Returns the transformers classifier itself, below PEFT's wrapper if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def takes_token_types(model: nn.Module) -> bool:
    """Returns whether the model tells the two texts of a pair apart by token types."""
    inner = unwrapped(model)
    known = "token_type_ids" in inspect.signature(type(inner).forward).parameters
    return known and getattr(inner.config, "type_vocab_size", 0) > 1


@contextmanager
def forwards(by_module: Mapping[Any, Callable[..., Tensor]]) -> Iterator[None]:
    """Inside, these modules run the given forwards; afterwards, their class's own."""
    try:
        for module, forward in by_module.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module in by_module:
            vars(module).pop("forward", None)


def identity(x: Tensor) -> Tensor:
    """Returns x: the forward of a module that does nothing."""
    return x


@contextmanager
def base_alone(model: Any, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, PEFT's `model` is the base with its untrained head, and these parameters have the base's `values`."""
    parameters = {name: value for name, value in model.named_parameters() if name in values}
    trained = {name: value.detach().clone() for name, value in parameters.items()}
    try:
        _set(parameters, values)
        with ExitStack() as stack:
            with quiet():  # PEFT warns that trained biases stay; `values` covers them
                stack.enter_context(model.disable_adapter())
            yield
    finally:
        _set(parameters, trained)


def _set(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


@contextmanager
def headless(model: Any) -> Iterator[None]:
    """Inside, the model returns the input of its head's last linear layer, (B, H), instead of logits."""
    heads = (last_linear(model, part) for part in ("original_module", "modules_to_save"))
    with forwards(dict.fromkeys(heads, identity)):
        yield


def last_linear(model: Any, part: str) -> nn.Linear:
    """Returns the head's last linear layer: of `modules_to_save` (PEFT's trained copy) or `original_module`."""
    heads = [m for name, m in unwrapped(model).named_modules() if isinstance(m, nn.Linear) and part in name.split(".")]
    return heads[-1]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, dropout is off. Afterwards the model is in its previous mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def quick_dropout(model: nn.Module, still: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Inside, the model's dropout layers use `dropout_mask`; those in `still` drop nothing."""
    off = set(still)
    layers = [m for m in model.modules() if type(m) is nn.Dropout and m.p > 0]
    with forwards({layer: identity if layer in off else partial(_dropped, layer) for layer in layers}):
        yield


def drop_rate(layer: nn.Dropout) -> float:
    """Returns the probability with which a layer drops a number now."""
    return float(layer.p) if layer.training and vars(layer).get("forward") is not identity else 0.0


def _dropped(layer: nn.Dropout, x: Tensor) -> Tensor:
    return x * dropout_mask(x, layer.p) if layer.training else x


def dropout_mask(like: Tensor, p: float) -> Tensor:
    """Returns a mask shaped like `like`: 0 with probability p for each number, else 1 / (1 - p), so that the mean is 1.

    On a CPU torch draws one random number for each place, on one core. The native kernel hashes the places' numbers on
    all of them. Without it, this draws the gaps between dropped places, which follow the geometric distribution: a
    hundredth as many numbers for p = 0.01. A GPU draws for each place quickly, and the program would have to wait for
    the number of gaps that fit.
    """
    if like.is_cuda:
        return torch.empty_like(like).bernoulli_(1 - p).div_(1 - p)
    if kernels.serves(like):
        return drawn_mask(like, p)
    count = like.numel()
    mask = like.new_full((count,), 1 / (1 - p))
    # Enough, except one time in a billion.
    drawn = int(count * p + 6 * math.sqrt(count * p) + 10)
    places = torch.empty(drawn, dtype=torch.int64, device=like.device).geometric_(p).cumsum(0) - 1
    mask[places[places < count]] = 0
    return mask.view(like.shape)
