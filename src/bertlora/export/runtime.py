"""Runs an exported graph: by ONNX Runtime, or by OpenVINO.

Both take padded batches of texts of similar length, and use as many threads as torch.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs, token_batches
from bertlora.errors import InputError, RunError
from bertlora.export.extras import extra
from bertlora.model.engine import padded, pooled
from bertlora.model.machine import choose_precision

# From the graph's inputs by name, each (P, T), to its logits (P, K).
Call = Callable[[dict[str, npt.NDArray[np.int64]]], npt.NDArray[np.float32]]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Most texts and tokens in a batch: its activations stay in the processor's cache (docs/performance.md).
BATCH_SIZE, BATCH_TOKENS = 16, 1024
# Letters of an error that are shown: its end says most.
MOST_SAID = 240


@dataclass(frozen=True)
class GraphRunner:
    """A graph that is loaded and gives the logits of texts. Threads may share it.

    Attributes:
        calls: what runs a batch, by precision.
        token_types: whether the graph takes token types.
        pad_id: the tokenizer's padding id.
    """

    calls: Mapping[str, Call]
    token_types: bool
    pad_id: int

    def choose_precision(self, wanted: str) -> str:
        """Returns the precision to use for `fp32`, `bf16` or `auto`. A quantised graph calls its own precision `fp32`.

        Raises:
            InputError: the graph does not run in this precision here.
        """
        if wanted == "auto":
            chosen = choose_precision(wanted) if "bf16" in self.calls else "fp32"
            return chosen if chosen in self.calls else "fp32"
        if wanted not in self.calls:
            raise InputError(f"precision: got {wanted}, but this export runs only in {' or '.join(self.calls)} here")
        return wanted

    @contextmanager
    def ready(self, precision: str = "fp32") -> Iterator[None]:
        """Inside, calls start at once: the graph is ready at all times."""
        self.choose_precision(precision)
        yield

    def logits(self, inputs: Inputs, *, precision: str = "fp32", batch_size: int = BATCH_SIZE) -> Array:
        """Returns logits, (B, K) float64, in the order of the texts. Logits of several windows are averaged.

        Args:
            inputs: the texts.
            precision: `fp32`, `bf16` or `auto`.
            batch_size: most texts in a batch.

        Raises:
            InputError: the graph does not run in this precision here.
            RunError: the graph cannot run, for example because a text is longer than it allows.
        """
        call = self.calls[self.choose_precision(precision)]
        values = np.empty((0, 0))
        for rows in token_batches(inputs.lengths, batch_size, BATCH_TOKENS):
            windows, owners = inputs.windows_of(rows)
            part = torch.from_numpy(call(self._batch(inputs, windows))).double()
            if len(part) != len(windows):
                raise RunError(f"the graph gives {len(part)} answers to {len(windows)} texts; use another format")
            if not values.size:
                values = np.empty((len(inputs), part.shape[1]))
            values[rows] = pooled(part, owners, len(rows)).numpy()
        return values

    def _batch(self, inputs: Inputs, windows: list[int]) -> dict[str, npt.NDArray[np.int64]]:
        """Returns the arrays of these windows, each padded to the longest of them."""
        batch = {name: x.numpy() for name, x in padded(inputs, windows, self.pad_id, self.token_types).items()}
        if self.token_types and "token_type_ids" not in batch:
            batch["token_type_ids"] = np.zeros_like(batch["input_ids"])
        return batch


def onnx_runner(file: Path, pad_id: int) -> GraphRunner:
    """Loads an ONNX file into ONNX Runtime.

    Args:
        file: the file.
        pad_id: the tokenizer's padding id.

    Raises:
        InputError: the extra `onnx` is not installed.
        RunError: the file is missing, damaged, no classifier, or of an opset that ONNX Runtime does not know.
    """
    (runtime,) = extra("onnx", "onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    # Threads that wait for work would take the cores from torch and the tokenizer.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # a plan is kept for each shape, and shapes are many
    options.log_severity_level = 4  # errors come as exceptions
    with _one_line(file, "ONNX Runtime", runtime.__version__):
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    taken = [one.name for one in session.get_inputs()]
    _check(file, taken, [one.name for one in session.get_outputs()])

    def call(batch: dict[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        with _one_line(file, "ONNX Runtime", runtime.__version__):
            logits: npt.NDArray[np.float32] = session.run(["logits"], batch)[0]
            return logits

    return GraphRunner({"fp32": call}, INPUTS[2] in taken, pad_id)


def openvino_runner(file: Path, pad_id: int) -> GraphRunner:
    """Loads an ONNX file, or OpenVINO's own `.xml` with its `.bin`, into OpenVINO.

    It runs in fp32, and in bf16 where the CPU has instructions for it. See `onnx_runner` for arguments and errors.
    """
    (openvino,) = extra("openvino", "openvino")
    version = str(openvino.__version__).partition("-")[0]
    core = openvino.Core()
    with _one_line(file, "OpenVINO", version):
        model = core.read_model(str(file))
    taken = [one.get_any_name() for one in model.inputs]
    _check(file, taken, [one.get_any_name() for one in model.outputs])
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def call_in(precision: str) -> Call:
        lock = Lock()

        @cache
        def compiled() -> Any:
            kind = openvino.Type.bf16 if precision == "bf16" else openvino.Type.f32
            threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
            return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": kind, **threads})

        def call(batch: dict[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
            with lock, _one_line(file, "OpenVINO", version):
                return np.array(compiled()(batch)["logits"], dtype=np.float32)

        return call

    precisions = ("fp32", "bf16") if "BF16" in able else ("fp32",)
    return GraphRunner({name: call_in(name) for name in precisions}, INPUTS[2] in taken, pad_id)


def _check(file: Path, inputs: list[str], outputs: list[str]) -> None:
    """Raises RunError if a graph is no classifier of bertlora's."""
    if not {*INPUTS[:2]} <= {*inputs} <= {*INPUTS} or outputs != ["logits"]:
        raise RunError(
            f"{file}: takes {', '.join(inputs)} and gives {', '.join(outputs)}; expected {', '.join(INPUTS)} and logits"
        )


@contextmanager
def _one_line(file: Path, program: str, version: str) -> Iterator[None]:
    """Inside, an error of the program becomes a RunError of one line."""
    try:
        yield
    except Exception as error:  # each kind of failure has its own type, and none has a base of its own
        said = " ".join(str(error).split())
        said = said if len(said) <= MOST_SAID else f"...{said[-MOST_SAID:]}"
        raise RunError(
            f"{file}: {program} {version} cannot run it ({said}); install a newer {program}, or export again"
        ) from error
