"""The model card: adapter/README.md, with the hub's metadata block. All in it was measured or set."""

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from bertlora.recipe import Recipe
from bertlora.run.calibration import Calibration
from bertlora.run.manifest import Manifest

TASK = "text-classification"
# The hub's names of metrics → ours, in metrics["validation"].
METRICS = {"accuracy": "accuracy", "f1": "macro_f1", "matthews_correlation": "matthews", "roc_auc": "roc_auc"}
NAMES = {"accuracy": "accuracy", "f1": "macro F1", "matthews_correlation": "Matthews correlation", "roc_auc": "ROC AUC"}


def model_card(
    manifest: Manifest,
    base_id: str,
    recipe: Recipe,
    metrics: dict[str, Any],
    calibration: Calibration | None = None,
) -> str:
    """Returns the adapter's README: what it is, on what, what was measured, and how to load it.

    Args:
        manifest: of the run.
        base_id: the base under the name by which others load it.
        recipe: as it was resolved.
        metrics: what `train --json` prints.
        calibration: where there are validation rows.
    """
    data = _data_names(recipe.data)
    block = ModelCardData(
        base_model=base_id,
        library_name="peft",
        pipeline_tag=TASK,
        tags=["lora", TASK, "bertlora"],
        datasets=[name for name, kind in data if name == kind] or None,
        model_name=f"{base_id.rpartition('/')[2]}-lora",
        eval_results=list(_results(metrics, data)) or None,
    )
    return f"---\n{block.to_yaml()}\n---\n\n{_text(manifest, base_id, recipe, metrics, calibration)}"


def _data_names(sources: Sequence[str]) -> list[tuple[str, str]]:
    """Returns name and type of each source: a hub id twice, or a file's name, no folder, and its kind."""
    found = []
    for source in sources:
        path = PurePath(source.rpartition("=")[2])
        # hub:OWNER/NAME/CONFIG: the hub knows the set by owner and name.
        hub = "/".join(source.removeprefix("hub:").split("/")[:2]) if source.startswith("hub:") else ""
        found.append((hub, hub) if hub else (path.name, path.suffix[1:] or "folder"))
    return found


def _results(metrics: dict[str, Any], data: Sequence[tuple[str, str]]) -> Iterator[EvalResult]:
    """Yields the model-index: figures on the validation rows; none where none was measured or the data have no name."""
    validation = metrics.get("validation") or {}
    for kind, key in METRICS.items():
        if data and validation.get(key) is not None:
            yield EvalResult(
                task_type=TASK,
                dataset_name=", ".join(name for name, _ in data),
                dataset_type=data[0][1],
                dataset_split="validation",
                metric_type=kind,
                metric_name=NAMES[kind],
                metric_value=round(float(validation[key]), 4),
            )


def _text(
    manifest: Manifest, base_id: str, recipe: Recipe, metrics: dict[str, Any], calibration: Calibration | None
) -> str:
    """Returns what stands below the metadata."""
    return f"""# A LoRA adapter for text classification

Trained with bertlora {manifest.versions["bertlora"]} on the base model {base_id}, its weights' SHA-256
{manifest.base["sha256"]}.

## What it does

- labels, in the order of the logits: {", ".join(manifest.labels)}
- input: {_reading(manifest)}
- LoRA: rank {recipe.rank}, alpha {recipe.alpha:g}, variant {recipe.variant}, on {", ".join(recipe.targets)}

## What was measured

{_measured(metrics, calibration)}

## How to load it

```python
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base = AutoModelForSequenceClassification.from_pretrained("{base_id}", num_labels={len(manifest.labels)})
model = PeftModel.from_pretrained(base, "THIS FOLDER").eval()
tokenizer = AutoTokenizer.from_pretrained("THIS FOLDER")
```

Or with labels, length, long texts and calibration as in training: `bertlora predict THIS_FOLDER "A text."`
"""


def _reading(manifest: Manifest) -> str:
    kind = "pairs of texts" if manifest.pairs else "single texts"
    way = {"right": "the end cut", "left": "the start cut", "head-tail": "the middle cut"}[manifest.truncation]
    if manifest.long_texts == "windows":
        way = "longer ones in overlapping windows whose logits are averaged"
    return f"{kind}, at most {manifest.max_length} tokens, {way}"


def _measured(metrics: dict[str, Any], calibration: Calibration | None) -> str:
    """Returns the figures as a table, and how they came about."""
    train, validation = metrics["train"], metrics.get("validation") or {}
    trained = f"Training saw {train['examples']:,} examples, epochs counted, in {train['seconds']:.0f} s."
    if validation.get("accuracy") is None or calibration is None:
        return f"{trained} No validation texts were given, so nothing is known of its accuracy."
    rows = [
        f"| {NAMES[kind]} | {validation[key]:.4f} |" for kind, key in METRICS.items() if validation.get(key) is not None
    ]
    low, high = validation["accuracy_ci95"]
    return f"""{trained} On {len(calibration.labels):,} validation texts, which also chose the best epoch:

| figure | value |
|---|---:|
{chr(10).join(rows)}

The 95 % interval of the accuracy is {low:.4f} to {high:.4f}. Divide the logits by {calibration.temperature:.3f} to
calibrate the probabilities: on these texts, to which it was fitted, the expected calibration error falls from
{calibration.ece_before:.4f} to {calibration.ece_after:.4f}."""
