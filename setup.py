"""Builds the native kernels of `src/bertlora/model/engine/kernels`, once for each kind of processor.

Without a compiler the package is installed all the same, and computes with torch's operators. The rest of the project's
description is in pyproject.toml.
"""

import platform
from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("src/bertlora/model/engine/kernels")
# By machine: the name of a library, and the instructions that the compiler may use for it.
INSTRUCTIONS = {
    "x86_64": {"avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"], "avx2": ["-march=x86-64-v3"]},
    "aarch64": {"neon": []},
    "arm64": {"neon": []},
}
# -fopenmp is not given to the linker: the library takes the OpenMP that torch has loaded, not a second one.
FLAGS = ["-O3", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fvisibility=hidden", "-g0"]

setup(
    ext_modules=[
        Extension(
            f"bertlora.model.engine.kernels.{name}",
            sources=sorted(map(str, FOLDER.glob("*.cpp"))),
            depends=sorted(map(str, FOLDER.glob("*.h"))),
            extra_compile_args=[*FLAGS, *flags],
            py_limited_api=True,
            optional=True,
        )
        for name, flags in INSTRUCTIONS.get(platform.machine(), {}).items()
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
