"""A graph in int8: each output channel of a weight and each token of an activation has a scale of its own.

    x (B, T, D) ── one scale for each token ── uint8 (B T, D) ─┐
                                                               MatMulInteger ── · weight scale · token scale ── + bias
    W (D, M) ──── one scale for each column ── int8 (D, M) ────┘

A token's scale depends only on this token, and sums of whole numbers are exact. Thus a text's answer does not depend
on the other texts of a batch, on their order or on padding. ONNX Runtime's own dynamic quantisation has one scale for a
whole batch.

All operators are standard ONNX. Letters: B texts, T tokens, D inputs, M outputs, V words.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bertlora.errors import RunError
from bertlora.export.extras import extra

# Activations are uint8 around 128, weights at most 63 in size. CPUs without VNNI add two products in 16 bits, where
# 2 * 255 * 63 still fits; 2 * 255 * 127 does not.
ZERO_POINT, LARGEST_ACTIVATION, LARGEST_WEIGHT = 128, 127, 63
# A token of zeros has a scale too.
LEAST_SCALE = 1e-12
# Tables of embeddings with fewer values than this stay in fp32.
LARGE_TABLE = 500_000


@dataclass(frozen=True)
class Counts:
    """How many matrix products of a graph were quantised, and how many were left: attention's and the classifier's."""

    quantised: int
    left: int


def write_int8(source: Path, file: Path, largest_weight: int = LARGEST_WEIGHT) -> Counts:
    """Writes an fp32 graph, as `write_onnx` makes it, as an int8 graph with the same inputs and outputs.

    Products with a constant weight and large tables of embeddings become int8. The classifier's product stays in fp32,
    in a form in which the number of texts does not change the order of its sums.

    Args:
        source: the fp32 ONNX file.
        file: the ONNX file to write.
        largest_weight: weights are whole numbers from its negative to it.

    Returns:
        The counts of matrix products.

    Raises:
        InputError: the extra `onnx` is not installed.
        RunError: the graph has no product with a constant weight.
    """
    (onnx,) = extra("onnx", "onnx")
    model = onnx.load(str(source))
    rewriting = _Rewriting(onnx, model.graph, largest_weight)
    products = [node for node in model.graph.node if rewriting.weight_of(node) is not None]
    if not products:
        raise RunError(f"{source}: has no matrix product with a constant weight; nothing to quantise")
    for node in list(model.graph.node):
        if node is products[-1]:
            rewriting.classifier(node)
        elif node in products:
            rewriting.product(node)
        elif rewriting.large_table(node):
            rewriting.table(node)
        else:
            rewriting.nodes.append(node)
    rewriting.finish()
    onnx.save(model, str(file))
    every = sum(node.op_type in ("MatMul", "Gemm") for node in model.graph.node)
    return Counts(len(products) - 1, every)


@dataclass
class _Rewriting:
    """The nodes of the new graph, as they are written.

    Attributes:
        onnx: the package.
        graph: the graph.
        largest: the largest int8 weight.
        nodes: the new graph's nodes so far.
        constants: its weights so far.
        quantised: for an activation the names of its uint8 values, its scales, and its leading sizes.
        one: name of a number that is 1.
    """

    onnx: Any
    graph: Any
    largest: int
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    quantised: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    one: str = ""

    def __post_init__(self) -> None:
        self.given = {tensor.name: tensor for tensor in self.graph.initializer}
        self.transposed = {
            node.output[0]: node.input[0]
            for node in self.graph.node
            if node.op_type == "Transpose" and node.input[0] in self.given
        }

    def weight_of(self, node: Any) -> npt.NDArray[np.float32] | None:
        """Returns the constant weight (D, M) of a product of an activation; None for any other node."""
        if node.op_type not in ("MatMul", "Gemm") or node.input[0] in self.given:
            return None
        name, turned = node.input[1], node.op_type == "Gemm" and _attribute(node, "transB", 0) == 1
        if name in self.transposed:
            name, turned = self.transposed[name], not turned
        if name not in self.given or len(self.given[name].dims) != 2:
            return None
        weight: npt.NDArray[np.float32] = self.onnx.numpy_helper.to_array(self.given[name])
        return weight.T if turned else weight

    def large_table(self, node: Any) -> bool:
        """Returns whether a node looks words up in a large table."""
        table = self.given.get(node.input[0]) if node.op_type == "Gather" else None
        return table is not None and len(table.dims) == 2 and np.prod(table.dims) >= LARGE_TABLE

    def product(self, node: Any) -> None:
        """Writes a product in int8."""
        weight = self.weight_of(node)
        assert weight is not None
        values, scales = _rounded(weight, self.largest, axis=0)
        whole, token_scales, leading = self._activation(node.input[0], weight.shape[0])
        total = self._add("MatMulInteger", whole, self._constant("weight", values), self._zero_point())
        total = self._add("Cast", total, to=self.onnx.TensorProto.FLOAT)
        # In this form ONNX Runtime multiplies by the weight's scales inside the integer product (MatMulIntegerToFloat).
        channel_scales = self._add("Mul", self._one(), self._constant("scales", scales[0]))
        total = self._add("Mul", self._add("Mul", total, channel_scales), token_scales)
        size = self._add("Concat", leading, self._constant("size", np.array([weight.shape[1]])), axis=0)
        self._end(node, "Reshape", total, size)

    def classifier(self, node: Any) -> None:
        """Writes the last product as one product for each text, W (K, D) x (D, 1)."""
        weight = self.weight_of(node)
        assert weight is not None
        last = self._constant("last", np.array([-1]))
        column = self._add("Unsqueeze", node.input[0], last)
        column = self._add("MatMul", self._constant("classifier", np.ascontiguousarray(weight.T)), column)
        self._end(node, "Squeeze", column, last)

    def table(self, node: Any) -> None:
        """Writes a table of embeddings (V, D) in int8, one scale for each word."""
        values, scales = _rounded(
            self.onnx.numpy_helper.to_array(self.given[node.input[0]]), LARGEST_ACTIVATION, axis=1
        )
        found = self._add("Gather", self._constant("table", values), node.input[1], axis=0)
        found = self._add("Cast", found, to=self.onnx.TensorProto.FLOAT)
        scale = self._add("Gather", self._constant("scales", scales), node.input[1], axis=0)
        self._add("Mul", found, scale, to_name=node.output[0])

    def finish(self) -> None:
        """Puts the new nodes and weights into the graph, without the weights that nothing reads any more."""
        used = {name for node in self.nodes for name in node.input}
        self.nodes = [node for node in self.nodes if node.output[0] not in self.transposed or node.output[0] in used]
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        kept += [self.onnx.numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        for part, new in ((self.graph.initializer, kept), (self.graph.node, self.nodes)):
            del part[:]
            part.extend(new)

    def _activation(self, name: str, width: int) -> tuple[str, str, str]:
        """Returns the names of an activation's uint8 values (B T, D), its scales (B T, 1) and its leading sizes.

        They are computed once, if several products read it.
        """
        if name in self.quantised:
            return self.quantised[name]
        flat = self._add("Reshape", name, self._constant("flat", np.array([-1, width])))
        largest = self._add("ReduceMax", self._add("Abs", flat), self._constant("axis", np.array([1])), keepdims=1)
        step = self._constant("step", np.float32(1 / LARGEST_ACTIVATION))
        scales = self._add("Max", self._add("Mul", largest, step), self._constant("least", np.float32(LEAST_SCALE)))
        row = self._add("Reshape", scales, self._constant("row", np.array([-1])))
        zeros = self._add("Expand", self._zero_point(), self._add("Shape", row))
        whole = self._add("QuantizeLinear", flat, row, zeros, axis=0)
        self.quantised[name] = whole, scales, self._add("Shape", name, end=-1)
        return self.quantised[name]

    def _one(self) -> str:
        """Returns the name of a number that is 1, unless there is no text. Constants would be multiplied in advance."""
        if not self.one:
            texts = self._add("Shape", self.graph.input[0].name, start=0, end=1)
            one = self._add("Min", texts, self._constant("one", np.array([1])))
            self.one = self._add("Cast", one, to=self.onnx.TensorProto.FLOAT)
        return self.one

    def _end(self, node: Any, operator: str, *inputs: str) -> None:
        """Writes the last node of a product, and the bias that a Gemm adds."""
        bias = list(node.input[2:])
        result = self._add(operator, *inputs, to_name=None if bias else node.output[0])
        if bias:
            self._add("Add", result, *bias, to_name=node.output[0])

    def _zero_point(self) -> str:
        return self._constant("zero_point", np.uint8(ZERO_POINT))

    def _constant(self, kind: str, value: Any) -> str:
        """Returns the name of a constant."""
        name = f"int8_{kind}_{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def _add(self, operator: str, *inputs: str, to_name: str | None = None, **attributes: Any) -> str:
        """Writes a node and returns the name of its output."""
        output = to_name or f"int8_{operator}_{len(self.nodes)}"
        self.nodes.append(
            self.onnx.helper.make_node(operator, list(inputs), [output], name=f"node_{output}", **attributes)
        )
        return output


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(one.i) for one in node.attribute if one.name == name), default)


def _rounded(
    values: npt.NDArray[np.float32], largest: int, axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Returns whole numbers from `-largest` to `largest`, and the scales that give the values back, along `axis`."""
    scales = np.maximum(np.abs(values).max(axis, keepdims=True) / largest, LEAST_SCALE).astype(np.float32)
    return np.rint(values / scales).astype(np.int8), scales
