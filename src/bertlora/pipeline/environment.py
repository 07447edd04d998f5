"""The verb env: what a bug report should say about the machine."""

import os
import platform
from typing import Any

import torch

from bertlora.model.engine import kernels_in_use, native_int8
from bertlora.model.machine import choose_precision, default_device, speed
from bertlora.run.manifest import versions


def environment() -> dict[str, Any]:
    """Returns versions of Python and the libraries, device, threads, and the measured speed of each precision."""
    return versions() | {
        "platform": platform.platform(),
        "device": str(default_device()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels_in_use(),
        "int8": "native" if native_int8() else "slow",
        "fp32_gflops": round(speed("fp32") / 1e9),
        "bf16_gflops": round(speed("bf16") / 1e9),
        "precision": choose_precision("auto"),
        "offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
    }
