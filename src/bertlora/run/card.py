"""The model card: adapter/README.md."""

from typing import Any

from bertlora.recipe import Recipe
from bertlora.run.manifest import Manifest


def model_card(manifest: Manifest, base_id: str, recipe: Recipe, metrics: dict[str, Any]) -> str:
    """Returns the adapter's README: what it is, on what, and what was measured."""
    validation = metrics.get("validation") or {}
    accuracy = validation.get("accuracy")
    seen = metrics["train"]["examples"]
    judged = "no validation texts were given" if accuracy is None else f"validation accuracy {accuracy:.4f}"
    return f"""---
base_model: {base_id}
library_name: peft
pipeline_tag: text-classification
tags: [lora, text-classification, bertlora]
---

A LoRA adapter for text classification, trained with bertlora {manifest.versions["bertlora"]}.

- labels, in the order of the logits: {", ".join(manifest.labels)}
- input: at most {manifest.max_length} tokens, truncation {manifest.truncation}
- LoRA: rank {recipe.rank}, alpha {recipe.alpha:g}, variant {recipe.variant}, on {", ".join(recipe.targets)}
- base weights: SHA-256 {manifest.base["sha256"]}
- {seen} examples seen in training, epochs counted; {judged}

```python
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

base = AutoModelForSequenceClassification.from_pretrained("{base_id}", num_labels={len(manifest.labels)})
model = PeftModel.from_pretrained(base, "THIS FOLDER")
```
"""
