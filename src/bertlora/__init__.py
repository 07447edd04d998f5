"""bertlora: texts and labels in, a LoRA classifier or regressor on a small BERT out, evaluated honestly.

The names below are imported when they are first used, so that `import bertlora` loads no torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bertlora.errors import BertloraError
from bertlora.recipe import Recipe

if TYPE_CHECKING:
    from bertlora.classifier import LoraClassifier
    from bertlora.client.client import Client
    from bertlora.multilabel import LoraMultilabelClassifier
    from bertlora.pipeline.audit import audit
    from bertlora.pipeline.compare import compare
    from bertlora.pipeline.evaluate import evaluate
    from bertlora.pipeline.plan import plan
    from bertlora.pipeline.prepare import prepare
    from bertlora.pipeline.report import report
    from bertlora.pipeline.train import train
    from bertlora.regressor import LoraRegressor
    from bertlora.run.loaded import Run

    __version__: str

__all__ = [
    "BertloraError",
    "Client",
    "LoraClassifier",
    "LoraMultilabelClassifier",
    "LoraRegressor",
    "Recipe",
    "Run",
    "__version__",
    "audit",
    "compare",
    "evaluate",
    "plan",
    "prepare",
    "report",
    "train",
]

# A thread of torch that waits for another one spins up to 300,000 times before it sleeps (libgomp). With a
# second process on the same cores, the threads spin while those they wait for have no core: two trainings took up to
# eight times as long as one. With 2,000 turns they take less than twice as long; with 1,000, where libgomp knows that
# cores are short, a single one loses a quarter. The results are the same. libgomp reads this when torch is imported.
# See docs/scale.md.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

_VERBS = ("audit", "compare", "evaluate", "plan", "prepare", "report", "train")
_HOMES = {"LoraClassifier": "bertlora.classifier", "LoraRegressor": "bertlora.regressor"}
_HOMES |= {"LoraMultilabelClassifier": "bertlora.multilabel"}
_HOMES |= {"Client": "bertlora.client.client", "Run": "bertlora.run.loaded"}
_HOMES |= {verb: f"bertlora.pipeline.{verb}" for verb in _VERBS}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # takes as long as all other imports of this module

        return version("bertlora")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bertlora' has no attribute {name!r}")
