"""Exports of an adapter. Each is checked for parity with the adapter on real texts before it is kept."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bertlora.confidence.probabilities import Array
from bertlora.errors import BertloraError, InputError, suggestion
from bertlora.files import size_of, whole_folder
from bertlora.model.adapted import Adapted
from bertlora.model.base import quiet
from bertlora.task import REGRESSION

# Merging changes the order of additions. In fp32 that is far below what could change a label.
LARGEST_DIFFERENCE = 1e-3

# A text, and the second text of a pair or None.
Texts = Sequence[tuple[str, str | None]]


class ParityError(BertloraError, RuntimeError):
    """An export that does not give what the adapter gives. It was not kept."""


def export(
    adapted: Adapted, source: Path, out: Path, kind: str, texts: Texts, overwrite: bool = False
) -> dict[str, Any]:
    """Writes an adapter to `out` in a format: `merged` or `adapter`.

    Args:
        adapted: the adapter.
        source: the run folder or adapter folder from which it was loaded.
        out: the folder to write.
        kind: the format.
        texts: real texts on which parity is checked.
        overwrite: replace what `out` holds.

    Returns:
        `format`, `to`, `bytes` of the result and `base_bytes` of the full base model. For `merged` also `texts`, the
        number of texts checked, and `largest_difference` of their logits.

    Raises:
        InputError: the format is unknown.
        ParityError: the export gives other logits or labels than the adapter; nothing is kept.
        OutputError: `out` is not empty, holds the source or its base, or cannot be written.
    """
    if kind not in FORMATS:
        raise InputError(f"format '{kind}' is unknown; expected {' or '.join(FORMATS)}{suggestion(kind, FORMATS)}")
    with whole_folder(out, overwrite, (source, source / "adapter", adapted.base.folder)) as folder:
        facts = FORMATS[kind](adapted, source, folder, texts)
    return {"format": kind, "to": str(out), "bytes": size_of(out), "base_bytes": adapted.base.weight_bytes} | facts


def _export_adapter(adapted: Adapted, source: Path, folder: Path, texts: Texts) -> dict[str, Any]:
    """Copies PEFT's folder."""
    inside = source / "adapter"
    shutil.copytree(inside if inside.is_dir() else source, folder, dirs_exist_ok=True)
    return {}


def _export_merged(adapted: Adapted, source: Path, folder: Path, texts: Texts) -> dict[str, Any]:
    """Writes a plain transformers folder, with labels and tokenizer, that `pipeline` serves."""
    merged = adapted.merged()
    # In training the config has dropout off. The export has the base's own values.
    merged.config = adapted.base.config(adapted.labels, task=adapted.task)
    merged.config.architectures = [type(merged).__name__]
    with quiet():
        merged.save_pretrained(folder)
    adapted.portable_tokenizer().save_pretrained(folder)
    return check_parity(adapted, folder, texts)


def check_parity(adapted: Adapted, folder: Path, texts: Texts) -> dict[str, Any]:
    """Reads a merged export back and compares its logits with the adapter's.

    Raises:
        ParityError: they differ by more than rounding, or in a label.
    """
    inputs = adapted.reader.read([t for t, _ in texts], [p for _, p in texts if p is not None] or None)
    expected = adapted.logits(inputs)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    parts: list[list[Any]] = [[] for _ in texts]
    template = adapted.reader.template
    # No tokenizer of transformers can cut the middle out, or make evenly spread windows.
    same_reading = template.truncation != "head-tail" and template.long_texts == "truncate"
    for p, i in enumerate(inputs.windows.texts.tolist()):
        text, pair = texts[i]
        ids, types = inputs.window(p)
        read = tokenizer([text], None if pair is None else [pair], truncation=True)["input_ids"][0]
        if same_reading and read != ids.tolist():
            raise ParityError(f"the exported tokenizer reads text {i} differently; the export was not kept")
        batch = {"input_ids": torch.from_numpy(ids.astype(np.int64))[None]}
        if types is not None and "token_type_ids" in tokenizer.model_input_names:
            batch["token_type_ids"] = torch.from_numpy(types.astype(np.int64))[None]
        with torch.inference_mode():
            parts[i].append(model(**batch).logits[0].double().numpy())
    found = np.array([np.mean(part, axis=0) for part in parts])
    difference = float(np.abs(found - expected).max())
    same = bool((found.argmax(1) == expected.argmax(1)).all())
    names = [model.config.id2label[i] for i in range(len(adapted.labels))]
    if not (difference <= _tolerance(adapted, expected) and same and names == adapted.labels):
        raise ParityError(
            f"the export gives other results than the run (logits differ by up to {difference:.2g} "
            f"on {len(texts)} texts); it was not kept"
        )
    return {"texts": len(texts), "largest_difference": difference}


def _tolerance(adapted: Adapted, expected: Array) -> float:
    """Returns how much outputs may differ. Numbers have a unit, so theirs is a fraction of the largest number."""
    if adapted.task != REGRESSION:
        return LARGEST_DIFFERENCE
    return LARGEST_DIFFERENCE * float(np.abs(expected).max(initial=1e-9))


FORMATS: dict[str, Callable[[Adapted, Path, Path, Texts], dict[str, Any]]] = {
    "merged": _export_merged,
    "adapter": _export_adapter,
}
