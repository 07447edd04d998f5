"""The fast engine: packed rows through transformers' encoders, and weights in the form that multiplies fastest.

Other rooms import only what is below. Reading order:

- `lora_linear`: the LoRA layer; `frozen`: frozen weights
- `packing`, `blocks`, `padding`: from texts to tensors
- `attention`, `gpu_attention`, `layers`: the way through the encoder; `mpnet`, `deberta`: theirs
- `int8_layer`: a layer in one function; `kernels/`: parts of the engine in C++; `merging`: updates added on a GPU
- `prefix`: frozen layers, run once; `graphs`: passes of a training on a GPU, recorded
- `weights`, `changes`: changes of the model for a while, by one thread at a time; dropout
- `execution`: a model that is ready to run
- `updates`, `heads`, `mixed`, `mixed_rows`: one encoder that runs many adapters
"""

from bertlora.model.engine.changes import evaluating, last_linear, owned, takes_token_types, unwrapped
from bertlora.model.engine.execution import (
    BATCH_SIZE,
    PASS_TOKENS,
    ROW_TOKENS,
    Execution,
    Features,
    executing,
    row_tokens,
    training_precision,
)
from bertlora.model.engine.heads import Head
from bertlora.model.engine.kernels import in_use as kernels_in_use
from bertlora.model.engine.kernels import native_int8
from bertlora.model.engine.layers import served
from bertlora.model.engine.lora_linear import LoraLinear
from bertlora.model.engine.mixed import MixedEncoder, mixes
from bertlora.model.engine.mixed_rows import mixed_logits
from bertlora.model.engine.packing import pooled
from bertlora.model.engine.padding import padded
from bertlora.model.engine.prefix import frozen_share
from bertlora.model.engine.updates import Update

__all__ = [
    "BATCH_SIZE",
    "PASS_TOKENS",
    "ROW_TOKENS",
    "Execution",
    "Features",
    "Head",
    "LoraLinear",
    "MixedEncoder",
    "Update",
    "evaluating",
    "executing",
    "frozen_share",
    "kernels_in_use",
    "last_linear",
    "mixed_logits",
    "mixes",
    "native_int8",
    "owned",
    "padded",
    "pooled",
    "row_tokens",
    "served",
    "takes_token_types",
    "training_precision",
    "unwrapped",
]
