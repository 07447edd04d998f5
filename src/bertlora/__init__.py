"""bertlora: texts and labels in, a LoRA classifier on a small BERT out, judged honestly.

The names below are imported when they are first used, so that `import bertlora` loads no torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bertlora.errors import BertloraError
from bertlora.recipe import Recipe

if TYPE_CHECKING:
    from bertlora.classifier import LoraClassifier
    from bertlora.run import Run

__all__ = ["BertloraError", "LoraClassifier", "Recipe", "Run", "__version__"]
__version__ = version("bertlora")

_HOMES = {"LoraClassifier": "bertlora.classifier", "Run": "bertlora.run"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bertlora' has no attribute {name!r}")
