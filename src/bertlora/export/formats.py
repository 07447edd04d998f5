"""The formats of exports: how each is written, and how it is compared with the run before it is kept."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bertlora.confidence.learned import Learned
from bertlora.confidence.probabilities import Array, cross_entropy
from bertlora.confidence.spread import Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.errors import InputError
from bertlora.export.exported import Exported
from bertlora.export.extras import extra
from bertlora.export.onnx_graph import linear_layers, write_onnx
from bertlora.export.origin import Origin, ParityError, calibrated
from bertlora.export.per_token import Counts, write_int8
from bertlora.export.runners import GRAPH, OPENVINO_GRAPH, Runner
from bertlora.export.runtime import onnx_runner
from bertlora.model.base import quiet
from bertlora.model.engine import takes_token_types

# What the formats of ONNX Runtime need.
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        write: fills a folder, and returns facts.
        check: compares the written folder with the run, and returns facts.
        has_model: whether the folder has a model of its own.
        rounds: the share of the largest logit by which rounding may change a logit; 0 for fp32.
    """

    write: Callable[[Origin, Path], dict[str, Any]]
    check: Callable[[Origin, Exported, Path], dict[str, Any]] = lambda origin, exported, folder: {}
    has_model: bool = True
    rounds: float = 0.0


def _write_adapter(origin: Origin, folder: Path) -> dict[str, Any]:
    """Copies PEFT's folder."""
    inside = origin.folder / "adapter"
    shutil.copytree(inside if inside.is_dir() else origin.folder, folder, dirs_exist_ok=True)
    return {}


def _write_merged(origin: Origin, folder: Path) -> dict[str, Any]:
    """Writes a plain transformers folder, with labels and tokenizer, that `pipeline` serves."""
    adapted, model = origin.adapted, calibrated(origin)
    # In training the config has dropout off. The export has the base's own values.
    model.config = adapted.base.config(adapted.labels, task=adapted.task)
    model.config.architectures = [type(model).__name__]
    with quiet():
        model.save_pretrained(folder)
    adapted.portable_tokenizer().save_pretrained(folder)
    return {}


def _check_merged(origin: Origin, exported: Exported, folder: Path) -> dict[str, Any]:
    """Reads the folder as transformers does, and compares logits, tokens and label names.

    Raises:
        ParityError: the logits differ by more than rounding, or a label or the tokens differ.
    """
    inputs = origin.inputs()
    expected = origin.adapted.logits(inputs)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    parts: list[list[Any]] = [[] for _ in origin.texts]
    template = origin.adapted.reader.template
    # No tokenizer of transformers can cut the middle out, or make evenly spread windows.
    same_reading = template.truncation != "head-tail" and template.long_texts == "truncate"
    for p, i in enumerate(inputs.windows.texts.tolist()):
        text, pair = origin.texts[i]
        ids, types = inputs.window(p)
        read = tokenizer([text], None if pair is None else [pair], truncation=True)["input_ids"][0]
        if same_reading and read != ids.tolist():
            raise ParityError(f"the exported tokenizer reads text {i} differently; the export was not kept")
        batch = {"input_ids": torch.from_numpy(ids.astype(np.int64))[None]}
        if types is not None and "token_type_ids" in tokenizer.model_input_names:
            batch["token_type_ids"] = torch.from_numpy(types.astype(np.int64))[None]
        with torch.inference_mode():
            parts[i].append(model(**batch).logits[0].double().numpy())
    found = np.array([np.mean(part, axis=0) for part in parts]) * exported.temperatures
    names = [model.config.id2label[i] for i in range(len(exported.labels))]
    if names != exported.labels:
        raise ParityError(f"the export's labels are {', '.join(names)}; it was not kept")
    return compared(origin, found, expected)


def check_outputs(origin: Origin, exported: Exported, folder: Path) -> dict[str, Any]:
    """Compares the exported outputs with the run's, in fp32. Raises ParityError if they differ."""
    inputs = origin.inputs()
    return compared(origin, exported.logits(inputs), origin.adapted.logits(inputs))


def compared(origin: Origin, found: Array, expected: Array) -> dict[str, Any]:
    """Returns `texts` and `largest_difference`, or raises ParityError if an output or a label differs."""
    difference = float(np.abs(found - expected).max())
    same = bool((found.argmax(1) == expected.argmax(1)).all())
    if not (difference <= origin.allowed(expected) and same):
        raise ParityError(
            f"the export gives other results than the run (logits differ by up to {difference:.2g} "
            f"on {len(origin.texts)} texts); it was not kept"
        )
    return {"texts": len(origin.texts), "largest_difference": difference}


def _write_graph(origin: Origin, folder: Path) -> Any:
    """Writes one ONNX file and the tokenizer, and returns the model that is in the file."""
    model = calibrated(origin).cpu()
    write_onnx(model, takes_token_types(model), folder / GRAPH)
    origin.adapted.portable_tokenizer().save_pretrained(folder)
    return model


def _write_onnx(origin: Origin, folder: Path) -> dict[str, Any]:
    """Writes one ONNX file and the tokenizer."""
    extra("onnx", *ONNX_PACKAGES)  # a missing one shows at once, not after the graph is written
    _write_graph(origin, folder)
    return {}


