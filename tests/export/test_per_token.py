"""int8 graphs: every token for itself, exact, and close to fp32."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_files import Exported, joined
from onnxruntime.quantization import quantize_dynamic

from bertlora.errors import RunError
from bertlora.export.onnx_graph import linear_layers
from bertlora.export.per_token import Counts, write_int8


@cache
def session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options)


def logits(one: Exported, file: Path, texts: list[np.ndarray], width: int = 0) -> np.ndarray:
    return session(file).run(["logits"], one.inputs(joined(texts, width, one.pad_id)))[0]


@pytest.mark.parametrize("architecture", ["bert", pytest.param("modernbert", marks=pytest.mark.slow)])
def test_batch_mates_padding_and_order_change_no_bit(
    architecture: str, exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    one = exported(architecture)

    @settings(max_examples=25, derandomize=True)
    @given(st.lists(st.integers(2, 100), min_size=1, max_size=12), st.integers(0, 128), st.integers(0, 10**6))
    def check(lengths: list[int], width: int, seed: int) -> None:
        texts = [one.text(length, seed + i) for i, length in enumerate(lengths)]
        alone = np.concatenate([logits(one, one.int8, [text]) for text in texts])
        order = np.random.default_rng(seed).permutation(len(texts))
        assert np.array_equal(logits(one, one.int8, [texts[i] for i in order], width), alone[order])

    check()
    # All linear layers that a text passes, except the last one.
    assert one.counts.quantised == linear_layers(one.model, one.types) - 1
    # The same check sees it in ONNX Runtime's own int8.
    quantize_dynamic(one.fp32, tmp_path / "theirs.onnx")
    texts = [one.text(length, length) for length in (3, 9, 40)]
    alone = logits(one, tmp_path / "theirs.onnx", texts[:1])
    assert not np.array_equal(logits(one, tmp_path / "theirs.onnx", texts)[:1], alone)


def test_answers_differ_from_fp32_by_less_than_a_tenth_of_their_spread(exported: Callable[[str], Exported]) -> None:
    one = exported("bert")
    texts = [one.text(2 + i % 90, i) for i in range(200)]
    exact, found = logits(one, one.fp32, texts), logits(one, one.int8, texts)
    assert np.sqrt(np.mean((found - exact) ** 2)) < 0.1 * np.std(exact - exact.mean(0))
    # Two layers of six products and the pooler; attention's four and the classifier stay.
    assert one.counts == Counts(13, 5)
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(one.int8).graph.initializer}
    weights = [value for name, value in kept.items() if name.startswith("int8_weight")]
    assert len(weights) == 13
    assert all(value.dtype == np.int8 and np.abs(value).max() == 63 for value in weights)
    assert one.int8.stat().st_size < 0.35 * one.fp32.stat().st_size


def graph(layers: list[np.ndarray], folder: Path) -> Path:
    """Returns a file with a row of matrix products, from x (B, T, D) to logits (B, T, K)."""
    names = ["x", *(f"y{i}" for i in range(len(layers) - 1)), "logits"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(len(layers))]
    shapes = ["B", "T", layers[0].shape[0]], ["B", "T", layers[-1].shape[1]]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in zip(("x", "logits"), shapes, strict=True)
    ]
    weights = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(layers)]
    made = helper.make_graph(nodes, "products", *ends, weights)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "fp32.onnx")
    return folder / "fp32.onnx"


def test_a_product_is_the_textbooks(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    first, last = (draws.normal(size=shape).astype(np.float32) for shape in ((40, 24), (24, 3)))
    x = draws.normal(size=(2, 5, 40)).astype(np.float32) * np.exp(draws.normal(size=(2, 5, 1)) * 3).astype(np.float32)
    x[1, 3] = 0  # its scale must not be 0
    assert write_int8(graph([first, last], tmp_path), tmp_path / "int8.onnx") == Counts(1, 1)
    by_token, by_channel = np.abs(x).max(-1, keepdims=True) / 127, np.abs(first).max(0) / 63
    whole = np.rint(x / np.maximum(by_token, 1e-12)) @ np.rint(first / by_channel)
    found = session(tmp_path / "int8.onnx").run(None, {"x": x})[0]
    assert np.allclose(found, whole * by_token * by_channel @ last, rtol=1e-4, atol=1e-5 * np.abs(found).max())
    assert not found[1, 3].any()


def test_a_graph_without_products_is_refused(tmp_path: Path) -> None:
    source = graph([np.ones((4, 3), dtype=np.float32)], tmp_path)
    model = onnx.load(source)
    model.graph.node[0].op_type = "Max"
    onnx.save(model, source)
    with pytest.raises(RunError, match="no matrix product with a constant weight"):
        write_int8(source, tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()
