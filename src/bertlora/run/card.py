"""The model card: adapter/README.md, with the hub's metadata block. It holds only what was measured or set."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from bertlora.confidence.label_agreement import FIGURE_NAMES
from bertlora.confidence.learned import Learned
from bertlora.confidence.spread import COVERAGE, Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.recipe import Recipe
from bertlora.run.manifest import Manifest
from bertlora.task import CLASSIFICATION, MULTILABEL, REGRESSION, TASKS

# The hub has one task for classes, labels and numbers.
TASK = "text-classification"
# Task → the hub's names of metrics → names in metrics["validation"]. The first is the leading one, which rivals have.
METRICS = {
    CLASSIFICATION: {
        "accuracy": "accuracy",
        "f1": "macro_f1",
        "matthews_correlation": "matthews",
        "roc_auc": "roc_auc",
    },
    REGRESSION: {"rmse": "rmse", "mae": "mae", "pearsonr": "pearson", "spearmanr": "spearman", "r_squared": "r2"},
    MULTILABEL: {
        "f1": "macro_f1",
        "f1_micro": "micro_f1",
        "subset_accuracy": "subset_accuracy",
        "average_precision": "average_precision",
    },
}
RIVALS = {"probe": "the linear probe", "tfidf": "TF-IDF with a linear model"}
NAMES = {"accuracy": "accuracy", "f1": "macro F1", "matthews_correlation": "Matthews correlation", "roc_auc": "ROC AUC"}
NAMES |= {"rmse": "RMSE", "mae": "MAE", "pearsonr": "Pearson correlation", "spearmanr": "Spearman correlation"}
NAMES |= {"r_squared": "R²", "f1_micro": "micro F1"} | {
    name: FIGURE_NAMES[name] for name in ("subset_accuracy", "average_precision")
}


def model_card(
    manifest: Manifest,
    base_id: str,
    recipe: Recipe,
    metrics: dict[str, Any],
    calibration: Learned,
) -> str:
    """Returns the adapter's README: what it is, its base, what was measured, and how to load it.

    Args:
        manifest: of the run.
        base_id: the id by which others load the base.
        recipe: as it was resolved.
        metrics: what `train --json` prints.
        calibration: of the run.
    """
    data = _data_names(recipe.data)
    block = ModelCardData(
        base_model=base_id,
        library_name="peft",
        pipeline_tag=TASK,
        tags=["lora", TASK, "bertlora"],
        datasets=[name for name, kind in data if name == kind] or None,
        model_name=f"{base_id.rpartition('/')[2]}-lora",
        eval_results=list(_results(manifest.task, metrics, data)) or None,
    )
    return f"---\n{block.to_yaml()}\n---\n\n{_text(manifest, base_id, recipe, metrics, calibration)}"


def _data_names(sources: Sequence[str]) -> list[tuple[str, str]]:
    """Returns name and type of each source: for a hub data set its id twice, for a file its name and kind."""
    found = []
    for source in sources:
        path = PurePath(source.rpartition("=")[2])
        # hub:OWNER/NAME/CONFIG: the hub knows the set by owner and name.
        hub = "/".join(source.removeprefix("hub:").split("/")[:2]) if source.startswith("hub:") else ""
        found.append((hub, hub) if hub else (path.name, path.suffix[1:] or "folder"))
    return found


def _results(task: str, metrics: dict[str, Any], data: Sequence[tuple[str, str]]) -> Iterator[EvalResult]:
    """Yields the model-index: figures on the validation rows, if they were measured and the data has a name."""
    validation = metrics.get("validation") or {}
    for kind, key in METRICS[task].items():
        if data and validation.get(key) is not None:
            yield EvalResult(
                task_type=TASK,
                dataset_name=", ".join(name for name, _ in data),
                dataset_type=data[0][1],
                dataset_split="validation",
                metric_type=kind,
                metric_name=f"{NAMES[kind]} (the best epoch was chosen on these rows)",
                metric_value=round(float(validation[key]), 4),
            )


def _text(manifest: Manifest, base_id: str, recipe: Recipe, metrics: dict[str, Any], calibration: Learned) -> str:
    """Returns the text below the metadata."""
    labels, head = ", ".join(map(plain, manifest.labels)), f"num_labels={len(manifest.labels)}"
    kind, output = "classification", f"labels, in the order of the logits: {labels}"
    if manifest.task == REGRESSION:
        kind, output = "regression", f"output: the number '{labels}'"
    elif manifest.task == MULTILABEL:
        output = f"labels, in the order of the logits; a text may have several, or none: {labels}"
    if manifest.task != CLASSIFICATION:
        head += f', problem_type="{TASKS[manifest.task].problem_type}"'
    return f"""# A LoRA adapter for text {kind}

