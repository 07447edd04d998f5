"""The certificate of a run or an export: what it must answer, wherever it lands.

It has 64 of the embedded reviews as token ids, the logits that the run gave for them, how far a logit may differ, and
the SHA-256 of each file. `replay` asks a model again. A check at export proves nothing about another machine: other
instructions, other versions of a library and a damaged copy all change answers.

Letters: C = 64 texts, K outputs.
"""

import hashlib
import json
import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load_file, save

from bertlora.confidence.calibration import reading
from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.data.reader import Reader
from bertlora.data.reviews import embedded_specs
from bertlora.data.tokens import TokenTable, tokenize
from bertlora.files import write_whole, writing
from bertlora.hashes import CARD, RUN_MANIFEST, check_files, hashes_of, is_below, is_part, names_below
from bertlora.task import REGRESSION

FILES = FACTS, ANSWERS = "certificate.json", "certificate.safetensors"
TEXTS = 64
# Another order of additions in fp32 changes a logit by less. Numbers have a unit: theirs is a fraction of the largest.
FP32_DIFFERENCE = 1e-3
# bf16 keeps 8 bits (fp16 more), so each layer rounds by up to 0.4 %; int8 rounds by up to 0.4 % of a row's largest.
SHARES = {"bf16": 0.05, "fp16": 0.05, "int8": 0.1}
PACKAGES = ("bertlora", "torch", "transformers", "onnxruntime", "openvino")


class Model(Protocol):
    """What a certificate asks: a run's model, or an exported one."""

    @property
    def reader(self) -> Reader:
        """Turns texts into inputs."""
        ...

    @property
    def task(self) -> str:
        """What it predicts."""
        ...

    def ready(self, precision: str = "fp32") -> AbstractContextManager[None]:
        """Inside, calls of this thread start at once, in this precision."""
        ...

    def logits(self, inputs: Inputs, *, precision: str = "fp32") -> Array:
        """Returns logits, (B, K)."""
        ...


