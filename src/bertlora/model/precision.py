"""Which arithmetic is fast on this machine."""

import time
from functools import cache

import torch

from bertlora.errors import RecipeError

# A product of the size of a small encoder's layers: texts' tokens, hidden size, feed-forward size.
TOKENS, HIDDEN, WIDE = 1024, 384, 1536
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


@cache
def speed(precision: str) -> float:
    """Returns the FLOP/s of a matrix product in this precision on the device in use, the best of five."""
    device = default_device()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(TOKENS, HIDDEN, device=device).to(dtype)
    b = torch.randn(HIDDEN, WIDE, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        c = a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    assert c.shape == (TOKENS, WIDE)
    return 2 * TOKENS * HIDDEN * WIDE / best


def default_device() -> torch.device:
    """Returns the first GPU that torch can use, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
