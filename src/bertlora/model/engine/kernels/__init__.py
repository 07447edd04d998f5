"""Native kernels: what a step does most, in C++, if they were built for this processor.

They are built when the package is installed, if there is a compiler; see `setup.py`. A library needs no headers of
torch or Python, so one build serves every version of both. Its threads are torch's own: the library names no OpenMP, so
the loader takes the one that torch has loaded. Where no library serves, torch's operators compute the same, slower.
`BERTLORA_KERNELS=off` turns the kernels off.

- `library`: finds it and calls it
- `low_rank`, `int8`, `layer` and `dropout` call the C++ of the same name
- the engine's `attention` calls `attention.cpp`, which takes `paired_attention.h` where 16 bits will do
"""

from bertlora.model.engine.kernels.library import in_use, native_int8, serves

__all__ = ["in_use", "native_int8", "serves"]
