"""The fast engine against the padded path and PEFT's own model: logits, loss and gradients of whole classifiers."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import ARCHITECTURES, made_once
from helpers import INT8, LABELS, SWITCHES, adapted_of, plain_classifier
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bertlora.data.inputs import Inputs
from bertlora.data.tokens import TokenTable
from bertlora.model.adapted import Adapted
from bertlora.model.base import find_base, quiet
from bertlora.model.engine import evaluating
from bertlora.model.engine import execution as execution_module
from bertlora.model.engine import layers as layers_module
from bertlora.model.engine.attention import NAME
from bertlora.model.engine.changes import takes_token_types, unwrapped
from bertlora.model.engine.execution import WORTH_PREPARING, Execution, executing
from bertlora.model.engine.layers import Route, encoder_layers, served
from bertlora.model.engine.lora_linear import LoraLinear
from bertlora.model.engine.packing import Packing
from bertlora.model.engine.padding import padded
from bertlora.model.engine.prefix import frozen_depth

LONGEST = 90
# A first layer, one in the middle, where query, key and value are joined, and a last one, only for first tokens.
DEPTH = {"num_hidden_layers": 3}
V3 = {
    "position_buckets": 16,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
}
SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    name: (ARCHITECTURES[name][0], ARCHITECTURES[name][1] | DEPTH)
    for name in ("bert", "roberta", "xlm-roberta", "camembert", "data2vec-text", "electra", "ernie", "albert", "mpnet")
}
# Two calls of one layer, and one of another.
SERVED["albert-groups"] = "AlbertConfig", SERVED["albert"][1] | {"num_hidden_groups": 2}
SERVED["distilbert"] = "DistilBertConfig", ARCHITECTURES["distilbert"][1] | {"n_layers": 3}
SERVED |= {
    # Local layers in the middle and at the end; the windows are far shorter than the texts.
    name: ("ModernBertConfig", ARCHITECTURES[name][1] | DEPTH | {"global_attn_every_n_layers": 3})
    for name in ("modernbert", "modernbert-mean")
}
# As DeBERTa-v3: tables shared with the layer's own query and key, ranges of long distances, no positions in the input.
SERVED["deberta-v2"] = "DebertaV2Config", ARCHITECTURES["deberta-v2"][1] | DEPTH | V3
# Tables with layers of their own, and one entry for each distance.
SERVED["deberta-v2-apart"] = "DebertaV2Config", ARCHITECTURES["deberta-v2"][1] | DEPTH
EVERY = sorted(name for name in SERVED if SWITCHES or not name.startswith("modernbert"))
EACH = pytest.mark.parametrize("architecture", EVERY)
# Several buckets: long texts of unlike lengths, short ones that share matrices, and no two in order.
LENGTHS = [5, 90, 41, 67, 3, 90, 12, 64, 65, 20, 3, 33]
LABELLED = torch.tensor([i % len(LABELS) for i in range(len(LENGTHS))])
FEW = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Returns a function: architecture → folder with a tiny random encoder of three layers."""
    return made_once(saved_encoder, tmp_path_factory)


def saved_encoder(architecture: str, folder: Path, **changes: Any) -> Path:
    kind, keys = SERVED[architecture]
    torch.manual_seed(0)
    with quiet():
        model = transformers.AutoModel.from_config(getattr(transformers, kind)(**(keys | changes)))
        for name, parameter in model.named_parameters():
            # Biases too: they start at 0, and one that is lost would not show.
            nn.init.normal_(parameter, mean=float("norm" in name.lower() and "weight" in name), std=0.2)
        model.save_pretrained(folder)
    tokenizer = find_base("minilm").tokenizer()
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    return folder


def adapter(folder: Path, **keys: Any) -> Adapted:
    """Returns an adapter with A and B drawn at random, in training mode, its dropout off."""
    adapted = adapted_of(folder, **({"max_length": LONGEST, "targets": ["all-linear"]} | keys))
    adapted.model.train()
    return adapted


