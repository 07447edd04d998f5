"""Where a classifier reads only the first token, its last layer need not compute the others after attention.

    context (B, T, D) ── product, norm, feed-forward, norm (B, T, D) ── first token (B, D)     before
    context (B, T, D) ── first token (B, D) ── product, norm, feed-forward, norm (B, D)        after

The results are the same; `model/engine/layers.py` does this for packed rows.
"""

from typing import Any

# Operators that work on each token for itself, and may lose the axis of tokens.
ROW_WISE = {"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Gelu", "Erf", "Relu", "Sigmoid", "Tanh"}
ROW_WISE |= {"LayerNormalization", "MatMul", "Split"}


def keep_first_token(onnx: Any, model: Any) -> int:
    """Moves the choice of the first token up, to just after the last layer's attention.

    Args:
        onnx: the package.
        model: the graph, which is changed. It stays as it is if it does not choose the first token.

    Returns:
        How many operators now work only on the first token.
    """
    graph = model.graph
    constants = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    chosen = next((node for node in graph.node if _chooses_first(onnx, graph, node)), None)
    if chosen is None:
        return 0
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info)
    }
    length = graph.input[0].type.tensor_type.shape.dim[1].dim_param
    moved = _movable(graph, chosen, constants)
    made = {name for node in moved for name in node.output}
    outside = sorted({name for node in moved for name in node.input} - made - {*constants, ""})
    if not moved or any(len(shapes.get(name, [])) != 3 or shapes[name][1] != length for name in outside):
        return 0
    firsts = {
        name: onnx.helper.make_node("Gather", [name, chosen.input[1]], [f"{name}_first"], f"first_{name}", axis=1)
        for name in outside
    }
    nodes: list[Any] = []
    for node in graph.node:
        if node in moved:
            nodes += [firsts.pop(name) for name in sorted(set(node.input) & firsts.keys())]
            _rename(node, {name: f"{name}_first" for name in outside})
            for attribute in node.attribute:
                if node.op_type == "Split" and attribute.name == "axis":
                    attribute.i = -1
        _rename(node, {chosen.output[0]: chosen.input[0]})
        nodes += [node] * (node is not chosen)
    known = [value for value in graph.value_info if value.name not in {*made, chosen.output[0]}]
    for part, new in ((graph.node, nodes), (graph.value_info, known)):
        del part[:]
        part.extend(new)
    return len(moved)


def _chooses_first(onnx: Any, graph: Any, node: Any) -> bool:
    """Returns whether a node chooses the first token of (B, T, D)."""
    if node.op_type != "Gather" or [a.i for a in node.attribute if a.name == "axis"] != [1]:
        return False
    index = next((tensor for tensor in graph.initializer if tensor.name == node.input[1]), None)
    return index is not None and not index.dims and onnx.numpy_helper.to_array(index).item() == 0


def _movable(graph: Any, chosen: Any, constants: dict[str, list[int]]) -> list[Any]:
    """Returns the row-wise nodes whose results go nowhere but, through one another, to the choice; in graph order."""
    readers: dict[str, list[Any]] = {one.name: [None] for one in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    moved: list[Any] = []
    for node in reversed(graph.node):
        read_by = [reader for name in node.output for reader in readers.get(name, [None])]
        if all(reader is chosen or reader in moved for reader in read_by) and _row_wise(node, constants):
            moved.insert(0, node)
    return moved


def _row_wise(node: Any, constants: dict[str, list[int]]) -> bool:
    """Returns whether a node does the same without the axis of tokens."""
    sizes = [len(constants[name]) for name in node.input if name in constants]
    axes = [a.i for a in node.attribute if a.name == "axis"]
    if node.op_type == "MatMul":
        return node.input[0] not in constants and sizes == [2]
    expected = {"LayerNormalization": [-1], "Split": [2]}.get(node.op_type, [])
    return node.op_type in ROW_WISE and axes == expected and all(size <= 1 for size in sizes)


def _rename(node: Any, names: dict[str, str]) -> None:
    """Gives a node's inputs their new names."""
    node.input[:] = [names.get(name, name) for name in node.input]