Trained with bertlora {manifest.versions["bertlora"]} on the base model {plain(base_id)}, whose weights have the SHA-256
{manifest.base["sha256"]}.

## What it does

- {output}
- input: {_reading(manifest)}
- LoRA: rank {recipe.rank}, alpha {recipe.alpha:g}, variant {recipe.variant}, on {", ".join(recipe.targets)}

## What was measured

{_measured(manifest.task, metrics, calibration)}

## How to load it

```python
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base = AutoModelForSequenceClassification.from_pretrained({json.dumps(base_id)}, {head})
model = PeftModel.from_pretrained(base, "THIS FOLDER").eval()
tokenizer = AutoTokenizer.from_pretrained("THIS FOLDER")
```

With labels, maximum length, long texts and calibration as in training: `bertlora predict THIS_FOLDER "A text."`
"""


def plain(text: str) -> str:
    """Returns a text that Markdown shows as it is, on one line: labels and names may come from strangers."""
    line = "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
    return re.sub(r"([\\`*_\[\]<>#!|&~$:])", r"\\\1", line)


def _reading(manifest: Manifest) -> str:
    kind = "pairs of texts" if manifest.pairs else "single texts"
    way = {"right": "cut at the end", "left": "cut at the start", "head-tail": "cut in the middle"}[manifest.truncation]
    if manifest.long_texts == "windows":
        way = "read in overlapping windows whose logits are averaged"
    return f"{kind}; texts with more than {manifest.max_length} tokens are {way}"


def _measured(task: str, metrics: dict[str, Any], calibration: Learned) -> str:
    """Returns the figures as a table, and how they were measured."""
    train, validation = metrics["train"], metrics.get("validation") or {}
    (first, leading), *_ = METRICS[task].items()
    trained = f"Training read {train['examples']:,} examples, over all epochs, in {train['seconds']:.0f} s."
    if validation.get(leading) is None or not calibration.rows:
        return f"{trained} There were no validation texts, so its {NAMES[first]} is not known."
    rows = [
        f"| {NAMES[kind]} | {validation[key]:.4f} |"
        for kind, key in METRICS[task].items()
        if validation.get(key) is not None
    ]
    low, high = validation[f"{leading}_ci95"]
    rivals = "".join(
        f"| {NAMES[first]} of {RIVALS[name]}, fitted in {found['seconds']:.1f} s "
        f"| {found[f'validation_{leading}']:.4f} |\n"
        for name, found in metrics.get("rivals", {}).items()
    )
    return f"""{trained} On {calibration.rows:,} validation texts, on which the best epoch was also chosen:

| figure | value |
|---|---:|
{chr(10).join(rows)}
{rivals}
The 95 % interval of the {NAMES[first]} is {low:.4f} to {high:.4f}. {_calibrated(calibration)}"""


def _calibrated(calibration: Learned) -> str:
    """Returns how sure the answers are, and by which number they are calibrated."""
    if isinstance(calibration, Spread):
        half = calibration.half_width(COVERAGE)
        if half is None:
            return "There are too few of these texts for intervals."
        return (
            f"{COVERAGE:.0%} of new numbers are expected within {half:.4g} of the answer (split conformal intervals)."
        )
    if isinstance(calibration, Thresholds):
        return (
            "A text gets the labels whose\nprobability, sigmoid(logit / temperature), is at least their threshold. "
            "Each label has its own temperature and\nthreshold. They were chosen on these texts, and are in "
            "calibration.json of the run."
        )
    return (
        f"Divide the logits by {calibration.temperature:.3f} to\ncalibrate the probabilities. On these texts, on which "
        f"it was fitted, the expected calibration error falls from\n{calibration.ece_before:.4f} to "
        f"{calibration.ece_after:.4f}."
    )