def _write_openvino(origin: Origin, folder: Path) -> dict[str, Any]:
    """Writes OpenVINO's own two files, in fp32, and the tokenizer."""
    (openvino,) = extra("openvino", "openvino")
    _write_graph(origin, folder)
    openvino.save_model(openvino.convert_model(folder / GRAPH), folder / OPENVINO_GRAPH, compress_to_fp16=False)
    (folder / GRAPH).unlink()
    return {}


def _write_int8(origin: Origin, folder: Path) -> dict[str, Any]:
    """Writes one ONNX file in int8 and the tokenizer, and measures whether it is faster here."""
    if origin.validation is None or not origin.calibration.rows:
        raise InputError(
            f"{origin.folder}: onnx-int8 loses some accuracy, which is measured on the validation rows; the run has "
            "none, or its data is missing; use onnx"
        )
    extra("onnx", *ONNX_PACKAGES)
    whole = folder / "fp32.onnx"
    model = _write_graph(origin, folder)
    (folder / GRAPH).rename(whole)
    counts = write_int8(whole, folder / GRAPH)
    _check_counts(counts, linear_layers(model, takes_token_types(model)))
    pad = origin.adapted.reader.pad_id
    speeds = {
        "onnx-int8": _texts_per_s(onnx_runner(folder / GRAPH, pad), origin),
        "onnx": _texts_per_s(onnx_runner(whole, pad), origin),
        "merged": _texts_per_s(origin.adapted, origin, origin.adapted.choose_precision("auto")),  # the same engine
    }
    whole.unlink()
    best = max(speeds, key=lambda name: speeds[name])
    slower = (
        f"onnx-int8 is slower here than {best}: {speeds['onnx-int8']:.0f} and {speeds[best]:.0f} texts/s; use {best}"
    )
    facts = {"quantised_products": counts.quantised, "other_products": counts.left, "texts_per_s": speeds}
    return facts | ({"notes": [slower]} if best != "onnx-int8" else {})


def _check_counts(counts: Counts, layers: int) -> None:
    """Raises ParityError unless all linear layers that a text passes were quantised, except the last one."""
    if counts.quantised < layers - 1:
        raise ParityError(
            f"onnx-int8 has {counts.quantised} of {layers - 1} linear layers in 8 bits: this version of torch writes "
            "the others in a form that is not known; it was not kept; use onnx"
        )


def _texts_per_s(runner: Runner, origin: Origin, precision: str = "fp32") -> float:
    """Returns the speed on the texts of the comparison, after a first call."""
    inputs = origin.inputs()
    with runner.ready(precision):
        runner.logits(inputs.take(range(min(2, len(inputs)))), precision=precision)
        began = time.perf_counter()
        runner.logits(inputs, precision=precision)
        seconds: float = time.perf_counter() - began
    return len(inputs) / seconds


def _check_int8(origin: Origin, exported: Exported, folder: Path) -> dict[str, Any]:
    """Compares the quality on the validation rows, and refuses a format that loses more than the tolerance.

    Raises:
        ParityError: it loses more points than `origin.tolerance`.
    """
    assert origin.validation is not None
    y_true, learned = origin.validation.labels, origin.calibration
    before = learned.values[:, None] if isinstance(learned, Spread) else learned.logits
    after = exported.logits(origin.validation.inputs)
    qualities = [_quality(logits.astype(np.float64), y_true, learned) for logits in (before, after)]
    name = next(iter(qualities[0]))
    lost = 100 * (qualities[0][name] - qualities[1][name])
    if not lost <= origin.tolerance:
        raise ParityError(
            f"onnx-int8 loses {lost:.2f} points of {name} on {len(y_true):,} validation rows, and at most "
            f"{origin.tolerance:g} are allowed; it was not kept; use onnx, or give --tolerance"
        )
    return {
        "rows": len(y_true),
        "before": qualities[0],
        "after": qualities[1],
        "lost_points": lost,
    }


def _quality(logits: Array, y_true: Any, learned: Learned) -> dict[str, float]:
    """Returns how good outputs are, 0..1, by name; the first figure decides, and log loss in nats may follow."""
    if isinstance(learned, Spread):
        rest = np.square(logits[:, 0] - y_true).sum() / max(np.square(y_true - y_true.mean()).sum(), 1e-12)
        return {"r2": 1 - float(rest)}
    if isinstance(learned, Thresholds):
        return {"label_accuracy": float((learned.chosen(logits) == y_true).mean())}
    accuracy = float((logits.argmax(axis=1) == y_true).mean())
    return {"accuracy": accuracy, "log_loss": cross_entropy(learned.scaled(logits), y_true)}


FORMATS: dict[str, Format] = {
    "merged": Format(_write_merged, _check_merged),
    "onnx": Format(_write_onnx, check_outputs),
    "onnx-int8": Format(_write_int8, _check_int8, rounds=0.02),
    "openvino": Format(_write_openvino, check_outputs),
    "adapter": Format(_write_adapter, has_model=False),
}
