"""Exports, each checked for parity with the run on real texts before it is kept."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bertlora.data.prepared import Prepared, iter_texts
from bertlora.data.reviews import embedded_specs
from bertlora.errors import BertloraError, InputError, suggestion
from bertlora.files import size_of, whole_folder
from bertlora.model.base import quiet
from bertlora.run import Run

PARITY_TEXTS = 100
# Merging changes the order of additions; in fp32 that is far below what could turn a label.
LARGEST_DIFFERENCE = 1e-3


class ParityError(BertloraError, RuntimeError):
    """An export that does not give what the run gives; it was not kept."""


def export_run(run: Run, out: Path, kind: str, overwrite: bool = False) -> dict[str, Any]:
    """Writes `run` to `out` in a format: `merged` or `adapter`.

    Returns:
        `bytes` of the result and `base_bytes` of the full base model; for `merged` also `texts`, on how many parity was
        checked, and `largest_difference` of their logits.

    Raises:
        InputError: the format is unknown.
        ParityError: the export gives other logits or labels than the run; nothing is kept.
        OutputError: `out` holds something already, or the run or its base, or cannot be written.
    """
    if kind not in FORMATS:
        raise InputError(f"format '{kind}' is unknown; expected {' or '.join(FORMATS)}{suggestion(kind, FORMATS)}")
    inputs = (run.path, run.path / "adapter", run.adapted.base.folder)
    with whole_folder(out, overwrite, inputs) as folder:
        facts = FORMATS[kind](run, folder)
    return {"format": kind, "to": str(out), "bytes": size_of(out), "base_bytes": run.adapted.base.weight_bytes} | facts


def _export_adapter(run: Run, folder: Path) -> dict[str, Any]:
    """Copies PEFT's folder alone."""
    inside = run.path / "adapter"
    shutil.copytree(inside if inside.is_dir() else run.path, folder, dirs_exist_ok=True)
    return {}


def _export_merged(run: Run, folder: Path) -> dict[str, Any]:
    """Writes a plain transformers folder, with labels and tokenizer, that `pipeline` serves."""
    merged = run.adapted.merged()
    # Training's config has dropout off; what is exported has the base's own.
    merged.config = build_config(run)
    with quiet():
        merged.save_pretrained(folder)
    run.adapted.portable_tokenizer().save_pretrained(folder)
    return check_parity(run, folder)


def build_config(run: Run) -> Any:
    """Returns the base's config with the run's labels."""
    config = run.adapted.base.config(run.manifest.labels)
    config.architectures = [type(run.adapted.model.get_base_model()).__name__]
    return config


def check_parity(run: Run, folder: Path) -> dict[str, Any]:
    """Reads the export back and compares its logits with the run's on real texts.

    Raises:
        ParityError: they differ by more than rounding, or in a label.
    """
    texts = parity_texts(run)
    inputs = run.adapted.reader.read([t for t, _ in texts], [p for _, p in texts if p is not None] or None)
    expected = run.adapted.logits(inputs)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    parts: list[list[Any]] = [[] for _ in texts]
    whole = run.manifest.truncation != "head-tail" and run.manifest.long_texts == "truncate"
    for p, i in enumerate(inputs.windows.texts.tolist()):
        text, pair = texts[i]
        ids, types = inputs.window(p)
        read = tokenizer([text], None if pair is None else [pair], truncation=True)["input_ids"][0]
        # No tokenizer of transformers can cut the middle out, or give windows evenly spread.
        if whole and read != ids.tolist():
            raise ParityError(f"the exported tokenizer reads text {i} otherwise than the run; it was not kept")
        batch = {"input_ids": torch.from_numpy(ids.astype(np.int64))[None]}
        if types is not None and "token_type_ids" in tokenizer.model_input_names:
            batch["token_type_ids"] = torch.from_numpy(types.astype(np.int64))[None]
        with torch.inference_mode():
            parts[i].append(model(**batch).logits[0].double().numpy())
    found = np.array([np.mean(part, axis=0) for part in parts])
    difference = float(np.abs(found - expected).max())
    same = bool((found.argmax(1) == expected.argmax(1)).all())
    names = [model.config.id2label[i] for i in range(len(run.manifest.labels))]
    if not (difference <= LARGEST_DIFFERENCE and same and names == run.manifest.labels):
        raise ParityError(
            f"the export gives other results than the run (logits differ by up to {difference:.2g} "
            f"on {len(texts)} texts); it was not kept"
        )
    return {"texts": len(texts), "largest_difference": difference}


def parity_texts(run: Run) -> list[tuple[str, str | None]]:
    """Returns up to 100 real texts: of the run's own data where that is at hand, else embedded reviews."""
    folder = run.data_folder
    if folder is not None:
        data = Prepared.load(folder)
        rows = data.split(list(data.rows)[-1])
        pairs: list[str | None] = list(rows.pairs) if rows.pairs else [None] * len(rows)
        return list(zip(rows.texts, pairs, strict=True))[:PARITY_TEXTS]
    path = embedded_specs()[-1].partition("=")[2]
    texts = [text for batch in iter_texts(path) for text, _ in batch][:PARITY_TEXTS]
    return [(text, text if run.manifest.pairs else None) for text in texts]


FORMATS: dict[str, Callable[[Run, Path], dict[str, Any]]] = {"merged": _export_merged, "adapter": _export_adapter}
