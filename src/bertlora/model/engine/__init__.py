"""The fast engine: packed rows through transformers' encoders, and weights in the form that multiplies fastest.

Other rooms import only what is below. Reading order:

- `lora_linear`: the LoRA layer; `frozen`: frozen weights
- `packing`, `blocks`: from texts to tensors
- `attention`, `layers`: the way through the encoder
- `prefix`: frozen layers, run once
- `weights`, `changes`: changes of the model for a while, by one thread at a time; dropout
- `execution`: a model that is ready to run
"""

from bertlora.model.engine.changes import evaluating, last_linear, owned, unwrapped
from bertlora.model.engine.execution import BATCH_SIZE, ROW_TOKENS, Execution, executing
from bertlora.model.engine.lora_linear import LoraLinear
from bertlora.model.engine.packing import padded, pooled, takes_token_types
from bertlora.model.engine.prefix import frozen_share

__all__ = [
    "BATCH_SIZE",
    "ROW_TOKENS",
    "Execution",
    "LoraLinear",
    "evaluating",
    "executing",
    "frozen_share",
    "last_linear",
    "owned",
    "padded",
    "pooled",
    "takes_token_types",
    "unwrapped",
]
