"""Every architecture that docs/models.md names trains with the `default` recipe, with PEFT's gradients."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import ARCHITECTURES, ROBERTA, SMALL, made_once
from helpers import LABELS, TEXTS, plain_classifier, randomise
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from small_training import small_training
from torch import Tensor
from torch.nn.functional import cross_entropy

from bertlora.errors import ModelError
from bertlora.model.adapted import Adapted
from bertlora.model.base import find_base, longest_input, quiet
from bertlora.model.build import build_classifier, new_modules, sketch_classifier
from bertlora.model.engine.changes import takes_token_types
from bertlora.model.engine.lora_linear import LoraLinear
from bertlora.model.engine.padding import padded
from bertlora.model.machine import FP32_ALONE
from bertlora.model.plan import plan
from bertlora.model.roles import target_modules
from bertlora.model.state import load_trained_state, trained_state
from bertlora.recipe import Recipe
from bertlora.training.events import Step

EVERY: dict[str, tuple[str, dict[str, Any]]] = ARCHITECTURES | {
    "longformer": ("LongformerConfig", ROBERTA | {"attention_window": 16}),
    "roc_bert": ("RoCBertConfig", SMALL | {"enable_pronunciation": False, "enable_shape": False}),
    "gte": ("GteConfig", SMALL),
    "nomic_bert": ("NomicBertConfig", SMALL),
    "jina_embeddings_v3": ("JinaEmbeddingsV3Config", SMALL),
}
# Only Longformer's first token reaches the head. In the last layer it has its own query, key and value.
UNUSED = {"longformer": r"layer\.1\.attention\.self\.(query|key|value)\."}
EACH = pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(name, marks=pytest.mark.skipif(not hasattr(transformers, kind), reason="newer transformers only"))
        for name, (kind, _) in sorted(EVERY.items())
    ],
)
Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Returns a function: architecture → folder with a tiny random encoder."""
    return made_once(saved_encoder, tmp_path_factory)


def saved_encoder(architecture: str, folder: Path) -> Path:
    kind, keys = EVERY[architecture]
    torch.manual_seed(0)
    with quiet():
        transformers.AutoModel.from_config(getattr(transformers, kind)(**keys)).save_pretrained(folder)
    tokenizer = find_base("minilm").tokenizer()
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    return folder


def default_recipe(folder: Path, **keys: Any) -> Recipe:
    return Recipe.named("default").replace(model=str(folder), **({"max_length": 64, "precision": "fp32"} | keys))


@EACH
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_steps_of_the_default_recipe_train(folders: Folders, architecture: str, precision: str) -> None:
    if precision == "bf16" and architecture in FP32_ALONE:
        pytest.skip("runs in fp32 only")
    training = small_training(default_recipe(folders(architecture), batch_size=8, epochs=1, precision=precision))
    start = trained_state(training.plain)
    steps = [event for event in training.run() if isinstance(event, Step)]
    assert [step.step for step in steps] == [1, 2]
    moved = {name for name, value in trained_state(training.plain).items() if not value.equal(start[name])}
    updates = {name for name in start if "lora_B" in name and not re.search(UNUSED.get(architecture, "^$"), name)}
    assert updates
    assert updates <= moved


@EACH
def test_gradients_are_pefts(folders: Folders, architecture: str) -> None:
    adapted = Adapted.fresh(default_recipe(folders(architecture)), LABELS)
    randomise(adapted.model)
    theirs = pefts_own(adapted, folders(architecture))
    inputs = adapted.reader.read(TEXTS)
    batch = padded(inputs, range(len(TEXTS)), adapted.reader.pad_id, takes_token_types(adapted.model))
    found, expected = gradients(adapted.model, batch), gradients(theirs, batch)
    assert found.keys() == expected.keys()
    largest = max(float(value.norm()) for value in expected.values())
    assert largest > 0
    for name, value in expected.items():
        assert float((found[name] - value).norm()) <= 1e-4 * max(float(value.norm()), 1e-2 * largest), name


