"""A classifier as one ONNX file, by torch's own exporter."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bertlora.errors import ModelError, first_line
from bertlora.export.extras import extra
from bertlora.export.first_token import keep_first_token
from bertlora.model.base import quiet

# A protobuf message holds at most 2 GiB. The rest is for the graph itself.
MOST_BYTES = 2**31 - 2**24
# torch freezes a size of 0 or 1, so the example has more in each direction, and no two sizes are equal.
EXAMPLE = 2, 7


def write_onnx(model: Any, token_types: bool, file: Path) -> None:
    """Writes a classifier to an ONNX file, in fp32, for any number of texts of any length.

    The inputs are `input_ids` and `attention_mask`, and with `token_types` also `token_type_ids`, all (B, T) int64. The
    output is `logits`, (B, K) float32.

    Args:
        model: a transformers sequence classifier without an adapter. It stays in eval mode, with eager attention.
        token_types: whether the file takes token types.
        file: the file to write.

    Raises:
        InputError: the extra `onnx` is not installed.
        ModelError: the model is too large for one file, or torch cannot export it.
    """
    onnx, _ = extra("onnx", "onnx", "onnxscript")
    kind = model.config.model_type
    size = sum(value.numel() * value.element_size() for value in (*model.parameters(), *model.buffers()))
    if size > MOST_BYTES:
        raise ModelError(f"a {kind} model of {size / 2**30:.1f} GiB does not fit one ONNX file; at most 2 GiB do")
    names = _names(token_types)
    with _silent():
        # Other attention hides from ONNX Runtime, and its masks may not export.
        model.set_attn_implementation("eager")
        try:
            program = torch.onnx.export(
                _Logits(model, names).eval(),
                tuple(_example(name) for name in names),
                dynamo=True,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(({0: "batch", 1: "length"},) * len(names),),
            )
        except Exception as error:  # of many types: each stage of the exporter has its own
            cause = first_line(error.__cause__ or error)
            raise ModelError(f"torch cannot export this {kind} model to ONNX ({cause})") from error
        assert program is not None
        graph = program.model_proto
    keep_first_token(onnx, graph)
    onnx.save(graph, str(file))


class _Logits(nn.Module):
    """A classifier that takes its inputs by position and returns only logits."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Returns the logits, (B, K)."""
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def linear_layers(model: Any, token_types: bool) -> int:
    """Returns how many linear layers a text passes; a layer that is called several times counts as often.

    Layers that read no text, such as those for DeBERTa's distances between words, do not count.

    Args:
        model: a transformers sequence classifier without an adapter, on the CPU.
        token_types: whether it takes token types.
    """
    texts, tokens = EXAMPLE
    calls = 0

    def count(module: nn.Module, inputs: tuple[Tensor]) -> None:
        nonlocal calls
        calls += len(inputs[0]) in (texts, texts * tokens)

    hooks = [part.register_forward_pre_hook(count) for part in model.modules() if isinstance(part, nn.Linear)]
    try:
        with torch.inference_mode(), quiet():
            model(**{name: _example(name) for name in _names(token_types)})
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _names(token_types: bool) -> list[str]:
    """Returns the names of the inputs."""
    return ["input_ids", "attention_mask", *["token_type_ids"] * token_types]


def _example(name: str) -> Tensor:
    return (
        torch.zeros(EXAMPLE, dtype=torch.int64) if name == "token_type_ids" else torch.ones(EXAMPLE, dtype=torch.int64)
    )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Inside, neither the exporter nor what it calls says anything."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            quiet(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
