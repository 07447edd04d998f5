#!/usr/bin/env python3
"""Compares what runs one classifier on the same texts: transformers, ONNX Runtime, OpenVINO and bertlora's formats.

    python benchmarks/engines.py runs/sst2 sst2_validation.parquet --threads 2 --rounds 5 --log engines.jsonl
    python benchmarks/engines.py runs/sst2 imdb_train.parquet --rows 1000 --threads 2 --without tuned "bertlora, bf16"

The run is exported once to each format. Then the programs take turns, each in a fresh process with the same number of
threads. It imports its libraries, loads the model and answers one text: the time of the first answer, imports not
included. It then answers every fourth text to warm up. Then all texts are measured, with tokenisation.

`pipeline` and `tuned` do what the scripts of the peers do: transformers' pipeline in fp32 with batches of 32, and bf16
weights with sorted batches of 32. ONNX Runtime and OpenVINO get sorted batches of 32 too; `dynamic int8` is ONNX
Runtime's own quantisation. The other rows are bertlora's. Prints a Markdown table; all probabilities are calibrated.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from contest import Result, contest_parser, interleaved, machine, median, ratios, table

from bertlora.confidence.probabilities import Array, softmax
from bertlora.errors import BertloraError, first_line
from bertlora.files import whole_path
from bertlora.run.loaded import Run

BATCH = 32
# Texts → probabilities (N, K).
Answer = Callable[[Sequence[str]], Array]
# From the folder of the exports to what answers.
Load = Callable[[Path], Answer]


def main() -> None:
    """Measures and prints; with --engine it is one of the programs."""
    a = arguments()
    if a.engine:
        print(json.dumps(contestant(a.engine, Path(a.work))))
        return
    # Each library reads one of these when it is imported, in every process.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), str(a.threads))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(a.threads)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        missing = dict.fromkeys(a.without, "left out by --without") | prepare(a, work)
        own = [sys.executable, __file__, a.run, a.texts, "--work", folder, "--engine"]
        contestants = {name: [*own, name] for name in ENGINES if name not in missing}
        key: Result = {"contest": "engines", "file": Path(a.texts).name, "rows": a.rows, "run": a.run}
        results = interleaved(contestants, a.rounds, Path(a.log), key | {"threads": a.threads})
    print(f"{Path(a.texts).name}, {results[0]['texts']} texts, {a.rounds} rounds. {machine()}\n")
    print(summary(results, list(contestants)))
    print("\n" + "\n".join(f"- {name}: {reason}" for name, reason in missing.items()))


def arguments() -> argparse.Namespace:
    """Returns the command line."""
    parser = contest_parser(__doc__)
    parser.add_argument("run", help="a run folder of a classification")
    parser.add_argument("texts", help="Parquet with the columns text and label")
    parser.add_argument("--rows", type=int, default=0, help="N rows, evenly spread over the file; 0 = all")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of every program")
    parser.add_argument(
        "--without", nargs="+", default=[], choices=ENGINES, metavar="NAME", help="leave out these rows"
    )
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(a: argparse.Namespace, work: Path) -> dict[str, str]:
    """Fills the folder that the programs read, and returns the rows that cannot run here, with the reason.

    The folder gets `rows.parquet` with text, y_true and the label of the run in fp32 as `exact`; the link `run`; and an
    export to each format.
    """
    run = Run.load(a.run)
    frame = pd.read_parquet(a.texts)[["text", "label"]]
    if a.rows:
        frame = frame.iloc[np.linspace(0, len(frame) - 1, a.rows).astype(int)]
    frame["y_true"] = [run.manifest.source_labels.index(str(label)) for label in frame.label]
    frame["exact"] = run.predict_proba(frame.text.tolist(), precision="fp32").argmax(1)
    frame.to_parquet(work / "rows.parquet")
    (work / "run").symlink_to(Path(a.run).resolve())
    missing = {name: reason for name, engine in ENGINES.items() if (reason := engine.absent())}
    for format in ("merged", "onnx", "onnx-int8", "openvino"):
        users = [name for name, engine in ENGINES.items() if format in engine.formats and name not in a.without]
        if not [name for name in users if name not in missing]:
            continue
        try:
            run.export(work / format, format)
            Run.load(work / format)  # which replays its certificate once, and not in a measured process
            if format == "onnx" and DYNAMIC in users:
                quantise(work)
        except BertloraError as error:
            missing |= {name: first_line(error) for name in users if name not in missing}
    return missing


def quantise(work: Path) -> None:
    """Writes the ONNX export with ONNX Runtime's dynamic quantisation."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with whole_path(work / "dynamic.onnx") as file:
        quantize_dynamic(str(work / "onnx" / "model.onnx"), str(file), weight_type=QuantType.QInt8)


