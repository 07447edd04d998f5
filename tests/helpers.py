"""Adapters whose weights are not 0, runs made without training, and plain PEFT as the oracle."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, ModernBertForSequenceClassification

from bertlora.confidence.calibration import Calibration
from bertlora.confidence.learned import Learned
from bertlora.confidence.probabilities import Array, softmax
from bertlora.export.certificate import Certificate
from bertlora.hashes import hashes_of, names_below, sealed
from bertlora.model.adapted import Adapted
from bertlora.model.adapter_files import weights_bytes
from bertlora.model.base import find_base, quiet
from bertlora.recipe import Recipe
from bertlora.run.folder import save_run
from bertlora.run.manifest import Manifest

LABELS = ["negative", "positive", "mixed"]
TEXTS = [
    "a joy",
    "the film is dull, and far too long for what little it has to say about anything at all",
    "unforgettable",
    "not bad at all, though the sequel beats the first part by a mile and then some",
]
PAIRS = ["it was good", "short", "a much longer second text, which has more words than the first of the pair", "x y z"]

# Architecture → what a user of PEFT writes for query and value, and for other new modules than the classifier.
USUAL: dict[str, tuple[list[str], list[str]]] = {
    "bert": (["query", "value"], []),
    "distilbert": (["q_lin", "v_lin"], []),
    "roberta": (["query", "value"], []),
    "electra": (["query", "value"], []),
    "mpnet": (["attn.q", "attn.v"], []),
    "deberta": (["in_proj"], ["pooler"]),
    "deberta-v2": (["query_proj", "value_proj"], ["pooler"]),
    "modernbert": (["Wqkv"], ["head"]),
}
EVERY = sorted(USUAL)
INT8 = pytest.mark.skipif(torch.cuda.is_available(), reason="int8 runs on a CPU only")
# transformers up to 5.5 cannot give ModernBERT another attention; it then takes padded batches.
SWITCHES = ModernBertForSequenceClassification._can_set_attn_implementation()
# LoRA on query and value, and nothing else: the same adapter as `USUAL` gives.
PLAIN: dict[str, Any] = {
    "targets": ["query", "value"],
    "head_start": "random",
    "warmup_fraction": 0.0,
    "truncation": "right",
    "average_weights": 0.0,
}


def tiny_recipe(folder: Path, **keys: Any) -> Recipe:
    """Returns a recipe on the tiny model in `folder`."""
    settings: dict[str, Any] = PLAIN | {"max_length": 64, "rank": 4, "precision": "fp32"}
    return Recipe(model=str(folder)).replace(**(settings | keys))


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Moves every trainable tensor: B starts at 0, with which most tests would pass in vain."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.device))


def adapted_of(folder: Path, labels: list[str] = LABELS, pairs: bool | None = None, **keys: Any) -> Adapted:
    """Returns an adapter on the tiny model in `folder`, with weights drawn at random."""
    adapted = Adapted.fresh(tiny_recipe(folder, **keys), labels, pairs)
    randomise(adapted.model)
    adapted.model.eval()
    return adapted


def save_tiny_run(folder: Path, adapted: Adapted, calibration: Learned | None = None) -> Manifest:
    """Writes the run folder of an adapter that was not trained."""
    template = adapted.reader.template
    recipe = tiny_recipe(Path(adapted.base.id), max_length=template.max_length, truncation=template.truncation)
    metrics: dict[str, Any] = {
        "run": str(folder),
        "train": {"examples": 4, "seconds": 1.0},
        "validation": None,
        "epochs": [],
    }
    return save_run(
        folder, adapted, recipe, metrics, calibration=calibration or Calibration.without_rows(len(adapted.labels))
    )


def cover_again(folder: Path) -> None:
    """Gives run.json the hashes of what its folder has now, after a test has changed a file."""
    if (folder / "adapter").is_dir():
        cover_again(folder / "adapter")
    table = json.loads((folder / "run.json").read_text())
    names = [name for name in names_below(folder, without=("run.json", "README.md", "report.html")) if "/" not in name]
    names += [name for name in table["files"] if "/" in name]
    table["files"] = hashes_of(folder, [name for name in names if (folder / name).is_file()])
    (folder / "run.json").write_text(sealed(table))


def change_weights(folder: Path) -> None:
    """Gives a run other weights, finite and with hashes that fit: only the answers of its certificate show it."""
    file = folder / "adapter" / "adapter_model.safetensors"
    draw = torch.Generator().manual_seed(9)
    tensors = {name: value + 0.1 * torch.randn(value.shape, generator=draw) for name, value in load_file(file).items()}
    file.write_bytes(weights_bytes(tensors))
    certificate = folder / "certificate.json"
    table = json.loads(certificate.read_text())
    certificate.write_text(json.dumps(table | {"files": hashes_of(folder, table["files"])}))
    cover_again(folder)


def shift_answers(folder: Path, by: float) -> None:
    """Adds to the first output of a merged export, whose hashes stay right: as if this machine computed otherwise."""
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][0] += by
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    certificate = Certificate.load(folder)
    assert certificate is not None
    certificate.save(folder)
    cover_again(folder)


def plain_classifier(folder: Path, classes: int = len(LABELS), seed: int = 0) -> Any:
    """Returns transformers' own classifier on the tiny model, without dropout."""
    config = find_base(str(folder)).config([str(i) for i in range(classes)], encoder_dropout=0.0)
    torch.manual_seed(seed)
    with quiet():
        return AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32).eval()


def plain_peft(architecture: str, folder: Path, classes: int = len(LABELS), **keys: Any) -> Any:
    """Returns PEFT's own model, as its users make it for query and value."""
    targets, whole = USUAL[architecture]
    config = LoraConfig(
        **({"task_type": "SEQ_CLS", "r": 4, "target_modules": targets, "modules_to_save": whole} | keys)
    )
    with quiet():
        return get_peft_model(plain_classifier(folder, classes), config).eval()


def peft_logits(folder: Path, adapter: Path, texts: list[str], pairs: list[str] | None = None) -> Array:
    """Returns the logits of texts by PEFT and transformers, without bertlora, with the tokenizer of the adapter."""
    classes = len(LABELS)
    with quiet():
        model = PeftModel.from_pretrained(plain_classifier(folder, classes, seed=99), str(adapter)).eval()
    return transformers_logits(model, adapter, texts, pairs)


def transformers_logits(model: Any, tokenizer: Path, texts: list[str], pairs: list[str] | None = None) -> Array:
    """Returns a model's logits for one batch that its own tokenizer pads and cuts."""
    batch = AutoTokenizer.from_pretrained(tokenizer)(texts, pairs, truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return np.asarray(model(**batch).logits.double().numpy())


def logits_of(adapted: Adapted, texts: list[str], pairs: list[str] | None = None, **keys: Any) -> Array:
    """Returns our own logits for texts."""
    return adapted.logits(adapted.reader.read(texts, pairs), **keys)


def probabilities_of(adapted: Adapted, texts: list[str], pairs: list[str] | None = None, base: bool = False) -> Array:
    """Returns our own probabilities for texts, not calibrated."""
    return softmax(logits_of(adapted, texts, pairs, base=base))


@contextmanager
def little_memory(more: int = 1 << 30) -> Iterator[None]:
    """Inside, this process may map only this many bytes more."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