def texts(adapted: Adapted, lengths: Sequence[int], seed: int = 0, paired: bool = False) -> Inputs:
    """Returns texts of these lengths in tokens, with special tokens. Ids are few, so that padding's id occurs too."""
    rng = np.random.default_rng(seed)
    template = adapted.reader.template
    special = template.max_length - template.room(pair=paired)
    rows = [rng.integers(0, 40, size=max(0, length - special)).tolist() for length in lengths]
    first = TokenTable.of([row[: len(row) // 2] if paired else row for row in rows])
    return Inputs(template, first, TokenTable.of([row[len(row) // 2 :] for row in rows]) if paired else None)


def scores_of(execution: Execution, inputs: Inputs) -> Tensor:
    """Returns logits of all texts in the order of the inputs, from batches as large as may be."""
    rows = [row for batch in execution.batches(inputs.lengths, 1000, 8192) for row in batch]
    scores = torch.cat([execution.logits(inputs, batch) for batch in execution.batches(inputs.lengths, 1000, 8192)])
    return scores.cpu()[torch.tensor(rows).argsort()]


def logits_by(adapted: Adapted, inputs: Inputs, pack: bool = True, precision: str = "fp32", **keys: Any) -> Tensor:
    """Returns the logits of an execution without gradients, which is asserted to pack or not."""
    with (
        executing(adapted.model, adapted.reader.pad_id, precision, pack=pack, **keys) as execution,
        evaluating(adapted.model),
        torch.inference_mode(),
    ):
        assert execution.packs == pack
        return scores_of(execution, inputs)


def learned(model: nn.Module, compute: Callable[[], Tensor]) -> tuple[float, dict[str, Tensor]]:
    """Returns the loss and the gradients of all that is trained, in their own type."""
    model.zero_grad()
    loss = cross_entropy(compute().cpu(), LABELLED)
    loss.backward()
    gradients = {n: p.grad.cpu().clone() for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    return float(loss.detach()), gradients


def learned_by(adapted: Adapted, inputs: Inputs, precision: str = "fp32") -> tuple[float, dict[str, Tensor]]:
    """Returns the same by the fast path."""
    with executing(adapted.model, adapted.reader.pad_id, precision, training=True) as execution:
        assert execution.packs
        return learned(adapted.model, lambda: scores_of(execution, inputs))


def pefts_own(adapted: Adapted, folder: Path) -> Any:
    """Returns PEFT's own model, with PEFT's own layers, on transformers' own attention, with our parameters."""
    ours = adapted.model.peft_config["default"]
    names = ("task_type", "r", "lora_alpha", "bias", "target_modules", "modules_to_save", "use_rslora", "use_dora")
    with quiet():
        theirs = get_peft_model(plain_classifier(folder), LoraConfig(**{name: getattr(ours, name) for name in names}))
    assert not any(isinstance(m, LoraLinear) for m in theirs.modules())
    values, target = dict(adapted.model.named_parameters()), dict(theirs.named_parameters())
    assert values.keys() == target.keys()
    with torch.no_grad():
        for name, value in target.items():
            value.copy_(values[name])
    return theirs.train()


def exact_by(theirs: Any, batch: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """Returns loss and gradients of PEFT's own model in float64.

    In float32 it cannot be the measure: where a softmax takes q's and k's gradients all but away, its own rounding is
    2e-5 of what is left.
    """
    double = theirs.double()
    return learned(double, lambda: double(**batch).logits)


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], within: float) -> None:
    """Each tensor differs by less than `within` of its own norm (or of a twentieth of the largest one's).

    A bias of the keys has no gradient but rounding: a softmax does not see it.
    """
    assert found.keys() == expected.keys()
    largest = max(float(value.norm()) for value in expected.values())
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        difference = float((found[name].double() - value).norm())
        assert difference <= within * max(float(value.norm()), 0.05 * largest), (name, difference, float(value.norm()))


def whole_batch(adapted: Adapted, inputs: Inputs) -> dict[str, Tensor]:
    return padded(inputs, range(len(inputs)), adapted.reader.pad_id, takes_token_types(adapted.model))


def test_every_architecture_with_packed_rows_is_tested() -> None:
    assert {getattr(transformers, kind).model_type for kind, _ in SERVED.values()} == layers_module._FAMILIES.keys()


@EACH
@pytest.mark.parametrize("paired", [False, True], ids=["texts", "pairs"])
def test_packed_logits_equal_the_padded_paths(paired: bool, architecture: str, folders: Folders) -> None:
    adapted = adapter(folders(architecture))
    inputs = texts(adapted, LENGTHS, paired=paired)
    assert sum(inputs.lengths) > adapted.model.config.max_position_embeddings
    packed, plain = (logits_by(adapted, inputs, pack) for pack in (True, False))
    assert float((packed - plain).abs().max()) <= 1e-5
    assert float((packed[0] - packed[1]).abs().max()) > 1e-2


@EACH
@pytest.mark.parametrize(
    "keys",
    [
        {"targets": ["all-linear"]},
        {"targets": ["query"]},
        {"targets": ["query", "key", "value"]},
        {"variant": "rslora"},
        {"variant": "dora"},
        {"bias": "all"},
        {"bias": "lora_only", "targets": ["value", "ffn-in"]},
        {"adapt_last_layers": 1},
    ],
    ids=str,
)
def test_loss_and_gradients_equal_pefts(keys: dict[str, Any], architecture: str, folders: Folders) -> None:
    # With a greater alpha, rounding grows to 1e-5 on its way through an ALBERT's calls of one layer, by any attention.
    adapted = adapter(folders(architecture), alpha=4, **keys)
    inputs = texts(adapted, LENGTHS)
    theirs = pefts_own(adapted, folders(architecture))
    expected_loss, expected = exact_by(theirs, whole_batch(adapted, inputs))
    loss, gradients = learned_by(adapted, inputs)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert {name.rpartition("lora_")[2][:1] for name in gradients if "lora_" in name} >= {"A", "B"}
    assert any("classifier" in name or "head" in name for name in gradients)
    assert_near(gradients, expected, 1e-5)


@EACH
def test_gradients_of_pairs_equal_pefts(architecture: str, folders: Folders) -> None:
    adapted = adapter(folders(architecture))
    inputs = texts(adapted, LENGTHS, paired=True)
    theirs = pefts_own(adapted, folders(architecture))
    expected_loss, expected = exact_by(theirs, whole_batch(adapted, inputs))
    loss, gradients = learned_by(adapted, inputs)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_near(gradients, expected, 1e-5)


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Returns how far all gradients together are from those expected, as a fraction of their norm."""
    first, second = (torch.cat([gradients[name].flatten() for name in expected]) for gradients in (found, expected))
    return float((first - second).norm() / second.norm())


@EACH
@pytest.mark.parametrize("keys", [{}, {"targets": ["query"]}, {"variant": "dora"}, {"bias": "all"}], ids=str)
def test_gradients_in_bf16_are_near_those_in_fp32(keys: dict[str, Any], architecture: str, folders: Folders) -> None:
    # A greater alpha makes of a tiny random model one in which any rounding grows.
    adapted = adapter(folders(architecture), alpha=2, **keys)
    inputs = texts(adapted, LENGTHS)
    theirs = pefts_own(adapted, folders(architecture))
    batch = whole_batch(adapted, inputs)

    def mixed() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return theirs(**batch).logits.float()

    exact_loss, exact = learned_by(adapted, inputs)
    usual = distance(learned(theirs, mixed)[1], exact)
    loss, rough = learned_by(adapted, inputs, "bf16")
    assert loss == pytest.approx(exact_loss, rel=0.05)
    # A few percent, or where torch's own mixed precision is further off, not much further than that.
    assert 1e-4 < distance(rough, exact) <= max(0.06, 2 * usual)
    assert_near(rough, exact, 0.3)


@INT8
@EACH
@pytest.mark.parametrize("keys", [{}, {"targets": ["query"]}, {"bias": "all"}], ids=str)
def test_gradients_in_int8_are_near_those_in_fp32(keys: dict[str, Any], architecture: str, folders: Folders) -> None:
    adapted = adapter(folders(architecture), alpha=2, **keys)
    inputs = texts(adapted, LENGTHS)
    exact_loss, exact = learned_by(adapted, inputs)
    loss, rough = learned_by(adapted, inputs, "int8")
    assert loss == pytest.approx(exact_loss, rel=0.05)
    assert 1e-4 < distance(rough, exact) <= 0.2
    assert_near(rough, exact, 0.4)


@EACH
def test_weights_are_held_in_bf16_where_only_lora_is_trained(architecture: str, folders: Folders) -> None:
    for keys in ({}, {"bias": "all"}, {"variant": "dora"}):
        adapted = adapter(folders(architecture), **keys)
        layers = encoder_layers(adapted.model)
        biased = "bias" in keys and any(name.endswith("bias") for name, _ in layers.named_parameters())
        resident = not biased and "variant" not in keys
        with executing(adapted.model, adapted.reader.pad_id, "bf16", training=True) as execution:
            assert execution.autocast == (None if resident else torch.bfloat16)
            frozen = [p for p in layers.parameters() if not p.requires_grad]
            assert {p.dtype for p in frozen} == {torch.bfloat16 if resident else torch.float32}
            assert {p.dtype for p in adapted.model.parameters() if p.requires_grad} == {torch.float32}
        # For few texts the cast costs more than it saves, so they run in fp32.
        with executing(adapted.model, adapted.reader.pad_id, "bf16", tokens=WORTH_PREPARING - 1) as execution:
            assert not execution.autocast
            assert {p.dtype for p in layers.parameters()} == {torch.float32}


def test_dropout_of_lora_is_drawn_in_the_fast_path_too(folders: Folders) -> None:
    adapted = adapter(folders("bert"), lora_dropout=0.3)
    inputs = texts(adapted, LENGTHS)
    with executing(adapted.model, adapted.reader.pad_id, "fp32", training=True) as execution:
        drawn = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            drawn.append(scores_of(execution, inputs).detach())
        adapted.model.eval()
        exact = scores_of(execution, inputs).detach()
    assert torch.equal(drawn[0], drawn[1])
    assert float((drawn[0] - drawn[2]).abs().max()) > 1e-3
    assert torch.allclose(exact, logits_by(adapted, inputs, pack=False), atol=1e-5)


@EACH
@FEW
@given(
    lengths=st.lists(st.integers(2, LONGEST), min_size=2, max_size=14),
    seed=st.integers(0, 9),
    tokens=st.sampled_from([1, 100, 8192]),
)
def test_lengths_order_and_mates_change_nothing(
    architecture: str, folders: Folders, lengths: list[int], seed: int, tokens: int
) -> None:
    adapted = ONCE.setdefault(architecture, adapter(folders(architecture)))
    inputs = texts(adapted, lengths, seed)
    order = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    shuffled = inputs.take(order)
    with (
        executing(adapted.model, adapted.reader.pad_id, "fp32") as execution,
        evaluating(adapted.model),
        torch.inference_mode(),
    ):
        alone = torch.cat([execution.logits(inputs, [row]) for row in range(len(lengths))])
        together = torch.empty_like(alone)
        for batch in execution.batches(shuffled.lengths, 1000, tokens):
            together[[order[row] for row in batch]] = execution.logits(shuffled, batch)
    assert float((together - alone).abs().max()) <= 1e-5


ONCE: dict[str, Adapted] = {}


@EACH
def test_filler_may_be_longer_than_the_model_has_positions(architecture: str, tmp_path: Path) -> None:
    adapted = adapter(saved_encoder(architecture, tmp_path, max_position_embeddings=66), max_length=60)
    inputs = texts(adapted, [60] * 68 + [17, 2])
    packing = Packing(tuple(inputs.lengths.tolist()), torch.device("cpu"))
    assert packing.row - packing.tokens > 66
    packed, plain = (logits_by(adapted, inputs, pack) for pack in (True, False))
    assert float((packed - plain).abs().max()) <= 1e-5


def snapshot(model: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns a copy of all tensors, and what else an execution changes."""
    inner = unwrapped(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state |= {f"parameter {name}": value.detach().clone() for name, value in model.named_parameters()}
    rest = {
        "storage": {name: value.data_ptr() for name, value in model.named_parameters()},
        "attention": {m.config._attn_implementation for m in inner.modules() if hasattr(m, "config")},
        "own": sorted(name for name, m in model.named_modules() if "forward" in vars(m)),
        "merged": [bool(m.merged) for m in model.modules() if isinstance(m, LoraLayer)],
        "trained": [p.requires_grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
    }
    return state, rest


@contextmanager
def left_as_it_came(model: Any) -> Iterator[None]:
    """Fails unless the model is the same afterwards, to the bit."""
    state, rest = snapshot(model)
    assert rest["own"] == []
    assert NAME not in rest["attention"]
    yield
    after, other = snapshot(model)
    assert after.keys() == state.keys()
    for name, value in state.items():
        assert after[name].dtype == value.dtype, name
        assert torch.equal(after[name], value), name
    assert {value.dtype for value in after.values() if value.is_floating_point()} == {torch.float32}
    assert other == rest
    for module in model.modules():
        assert getattr(module, "joint", None) is None
        assert getattr(module, "frozen", None) is None


@EACH
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "prediction"])
@pytest.mark.parametrize("keys", [{}, {"targets": ["query"]}, {"variant": "dora"}, {"bias": "all"}], ids=str)
def test_an_execution_leaves_the_model_to_the_bit(
    keys: dict[str, Any], training: bool, precision: str, architecture: str, folders: Folders
) -> None:
    adapted = adapter(folders(architecture), **keys)
    model, pad_id = adapted.model, adapted.reader.pad_id
    inputs = texts(adapted, [40, 70, 8])
    made = snapshot(model)[1]["storage"]
    with left_as_it_came(model):
        with executing(model, pad_id, precision, tokens=10**6, training=training) as execution:
            # Some take no attention; their forwards are replaced.
            takes = unwrapped(model).config.model_type not in layers_module._OWN_FORWARDS
            assert (unwrapped(model).config._attn_implementation == NAME) == takes
            assert all("forward" in vars(m) for m in encoder_layers(model))
            inside = snapshot(model)[1]["storage"]
            # Merged into copies, or held in bf16; elsewhere the weights themselves are used.
            assert inside != made or execution.autocast or precision == "fp32"
            assert inside != made or training
            scores_of(execution, inputs)
        model.zero_grad()


@EACH
@pytest.mark.parametrize("training", [True, False], ids=["training", "prediction"])
def test_an_exception_leaves_the_model_to_the_bit(training: bool, architecture: str, folders: Folders) -> None:
    adapted = adapter(folders(architecture), targets=["query", "value"])
    with left_as_it_came(adapted.model):
        with pytest.raises(KeyError, match="inside"):
            fail_within(adapted, training)
        # A pass that broke off leaves nothing that the next one could mistake for its own.
        assert torch.allclose(*(logits_by(adapted, texts(adapted, [9, 70]), pack) for pack in (True, False)), atol=1e-5)


def fail_within(adapted: Adapted, training: bool) -> None:
    with executing(adapted.model, adapted.reader.pad_id, "bf16", tokens=10**6, training=training) as execution:
        execution.logits(texts(adapted, [70, 9]), [0, 1])
        raise KeyError("inside")


@pytest.mark.parametrize("failing", ["merged", "held_in", "frozen"])
def test_an_exception_on_the_way_in_leaves_the_model_to_the_bit(
    failing: str, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted = adapter(folders("bert"))

    def fails(*args: Any) -> Any:
        raise MemoryError(failing)

    monkeypatch.setattr(execution_module, failing, fails)
    with (
        left_as_it_came(adapted.model),
        pytest.raises(MemoryError, match=failing),
        executing(adapted.model, adapted.reader.pad_id, "bf16", tokens=10**6),
    ):
        pytest.fail("was entered")


def test_models_that_are_not_served_take_padded_batches(tiny: Folders) -> None:
    adapted = adapted_of(tiny("deberta"), targets=["all-linear"])
    assert not served(adapted.model)
    check_padded(adapted)


def test_an_mpnet_with_a_trained_bias_takes_padded_batches(tmp_path: Path) -> None:
    """What a checkpoint lacks is trained; packed rows would give the bias by distance no gradient."""
    weights = saved_encoder("mpnet", tmp_path) / "model.safetensors"
    values = load_file(weights)
    del values["encoder.relative_attention_bias.weight"]
    save_file(values, weights, {"format": "pt"})
    adapted = adapter(tmp_path)
    assert any("relative_attention_bias" in n for n, p in adapted.model.named_parameters() if p.requires_grad)
    assert not served(adapted.model)
    check_padded(adapted)


def test_an_mpnet_with_another_padding_id_takes_padded_batches(tmp_path: Path) -> None:
    """transformers' MPNet leaves out the id 1 when it counts positions, whatever its config says."""
    adapted = adapter(saved_encoder("mpnet", tmp_path, pad_token_id=0))
    assert not served(adapted.model)
    check_padded(adapted)


@pytest.mark.parametrize(
    "changes",
    [
        {"share_att_key": False},
        {"position_buckets": -1},
        {"position_buckets": -1, "max_relative_positions": 20},
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"], "share_att_key": False},
        {"pos_att_type": []},
        {"norm_rel_ebd": "none", "position_biased_input": True},
        {"type_vocab_size": 2},
    ],
    ids=str,
)
def test_a_deberta_of_any_kind_has_pefts_gradients(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = saved_encoder("deberta-v2", tmp_path, **changes)
    adapted = adapter(folder, alpha=4)
    inputs = texts(adapted, LENGTHS, paired=True)
    expected_loss, expected = exact_by(pefts_own(adapted, folder), whole_batch(adapted, inputs))
    loss, gradients = learned_by(adapted, inputs)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_near(gradients, expected, 1e-5)


@pytest.mark.parametrize("changes", [{"conv_kernel_size": 3}, {"relative_attention": False}], ids=str)
def test_a_deberta_with_a_convolution_or_without_distances_takes_padded_batches(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    adapted = adapter(saved_encoder("deberta-v2", tmp_path, **changes))
    assert not served(adapted.model)
    check_padded(adapted)


def test_the_relative_embeddings_of_a_deberta_learn_too(tmp_path: Path) -> None:
    """What a checkpoint lacks is trained, and then no layer is frozen."""
    weights = saved_encoder("deberta-v2", tmp_path) / "model.safetensors"
    values = load_file(weights)
    del values["encoder.LayerNorm.weight"], values["encoder.LayerNorm.bias"], values["encoder.rel_embeddings.weight"]
    save_file(values, weights, {"format": "pt"})
    adapted = adapter(tmp_path, alpha=4, adapt_last_layers=1)
    inputs = texts(adapted, LENGTHS)
    expected_loss, expected = exact_by(pefts_own(adapted, tmp_path), whole_batch(adapted, inputs))
    loss, gradients = learned_by(adapted, inputs)
    assert {"rel_embeddings", "LayerNorm"} <= {part for name in gradients for part in name.split(".")}
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_near(gradients, expected, 1e-5)
    assert frozen_depth(adapted.model) == 0
    for name, parameter in adapted.model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and "rel_embeddings" not in name)
    assert frozen_depth(adapted.model) == 0


def test_layers_of_an_albert_are_in_the_order_of_their_calls(tmp_path: Path) -> None:
    groups = {"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2}
    model, calls = adapter(saved_encoder("albert", tmp_path, **groups)).model, list[nn.Module]()
    layers = encoder_layers(model)
    for layer in set(layers):
        layer.register_forward_hook(lambda module, *_: calls.append(module))
    model(torch.tensor([[5, 6, 7]], device=model.device))
    assert len(set(calls)) == 4
    assert calls == list(layers)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_a_model_that_keeps_its_own_attention_takes_padded_batches(
    architecture: str, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers up to 5.5 logs that ModernBERT's attention cannot be switched, and leaves it as it is."""
    adapted = adapter(folders(architecture))
    inputs = texts(adapted, LENGTHS)
    expected = logits_by(adapted, inputs, pack=False)
    kind = type(unwrapped(adapted.model))
    monkeypatch.setattr(layers_module, "_ACCEPTING", {})
    monkeypatch.setattr(kind, "_can_set_attn_implementation", classmethod(lambda cls: False))
    assert not served(adapted.model)
    before = adapted.model.config._attn_implementation
    with executing(adapted.model, adapted.reader.pad_id, "fp32") as execution, evaluating(adapted.model):
        assert not execution.packs
        assert torch.equal(scores_of(execution, inputs), expected)
    assert adapted.model.config._attn_implementation == before


def test_an_attention_that_one_part_keeps_is_noticed(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name must arrive in the config of every module, not only in the classifier's."""
    adapted = adapter(folders("bert"))
    monkeypatch.setattr(layers_module, "_ACCEPTING", {})
    assert served(adapted.model)
    attention = unwrapped(adapted.model).bert.encoder.layer[1].attention.self
    attention.config = copy.deepcopy(attention.config)
    layers_module._ACCEPTING.clear()
    assert not served(adapted.model)


def check_padded(adapted: Adapted) -> None:
    """Fails unless all that an execution offers is right without packing."""
    inputs = texts(adapted, [30, 50, 3, 64])
    with evaluating(adapted.model), torch.inference_mode():
        one_by_one = [padded(inputs, [row], adapted.reader.pad_id, takes_types=False) for row in range(len(inputs))]
        moved = [{name: x.to(adapted.model.device) for name, x in batch.items()} for batch in one_by_one]
        expected = torch.cat([adapted.model(**batch).logits for batch in moved]).cpu()
    for tokens in (0, 10**6):
        with (
            left_as_it_came(adapted.model),
            executing(adapted.model, adapted.reader.pad_id, "fp32", tokens=tokens) as execution,
            evaluating(adapted.model),
            torch.inference_mode(),
        ):
            assert not execution.packs
            assert torch.allclose(scores_of(execution, inputs), expected, atol=1e-5)
    with executing(adapted.model, adapted.reader.pad_id, "fp32", training=True) as execution:
        assert not execution.packs
        assert torch.allclose(scores_of(execution, inputs), expected, atol=1e-5)


@EACH
def test_a_frozen_prefix_may_be_given(architecture: str, folders: Folders) -> None:
    adapted = adapter(folders(architecture))
    inputs = texts(adapted, LENGTHS)
    rows = np.argsort(-inputs.lengths, kind="stable").tolist()
    with (
        executing(adapted.model, adapted.reader.pad_id, "fp32") as execution,
        evaluating(adapted.model),
        torch.inference_mode(),
    ):
        whole = execution.logits(inputs, rows)
        for begin in range(3):
            first = Route(end=begin, keep=True)
            execution.logits(inputs, rows, route=first)
            assert first.hidden is not None
            given = first.hidden.clone()
            assert torch.allclose(
                execution.logits(inputs, rows, route=Route(begin=begin, given=given)), whole, atol=1e-5
            )
            # It is what is given that counts, not what stands below.
            moved = execution.logits(
                inputs, rows, route=Route(begin=begin, given=given + 0.5 * torch.randn_like(given))
            )
            assert float((moved - whole).abs().max()) > 1e-2
        every = Route(keep=True)
        assert torch.allclose(execution.logits(inputs, rows, route=every), whole, atol=1e-5)


@pytest.mark.parametrize("architecture", [name for name in EVERY if name != "albert"])
def test_a_frozen_prefix_gives_the_gradients_of_the_whole(architecture: str, folders: Folders) -> None:
    adapted = adapter(folders(architecture), adapt_last_layers=1)
    inputs = texts(adapted, LENGTHS)
    rows = np.argsort(-inputs.lengths, kind="stable").tolist()
    labels = torch.argsort(torch.tensor(rows))
    depth = frozen_depth(adapted.model)
    assert depth >= 2
    with executing(adapted.model, adapted.reader.pad_id, "fp32", training=True) as execution:
        _, expected = learned(adapted.model, lambda: execution.logits(inputs, rows)[labels])
        first = Route(end=depth, keep=True)
        with torch.no_grad():
            execution.logits(inputs, rows, route=first)
        route = Route(begin=depth, given=first.hidden)
        _, found = learned(adapted.model, lambda: execution.logits(inputs, rows, route=route)[labels])
    assert_near(found, expected, 1e-5)


@EACH
def test_features_are_the_padded_paths(architecture: str, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = adapter(folders(architecture))
    inputs = texts(adapted, LENGTHS)
    with adapted.execution(tokens=0) as execution:
        scores, found = execution.features(inputs)
    monkeypatch.setattr(execution_module, "served", lambda model: False)
    with adapted.execution(tokens=0) as execution:
        plain_scores, expected = execution.features(inputs)
    assert np.abs(scores - plain_scores).max() <= 1e-5
    assert np.abs(found - expected).max() <= 1e-4


@EACH
@pytest.mark.parametrize(
    "keys", [{}, {"variant": "rslora"}, {"variant": "dora"}, {"variant": "pissa"}, {"bias": "all"}], ids=str
)
def test_merged_prediction_equals_unmerged(
    keys: dict[str, Any], architecture: str, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted = adapter(folders(architecture), **keys)
    inputs = texts(adapted, LENGTHS)
    unmerged = logits_by(adapted, inputs)
    base = adapted.logits(inputs, base=True)
    monkeypatch.setattr(execution_module, "WORTH_PREPARING", 0)
    with executing(adapted.model, adapted.reader.pad_id, "fp32"):
        assert all(m.merged for m in adapted.model.modules() if isinstance(m, LoraLayer))
    for pack in (True, False):
        assert float((logits_by(adapted, inputs, pack) - unmerged).abs().max()) <= 1e-5
    # Switched off, there is nothing to merge.
    assert np.abs(adapted.logits(inputs, base=True) - base).max() <= 1e-5
    assert np.abs(unmerged.numpy() - base).max() > 1e-2
    rough = logits_by(adapted, inputs, precision="bf16")
    assert 0 < float((rough - unmerged).norm()) <= 0.1 * float(unmerged.norm())