def contestant(name: str, work: Path) -> Result:
    """Returns the figures of one program."""
    frame = pd.read_parquet(work / "rows.parquet")
    texts, y_true = frame.text.tolist(), frame.y_true.to_numpy()
    for module in ("transformers", *ENGINES[name].packages):
        import_module(module)
    began = time.perf_counter()
    answer = ENGINES[name].load(work)
    answer(texts[:1])
    first = time.perf_counter() - began
    answer(texts[::4])
    began = time.perf_counter()
    probabilities = answer(texts)
    took = time.perf_counter() - began
    right = probabilities[np.arange(len(texts)), y_true]
    return {
        "texts": len(texts),
        "texts_per_s": round(len(texts) / took, 2),
        "first_s": round(first, 3),
        "agrees": float(np.mean(probabilities.argmax(1) == frame.exact)),
        "accuracy": float(np.mean(probabilities.argmax(1) == y_true)),
        "log_loss": float(-np.log(right.clip(1e-15)).mean()),
    }


def summary(results: list[Result], names: Sequence[str]) -> str:
    """Returns the Markdown table; every program is compared with the first."""

    def pace(result: Result) -> float:
        return float(result["texts_per_s"])

    rows = [
        [
            name,
            f"{median(results, name, pace):.1f}",
            ratios(results, name, names[0], pace),
            f"{100 * median(results, name, lambda r: r['agrees']):.2f} %",
            f"{100 * median(results, name, lambda r: r['accuracy']):.2f} %",
            f"{median(results, name, lambda r: r['log_loss']):.4f}",
            f"{median(results, name, lambda r: r['first_s']):.2f} s",
        ]
        for name in names
    ]
    head = ["", "texts/s", f"times {names[0]}", "labels of fp32", "accuracy", "log loss", "first answer"]
    return table(head, rows)


def load_pipeline(work: Path) -> Answer:
    """Loads transformers' pipeline, in fp32 with batches of 32."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(work / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(work / "merged")
    classify = pipeline(
        "text-classification", model=model, tokenizer=tokenizer, batch_size=BATCH, truncation=True, top_k=None
    )

    def answer(texts: Sequence[str]) -> Array:
        lines: Any = classify(list(texts))
        found = [{one["label"]: one["score"] for one in line} for line in lines]
        return np.array([[line[name] for name in model.config.id2label.values()] for line in found])

    return answer


def load_tuned(work: Path) -> Answer:
    """Loads what a short script reaches: bf16 weights, sorted batches, inference mode."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(work / "merged", dtype=torch.bfloat16).eval()

    def call(batch: Mapping[str, npt.NDArray[Any]]) -> Array:
        with torch.inference_mode():
            logits = model(**{name: torch.from_numpy(values) for name, values in batch.items()}).logits
        return np.asarray(logits.double().numpy())

    return sorted_answer(work, call, ("input_ids", "attention_mask"))


