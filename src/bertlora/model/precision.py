"""Which arithmetic is fast on this machine."""

import time
from functools import cache

import torch

from bertlora.errors import RecipeError

# A product of the size of a small encoder's layers: texts' tokens, hidden size, feed-forward size.
TOKENS, HIDDEN, WIDE = 1024, 384, 1536
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ROUNDS = 15
WORTH_IT = 1.5
# DeBERTa's first version fills its attention mask with fp32's least number.
FP32_ALONE = ("deberta",)


def choose_precision(wanted: str, architecture: str = "") -> str:
    """Returns `fp32` or `bf16`; `auto` gives bf16 where its products run at least 1.5 times as fast as fp32's.

    Args:
        wanted: `auto`, `fp32` or `bf16`.
        architecture: transformers' model type; one that cannot run in bf16 gets fp32.

    Raises:
        RecipeError: bf16 is wanted of an architecture that cannot run in it.
    """
    if wanted == "bf16" and architecture in FP32_ALONE:
        raise RecipeError(f"precision: got bf16, which transformers' {architecture} cannot run in; give fp32")
    if wanted != "auto":
        return wanted
    if architecture in FP32_ALONE:
        return "fp32"
    return "bf16" if speed("bf16") >= WORTH_IT * speed("fp32") else "fp32"


def speed(precision: str) -> float:
    """Returns the FLOP/s of a matrix product in this precision on the device in use."""
    return _speeds()[precision]


@cache
def _speeds() -> dict[str, float]:
    """Returns both precisions' best of many, taken in turn: on a busy machine one after the other would mislead."""
    device = default_device()
    best = dict.fromkeys(DTYPES, float("inf"))
    pairs = {
        name: (torch.randn(TOKENS, HIDDEN, device=device).to(dtype), torch.randn(HIDDEN, WIDE, device=device).to(dtype))
        for name, dtype in DTYPES.items()
    }
    for _ in range(ROUNDS):
        for name, (a, b) in pairs.items():
            began = time.perf_counter()
            torch.mm(a, b)
            if device.type == "cuda":
                torch.cuda.synchronize()
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: 2 * TOKENS * HIDDEN * WIDE / seconds for name, seconds in best.items()}


def default_device() -> torch.device:
    """Returns the first GPU that torch can use, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
