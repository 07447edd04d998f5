"""Tensors of the Open Inference Protocol: texts that come in, and columns that go out, in JSON or in bytes.

Its binary extension puts the bytes of all tensors behind the JSON. A text in them is its length, four bytes, the lowest
first, and then the text in UTF-8.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.serving.refused import RequestError, Why

# Our types of columns, as numpy has them; texts are objects.
DATATYPES = {"O": "BYTES", "f": "FP64", "b": "BOOL"}


@dataclass(frozen=True)
class Tail:
    """The bytes behind the JSON of a request, tensor after tensor."""

    content: memoryview

    def cut(self, sizes: Sequence[int]) -> list[memoryview]:
        """Returns the bytes of each tensor.

        Raises:
            RequestError: there are more or fewer bytes than the tensors say.
        """
        if sum(sizes) != len(self.content):
            message = f"binary_data_size: the inputs name {sum(sizes):,} bytes, and {len(self.content):,} came"
            raise RequestError(Why.INVALID, f"{message}; expected as many")
        ends = np.cumsum([0, *sizes]).tolist()
        return [self.content[start:end] for start, end in pairwise(ends)]


def texts_of_bytes(name: str, content: memoryview) -> list[str]:
    """Returns the texts of a tensor.

    Raises:
        RequestError: the bytes are not texts.
    """
    try:
        return [bytes(part).decode() for part in _parts(content)]
    except (struct.error, ValueError):
        message = f"inputs '{name}': expected texts in UTF-8, each behind its length in four bytes"
        raise RequestError(Why.INVALID, message) from None


def _parts(content: memoryview) -> Iterator[memoryview]:
    place = 0
    while place < len(content):
        (size,) = struct.unpack_from("<I", content, place)
        place += 4 + size
        if place > len(content):
            raise ValueError("a text is longer than what is left")
        yield content[place - size : place]


def texts_of_json(name: str, data: Any) -> list[str]:
    """Returns the texts of a tensor: a list, or nested lists.

    Raises:
        RequestError: it has something other than strings.
    """
    found: list[str] = []
    rows = data if isinstance(data, list) else [data]
    for row in rows:
        parts = row if isinstance(row, list) else [row]
        if not all(isinstance(part, str) for part in parts):
            raise RequestError(Why.INVALID, f"inputs '{name}': expected 'data' to be a list of strings")
        found += parts
    return found


def check_shape(name: str, shape: Sequence[int], count: int) -> None:
    """Raises RequestError if a tensor with this number of texts does not have this shape, (N,) or (N, 1)."""
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1) or math.prod(shape) != count:
        message = f"inputs '{name}': got {count:,} texts and another shape; expected [{count}] or [{count}, 1]"
        raise RequestError(Why.INVALID, message)


@dataclass(frozen=True)
class Column:
    """A tensor of an answer.

    Attributes:
        name: its name.
        values: (N, ...) objects for texts, float64 or bool.
    """

    name: str
    values: npt.NDArray[Any]

    @property
    def facts(self) -> dict[str, Any]:
        """What the answer says of the tensor besides its data."""
        return {"name": self.name, "datatype": DATATYPES[self.values.dtype.kind], "shape": list(self.values.shape)}

    def to_json(self) -> dict[str, Any]:
        """Returns the tensor in JSON."""
        return self.facts | {"data": self.values.ravel().tolist()}

    def to_bytes(self) -> bytes:
        """Returns the data of the tensor, the lowest byte first."""
        if self.values.dtype.kind != "O":
            return np.asarray(self.values, self.values.dtype.newbyteorder("<")).tobytes()
        texts = [str(text).encode() for text in self.values.ravel()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