def load_onnx_runtime(file: str) -> Load:
    """Returns how ONNX Runtime loads a file."""

    def load(work: Path) -> Answer:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        session = onnxruntime.InferenceSession(str(work / file), options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        return sorted_answer(work, lambda batch: session.run(None, batch)[0], names)

    return load


def load_openvino(precision: str) -> Load:
    """Returns how OpenVINO loads the ONNX export in a precision."""

    def load(work: Path) -> Answer:
        import openvino

        core = openvino.Core()
        model = core.read_model(str(work / "onnx" / "model.onnx"))
        hints = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
        compiled = core.compile_model(model, "CPU", hints | {"INFERENCE_PRECISION_HINT": precision})
        names = [one.get_any_name() for one in model.inputs]
        return sorted_answer(work, lambda batch: compiled(batch)[0], names)

    return load


def load_own(folder: str, precision: str) -> Load:
    """Returns how bertlora loads a run or an export."""

    def load(work: Path) -> Answer:
        run = Run.load(work / folder)
        return lambda texts: run.predict_proba(texts, precision=precision)

    return load


def sorted_answer(work: Path, call: Callable[[dict[str, npt.NDArray[Any]]], Any], names: Sequence[str]) -> Answer:
    """Returns what answers in sorted batches, with the tokenizer of the plain model.

    Args:
        work: the folder of the exports.
        call: from inputs, each (B, T), to logits (B, K).
        names: the inputs that `call` takes.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / "merged")

    def batches(texts: Sequence[str]) -> Iterator[tuple[list[int], dict[str, npt.NDArray[Any]]]]:
        ids = tokenizer(list(texts), truncation=True)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for k in range(0, len(order), BATCH):
            rows = order[k : k + BATCH]
            batch = dict(tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="np"))
            batch["token_type_ids"] = np.zeros_like(batch["input_ids"])
            yield rows, {name: batch[name].astype(np.int64) for name in names}

    def answer(texts: Sequence[str]) -> Array:
        logits: dict[int, Array] = {}
        for rows, batch in batches(texts):
            logits |= dict(zip(rows, np.asarray(call(batch), np.float64), strict=True))
        return softmax(np.stack([logits[i] for i in range(len(texts))]))

    return answer


class Engine:
    """A row of the table.

    Attributes:
        load: makes it ready.
        formats: the exports that it needs.
        packages: that must be installed.
        capability: that OpenVINO must report for this CPU; empty for none.
    """

    def __init__(self, load: Load, formats: Sequence[str] = (), packages: Sequence[str] = (), capability: str = ""):
        self.load, self.formats, self.packages, self.capability = load, formats, packages, capability

    def absent(self) -> str:
        """Returns why it cannot run here; empty if it can."""
        if gone := [name for name in self.packages if find_spec(name) is None]:
            return f"{', '.join(gone)} is not installed"
        if self.capability:
            import openvino

            if self.capability not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                return f"OpenVINO does not support {self.capability} on this CPU"
        return ""


DYNAMIC = "ONNX Runtime, dynamic int8"
GRAPH = ("merged", "onnx")
ONNX = ("onnxruntime", "onnx", "onnxscript")
OPENVINO = ("openvino", *ONNX)
ENGINES = {
    "pipeline": Engine(load_pipeline, ("merged",)),
    "tuned": Engine(load_tuned, ("merged",)),
    "ONNX Runtime, fp32": Engine(load_onnx_runtime("onnx/model.onnx"), GRAPH, ONNX),
    DYNAMIC: Engine(load_onnx_runtime("dynamic.onnx"), GRAPH, ONNX),
    "OpenVINO, fp32": Engine(load_openvino("f32"), GRAPH, OPENVINO),
    "OpenVINO, bf16": Engine(load_openvino("bf16"), GRAPH, OPENVINO, "BF16"),
    "bertlora, fp32": Engine(load_own("run", "fp32")),
    "bertlora, bf16": Engine(load_own("run", "bf16")),
    "bertlora, int8": Engine(load_own("run", "int8")),
    "bertlora, merged": Engine(load_own("merged", "fp32"), ("merged",)),
    "bertlora, onnx": Engine(load_own("onnx", "fp32"), ("onnx",), ONNX),
    "bertlora, onnx-int8": Engine(load_own("onnx-int8", "fp32"), ("onnx-int8",), ONNX),
    "bertlora, openvino": Engine(load_own("openvino", "fp32"), ("openvino",), OPENVINO),
    "bertlora, openvino, bf16": Engine(load_own("openvino", "bf16"), ("openvino",), OPENVINO, "BF16"),
}


if __name__ == "__main__":
    main()
