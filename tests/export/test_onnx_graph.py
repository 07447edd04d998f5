"""ONNX files: transformers' logits for any shape, without a word, or one line of error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx_files import Exported

from bertlora.errors import ModelError
from bertlora.export import onnx_graph
from bertlora.export.onnx_graph import write_onnx

# ELECTRA, MPNet and both DeBERTas pass too, but torch takes half a minute for each.
OTHERS = ["distilbert", "roberta", "modernbert"]


@pytest.mark.parametrize("architecture", ["bert", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_a_file_gives_transformers_logits_for_any_shape(architecture: str, exported: Callable[[str], Exported]) -> None:
    one = exported(architecture)
    session = onnxruntime.InferenceSession(one.fp32)
    for lengths in ([1], [512], [33, 5, 33, 1, 20, 2, 9]):
        batch = one.inputs(one.batch(lengths))
        with torch.inference_mode():
            expected = one.model(**{name: torch.from_numpy(x) for name, x in batch.items()}).logits.numpy()
        assert np.ptp(expected) > 1e-3
        assert np.allclose(session.run(["logits"], batch)[0], expected, atol=1e-5 * np.abs(expected).max())
    assert len(list(one.fp32.parent.iterdir())) == 2  # no data outside the files
    # The last layer reads the first token of attention's result and of its own input.
    assert sum(node.name.startswith("first_") for node in onnx.load(one.fp32).graph.node) == 2


def test_what_cannot_be_written_is_one_line(
    exported: Callable[[str], Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        print("much advice")
        raise RuntimeError("Failed.\nAdvice") from ValueError("aten::odd is unknown\nmore")

    model = exported("bert").model
    capfd.readouterr()
    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ModelError, match=r"this bert model to ONNX \(aten::odd is unknown\)$"):
        write_onnx(model, True, tmp_path / "model.onnx")
    monkeypatch.setattr(onnx_graph, "MOST_BYTES", 1000)
    with pytest.raises(ModelError, match=r"does not fit one ONNX file"):
        write_onnx(model, True, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
