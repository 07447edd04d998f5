"""The published recipes on checkpoints of full size: random weights from the configs' defaults, MiniLM's vocabulary."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from bertlora.data.prepared import Prepared, prepare
from bertlora.model.base import find_base, quiet
from bertlora.model.plan import plan
from bertlora.pipeline.training_run import train_run
from bertlora.recipe import Recipe
from bertlora.run.loaded import Run

# Recipe → kind of model, parameters trained, LoRA parameters among them
PUBLISHED = {
    "imdb-distilbert": ("DistilBert", 628_994, 36_864),
    "imdb-distilbert-quick": ("DistilBert", 628_994, 36_864),
    "imdb-distilbert-b16": ("DistilBert", 665_858, 73_728),
    "imdb-bert-cased": ("Bert", 38_402, 36_864),
    "sst2-bert": ("Bert", 148_994, 147_456),
}
# One with names for its labels and frozen layers, one with LoRA in each layer: the others differ in numbers.
TRAINED = ["imdb-distilbert-quick", "sst2-bert"]
TEXTS = ["A joy from start to finish.", "Dull and far too long."]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for kind in ("DistilBert", "Bert"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        with quiet():
            torch.manual_seed(0)
            config = getattr(transformers, f"{kind}Config")()
            getattr(transformers, f"{kind}Model")(config).save_pretrained(folders[kind])
        find_base("minilm").tokenizer().save_pretrained(folders[kind])
    return folders


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("rows")
    rows = [f"{text} Part {i}.,{label}" for i in range(20) for text, label in zip(TEXTS, ("1", "0"), strict=True)]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return prepare([str(folder / "rows.csv")], folder / "data", split="80/10/10")


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_many_parameters_are_trained_as_published(name: str, checkpoints: dict[str, Path]) -> None:
    kind, trained, adapter = PUBLISHED[name]
    found = plan(Recipe.named(name).replace(model=str(checkpoints[kind])), 2)
    assert (found["trainable"], found["lora_parameters"]) == (trained, adapter)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_trains_two_steps_saves_and_reloads(
    name: str, checkpoints: dict[str, Path], data: Prepared, tmp_path: Path
) -> None:
    kind, trained, adapter = PUBLISHED[name]
    recipe = Recipe.named(name).replace(model=str(checkpoints[kind]), max_steps=2)
    metrics = train_run(data, recipe, tmp_path / "run")
    assert metrics["train"]["steps"] == 2
    run = Run.load(tmp_path / "run")
    state = {n: p.numel() for n, p in run.adapted.model.named_parameters() if "lora_" in n or "modules_to_save" in n}
    assert sum(state.values()) == trained
    assert sum(size for n, size in state.items() if "lora_" in n) == adapter
    found = run.predict_proba(TEXTS)
    assert np.allclose(found.sum(axis=1), 1)
    # What it answered when training ended, it answers after loading.
    after = [(s["after"], s["confidence"]) for s in metrics["samples"]]
    again = run.predict_proba(list(recipe.samples))
    labels = run.manifest.labels
    assert after == [(labels[int(row.argmax())], pytest.approx(row.max(), abs=1e-6)) for row in again]
    assert labels == (["Negative", "Positive"] if recipe.label_names else ["0", "1"])
