"""Forwards put in place of modules' own for a while."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def forwards(by_module: Mapping[Any, Callable[..., Tensor]]) -> Iterator[None]:
    """Inside, these modules run the given forwards; afterwards their class's own again."""
    try:
        for module, forward in by_module.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module in by_module:
            vars(module).pop("forward", None)


def as_it_came(x: Tensor) -> Tensor:
    """Returns x: the forward of a module that is to do nothing."""
    return x
