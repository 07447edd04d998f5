"""Runners of exported graphs: the engine's logits, and one line for a file that they cannot run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import PAIRS, TEXTS
from onnx_files import Exported

from bertlora.data.reader import Reader
from bertlora.errors import InputError, RunError
from bertlora.export.runtime import onnx_runner, openvino_runner

RUNNERS = [onnx_runner, openvino_runner]


@pytest.mark.parametrize("load", RUNNERS)
def test_a_graph_gives_the_engines_logits(load: Callable[..., object], exported: Callable[[str], Exported]) -> None:
    one = exported("bert")
    runner, tokenizer = load(one.fp32, one.pad_id), one.adapted.reader.tokenizer
    many = [f"{text} {i}" for i, text in enumerate(TEXTS * 40)]  # more than one batch
    for pairs, keys in ((None, {}), (PAIRS * 40, {}), (None, {"max_length": 12, "long_texts": "windows"})):
        inputs = Reader.of(tokenizer, **({"max_length": 64, "truncation": "right"} | keys)).read(many, pairs)
        expected = one.adapted.logits(inputs)
        found = runner.logits(inputs, precision=runner.choose_precision("fp32"))
        assert np.allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert runner.logits(inputs.take([])).shape[0] == 0
    with pytest.raises(InputError, match="precision: got bf32, but this export runs only in fp32"):
        runner.choose_precision("bf32")


@pytest.mark.parametrize("load", RUNNERS)
def test_a_file_that_cannot_run_is_one_line(
    load: Callable[..., object], exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    one = exported("bert")
    model = onnx.load(one.fp32)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "scores"
    onnx.save(model, tmp_path / "foreign.onnx")
    (tmp_path / "damaged.onnx").write_bytes(one.fp32.read_bytes()[:-100_000])
    for name in ("missing", "damaged", "foreign"):
        with pytest.raises(RunError, match=rf"^{tmp_path / name}\.onnx: [^\n]*$"):
            load(tmp_path / f"{name}.onnx", 0)
    # The tiny model has 512 positions.
    long = Reader.of(one.adapted.reader.tokenizer, 600, "right").read(["a " * 700])
    with pytest.raises(RunError, match=r"^[^\n]*(cannot run it|gives 0 answers to 1 text)[^\n]*$"):
        load(one.fp32, one.pad_id).logits(long)


def test_an_opset_of_the_future_is_one_line(exported: Callable[[str], Exported], tmp_path: Path) -> None:
    model = onnx.load(exported("bert").fp32)
    model.opset_import[0].version = 99
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(RunError, match=r"^[^\n]*opset[^\n]*install a newer ONNX Runtime, or export again$"):
        onnx_runner(tmp_path / "model.onnx", 0)
