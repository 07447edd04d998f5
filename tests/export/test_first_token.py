"""Only the first token, where nothing else is read: the same results from fewer operations."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bertlora.export.first_token import keep_first_token

WEIGHT = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)


def graph(token: int, mean: bool) -> onnx.ModelProto:
    """Returns a graph that reads one token of tanh(x) W + tanh(x), and with `mean` also the mean of tanh(x) W."""
    parts = [
        ("Tanh", ["x"], "a", {}),
        ("MatMul", ["a", "w"], "b", {}),
        ("Add", ["b", "a"], "c", {}),
        ("Gather", ["c", "token"], "d", {"axis": 1}),
        ("ReduceMean", ["b", "axes"], "e", {"keepdims": 0}),
        ("Add" if mean else "Max", ["d", "e"] if mean else ["d"], "logits", {}),
    ]
    nodes = [helper.make_node(kind, inputs, [to], **keys) for kind, inputs, to, keys in parts if mean or to != "e"]
    constants = {"w": WEIGHT, "token": np.array(token), "axes": np.array([1])}
    made = helper.make_graph(
        nodes,
        "tokens",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return onnx.shape_inference.infer_shapes(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    )


@pytest.mark.parametrize(("token", "mean", "moved"), [(0, False, 3), (0, True, 1), (1, False, 0)])
def test_only_what_leads_nowhere_else_moves(token: int, mean: bool, moved: int) -> None:
    x = np.random.default_rng(1).normal(size=(3, 5, 4)).astype(np.float32)
    model = graph(token, mean)
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    assert keep_first_token(onnx, model) == moved
    onnx.checker.check_model(model, full_check=True)
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    assert np.allclose(after, before, atol=1e-6)
    assert keep_first_token(onnx, model) == 0