@dataclass(frozen=True)
class Certificate:
    """What a model must answer.

    Attributes:
        format: `run`, or the format of the export.
        first: token ids of the C texts.
        second: of the second texts, if the model reads pairs.
        logits: (C, K) float64, the run's answers in fp32.
        tolerance: how far a logit may be from them.
        files: SHA-256 of the files next to it, by name.
        made_on: the machine and the versions that gave the answers.
    """

    format: str
    first: TokenTable
    second: TokenTable | None
    logits: Array
    tolerance: float
    files: dict[str, str] = field(default_factory=dict)
    made_on: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, format: str = "run") -> "Certificate":
        """Returns the certificate of a run's model, which answers 64 embedded reviews."""
        texts = _reviews()
        first = tokenize(model.reader.tokenizer, texts)
        # A pair is two reviews that follow each other.
        second = tokenize(model.reader.tokenizer, texts[1:] + texts[:1]) if model.reader.pairs else None
        logits = model.logits(Inputs(model.reader.template, first, second))
        scale = largest(logits) if model.task == REGRESSION else 1.0
        return cls(format, first, second, logits, FP32_DIFFERENCE * scale)

    def difference(self, model: Model, precision: str = "fp32", every: int = 1) -> float:
        """Returns the largest difference between a logit of the model and the certificate's; infinity if one is NaN.

        Args:
            model: the model.
            precision: in which it runs.
            every: ask only each text whose number this divides.
        """
        rows = list(range(0, len(self.first), every))
        inputs = Inputs(model.reader.template, self.first, self.second).take(rows)
        with model.ready(precision):  # few tokens would run in fp32
            found = model.logits(inputs, precision=precision)
        expected = self.logits[rows]
        if found.shape != expected.shape:
            return float("inf")
        return float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max())

    def allowed(self, precision: str = "fp32") -> float:
        """Returns how far a logit may be from the certificate's in a precision."""
        return max(self.tolerance, SHARES.get(precision, 0.0) * largest(self.logits))

    def save(self, folder: Path) -> None:
        """Writes the certificate, which covers the files that decide the answers. run.json covers both.

        Raises:
            OutputError: it cannot be written.
        """
        tensors = {"first.ids": self.first.ids, "first.offsets": self.first.offsets, "logits": self.logits}
        if self.second is not None:
            tensors |= {"second.ids": self.second.ids, "second.offsets": self.second.offsets}
        with writing(folder / ANSWERS):
            (folder / ANSWERS).write_bytes(save({k: np.ascontiguousarray(v) for k, v in tensors.items()}))
        files = hashes_of(folder, _covered(folder))
        table = {"format": self.format, "tolerance": self.tolerance, "files": files, "made_on": machine()}
        write_whole(folder / FACTS, json.dumps(table, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Certificate | None":
        """Returns the certificate of a folder, or None if it has none.

        Raises:
            RunError: a file of it is missing or damaged.
        """
        if not is_part(folder / FACTS):
            return None
        is_part(folder / ANSWERS)
        with reading(folder / FACTS) as file:
            table = json.loads(file.read_text(encoding="utf-8"))
            tolerance, files = float(table["tolerance"]), {str(k): str(v) for k, v in table["files"].items()}
            if not 0 <= tolerance < float("inf"):
                raise ValueError(f"tolerance {tolerance}, expected a number from 0")
            if not all(map(is_below, files)):
                raise ValueError("it names files outside the folder")
            format, made_on = str(table["format"]), {str(k): str(v) for k, v in table["made_on"].items()}
        with reading(folder / ANSWERS) as file:
            tensors = load_file(file)
            first, second = _table(tensors, "first"), _table(tensors, "second") if "second.ids" in tensors else None
            logits = tensors["logits"].astype(np.float64)
            if logits.ndim != 2 or len(logits) != len(first) or not np.isfinite(logits).all():
                raise ValueError("its logits do not fit its texts")
        return cls(format, first, second, logits, tolerance, files, made_on)

    def check_files(self, folder: Path) -> None:
        """Raises RunError if a file is missing, or is not the one that the certificate was made for."""
        check_files(folder, self.files, advice="copy the folder again, or export again")


def largest(logits: Array) -> float:
    """Returns the largest size of a logit, above 0."""
    return float(np.abs(logits).max(initial=1e-9))


@cache
def machine() -> dict[str, str]:
    """Returns what answers depend on: the processor, and the versions of libraries."""
    found = {"processor": processor()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Returns the processor's architecture, and its instructions as torch names them: `x86_64 AVX512`."""
    import torch

    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {'VNNI' if has_vnni() else ''}".strip()


def has_vnni() -> bool:
    """Returns whether the processor multiplies bytes without saturation in between: AVX512-VNNI, AVX-VNNI, or ARM."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "vnni" in flags or "asimddp" in flags


def proven(folder: Path, certificate: "Certificate", precision: str = "fp32", every: int = 1) -> Path:
    """Returns a mark in this user's cache. It exists if this machine has replayed the certificate of these files.

    Other versions of a library have another mark, and so has a folder whose files were written again. A replay of each
    text whose number `every` divides has a mark of its own.
    """
    paths = [folder / name for name in (RUN_MANIFEST, *FILES, *certificate.files)]
    seen = [path.stat() for path in paths if path.exists()]
    key = [str(folder.resolve()), precision, every, machine(), [(one.st_size, one.st_mtime_ns) for one in seen]]
    marks = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bertlora" / "proven"
    return marks / hashlib.sha256(json.dumps(key).encode()).hexdigest()


def _covered(folder: Path) -> list[str]:
    """Returns the files that decide answers: all of an export but its card; of a run only its adapter."""
    inside = "adapter/" if (folder / "adapter").is_dir() else ""
    return [f"{inside}{name}" for name in names_below(folder / inside, without=(*FILES, RUN_MANIFEST, CARD))]


def _table(tensors: dict[str, Any], name: str) -> TokenTable:
    ids, offsets = tensors[f"{name}.ids"], tensors[f"{name}.offsets"]
    if (
        ids.dtype != np.int32
        or offsets.dtype != np.int64
        or offsets[0]
        or offsets[-1] != len(ids)
        or (np.diff(offsets) < 0).any()
    ):
        raise ValueError("its token ids are damaged")
    return TokenTable(ids, offsets)


def _reviews() -> list[str]:
    """Returns 64 embedded reviews, in their fixed order."""
    path = Path(embedded_specs()[-1].partition("=")[2])
    lines = path.read_text(encoding="utf-8").splitlines()[:TEXTS]
    return [json.loads(line)["text"] for line in lines]