@EACH
def test_the_longest_input_has_a_position_for_each_token(folders: Folders, architecture: str) -> None:
    base = find_base(str(folders(architecture)))
    ids = torch.full((1, longest_input(base)), 2000)
    assert build_classifier(base, LABELS, 0.0, seed=0)(ids, torch.ones_like(ids)).logits.isfinite().all()


def pefts_own(adapted: Adapted, folder: Path) -> Any:
    """Returns PEFT's model of the same adapter, with PEFT's own linear layers."""
    ours = adapted.model.peft_config["default"]
    names = ("task_type", "r", "lora_alpha", "target_modules", "modules_to_save")
    with quiet():
        theirs = get_peft_model(plain_classifier(folder), LoraConfig(**{name: getattr(ours, name) for name in names}))
    assert not any(isinstance(m, LoraLinear) for m in theirs.modules())
    load_trained_state(theirs, trained_state(adapted.model))
    return theirs


def gradients(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the gradient of every trained tensor; dropout stays off."""
    moved = {name: x.to(model.device) for name, x in batch.items()}
    cross_entropy(model.eval()(**moved).logits.cpu(), torch.tensor([0, 1, 2, 0])).backward()
    return {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("architecture", "new"),
    [
        ("gte", ["classifier", "gte.pooler.dense"]),  # `AutoModel` saves these two without a pooler
        ("nomic_bert", ["classifier", "nomic_bert.pooler.dense"]),
        ("jina_embeddings_v3", ["classifier"]),
    ],
)
def test_a_checkpoint_whose_names_transformers_converts(folders: Folders, architecture: str, new: list[str]) -> None:
    """Only modules that really have no weight in the file are new, with weights and in a sketch without them."""
    if not hasattr(transformers, EVERY[architecture][0]):
        pytest.skip("newer transformers only")
    base = find_base(str(folders(architecture)))
    model, sketch = build_classifier(base, LABELS, 0.0, seed=0), sketch_classifier(base, LABELS)
    assert not set(base.tensor_names()) & {name for name in model.state_dict() if ".q_proj." in name}
    with quiet():
        encoder = transformers.AutoModel.from_pretrained(base.folder)
    stored = dict(encoder.named_parameters())
    loaded = {n: p for n, p in getattr(model, model.base_model_prefix).named_parameters() if "pooler" not in n}
    assert all(torch.equal(value, stored[name]) for name, value in loaded.items())
    assert new_modules(model) == new_modules(sketch) == new
    found = plan(default_recipe(base.folder), labels=len(LABELS))
    adapted = Adapted.fresh(default_recipe(base.folder), LABELS)
    assert (found["trainable"], found["total"]) == adapted.model.get_nb_trainable_parameters()
    layer = f"{model.base_model_prefix}.layers.0"
    assert target_modules(model, ["query", "attention-output"], adapt_last_layers=2)[:2] == [
        f"{layer}.self_attn.q_proj",
        f"{layer}.self_attn.o_proj",
    ]
    assert target_modules(model, ["ffn-out"])[0] in (f"{layer}.mlp.down_proj", f"{layer}.mlp.fc2")


def test_a_converted_checkpoint_without_a_layer_is_refused(folders: Folders, tmp_path: Path) -> None:
    if not hasattr(transformers, "GteConfig"):
        pytest.skip("newer transformers only")
    shutil.copytree(folders("gte"), tmp_path / "gte")
    file = tmp_path / "gte" / "model.safetensors"
    stored = load_file(file)
    save_file({name: value for name, value in stored.items() if ".layer.1." not in name}, file, {"format": "pt"})
    base = find_base(str(tmp_path / "gte"))
    for make in (lambda: build_classifier(base, LABELS, 0.0, seed=0), lambda: sketch_classifier(base, LABELS)):
        with pytest.raises(ModelError, match=r"do not fit its config.json \(gte\.layers\.1\."):
            make()
