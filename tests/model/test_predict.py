"""Texts → logits: padding, batch mates and order never change them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import EVERY, PAIRS, TEXTS, adapted_of, logits_of, probabilities_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertlora.confidence.probabilities import cross_entropy, softmax
from bertlora.errors import InputError, RecipeError
from bertlora.model import machine
from bertlora.model.adapted import Adapted
from bertlora.model.engine import evaluating
from bertlora.model.engine.changes import takes_token_types, unwrapped
from bertlora.model.engine.padding import padded
from bertlora.model.machine import FP32_ALONE, choose_precision

Tiny = Callable[[str], Path]
FEW = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LENGTHS = st.lists(st.integers(0, 70), min_size=2, max_size=7)
VOCABULARY = [
    "a",
    "the",
    "film",
    "was",
    "dull",
    "lovely",
    "acting",
    "unforgettable",
    "12",
    ",",
    ".",
    "plot",
    "twist",
    "xyzzy",
]
MADE: dict[str, Adapted] = {}


def adapted_once(architecture: str, tiny: Tiny) -> Adapted:
    """Returns an adapter with random weights on every linear layer, made once for all examples."""
    if architecture not in MADE:
        MADE[architecture] = adapted_of(tiny(architecture), targets=["all-linear"])
    return MADE[architecture]


def texts_of(lengths: list[int], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(VOCABULARY, size=n)) for n in lengths]


@pytest.mark.parametrize("architecture", EVERY)
@FEW
@given(lengths=LENGTHS, seed=st.integers(0, 9), batch_size=st.integers(1, 8), paired=st.booleans())
def test_padding_mates_and_order_change_nothing(
    architecture: str, tiny: Tiny, lengths: list[int], seed: int, batch_size: int, paired: bool
) -> None:
    adapted = adapted_once(architecture, tiny)
    texts = texts_of(lengths, seed)
    pairs = texts_of(lengths[::-1], seed + 1) if paired else None
    inputs = adapted.reader.read(texts, pairs)
    alone = np.concatenate([adapted.logits(inputs.take([i])) for i in range(len(texts))])
    together = adapted.logits(inputs, batch_size=batch_size)
    assert together.shape == (len(texts), 3)
    assert np.abs(together - alone).max() <= 1e-5
    order = np.random.default_rng(seed).permutation(len(texts)).tolist()
    assert np.abs(adapted.logits(inputs.take(order)) - alone[order]).max() <= 1e-5


@pytest.mark.parametrize("architecture", EVERY)
def test_different_texts_differ(architecture: str, tiny: Tiny) -> None:
    found = logits_of(adapted_once(architecture, tiny), TEXTS)
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize("architecture", [name for name in EVERY if name not in FP32_ALONE])
def test_bf16_is_near_fp32_and_is_not_fp32(architecture: str, tiny: Tiny) -> None:
    adapted = adapted_once(architecture, tiny)
    exact = logits_of(adapted, TEXTS, PAIRS)
    assert np.array_equal(logits_of(adapted, TEXTS, PAIRS, precision="bf16"), exact)  # few tokens run in fp32
    with adapted.ready("bf16"):
        rough = logits_of(adapted, TEXTS, PAIRS, precision="bf16")
    assert np.isfinite(rough).all()
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max() + 0.05


def test_deberta_gets_fp32_and_says_so(tiny: Tiny) -> None:
    assert adapted_once("deberta", tiny).architecture == "deberta"
    assert choose_precision("auto", "deberta") == choose_precision("fp32", "deberta") == "fp32"
    assert choose_precision("bf16", "deberta-v2") == "bf16"
    with pytest.raises(RecipeError, match="got bf16, which transformers' deberta cannot run in; give fp32"):
        choose_precision("bf16", "deberta")


def test_auto_precision_measures_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for times, expected in ((1.4, "fp32"), (1.6, "bf16")):
        rates = {"fp32": 1.0, "bf16": times}
        monkeypatch.setattr(machine, "has_bf16", lambda: True)
        monkeypatch.setattr(machine, "speed", rates.__getitem__)
        assert choose_precision("auto", "bert") == expected


def test_a_padded_batch(tiny: Tiny) -> None:
    adapted = adapted_once("bert", tiny)
    inputs = adapted.reader.read(["a film", "a"], ["dull", "a long one"])
    batch = padded(inputs, [1, 0], adapted.reader.pad_id, takes_types=True)
    assert batch["attention_mask"].tolist() == [[1] * 7, [1] * 6 + [0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0]]
    assert batch["input_ids"][1, -1] == 0
    assert all(value.dtype == torch.int64 for value in batch.values())
    assert "token_type_ids" not in padded(inputs, [0], 0, takes_types=False)
    assert "token_type_ids" not in padded(adapted.reader.read(["a"]), [0], 0, takes_types=True)


def test_which_models_take_token_types(tiny: Tiny) -> None:
    takes = {name for name in EVERY if takes_token_types(adapted_once(name, tiny).model)}
    assert takes == {"bert", "electra"}
    adapted = adapted_once("bert", tiny)
    swapped = np.abs(logits_of(adapted, TEXTS, PAIRS) - logits_of(adapted, PAIRS, TEXTS)).max()
    assert swapped > 1e-3


def test_the_mode_of_the_model_is_left_as_it_came(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"), lora_dropout=0.5, encoder_dropout=0.5)
    expected = logits_of(adapted, TEXTS)
    adapted.model.train()
    assert np.array_equal(logits_of(adapted, TEXTS), expected)
    assert adapted.model.training
    with evaluating(adapted.model):
        assert not adapted.model.training
    assert adapted.model.training


def test_no_text_gives_no_logits(tiny: Tiny) -> None:
    adapted = adapted_once("bert", tiny)
    assert len(logits_of(adapted, [])) == 0


def test_an_empty_text_has_probabilities(tiny: Tiny) -> None:
    found = probabilities_of(adapted_once("bert", tiny), ["", "   "])
    assert np.allclose(found.sum(axis=1), 1)
    assert np.allclose(found[0], found[1], atol=1e-6)


def test_base_view_is_first_token_and_mean_of_the_base(tiny: Tiny) -> None:
    adapted = adapted_once("bert", tiny)
    inputs = adapted.reader.read(TEXTS)
    scores, found = adapted.base_features(inputs)
    assert np.allclose(scores, adapted.logits(inputs, base=True), atol=1e-6)
    with adapted.model.disable_adapter(), torch.inference_mode():
        ids = torch.from_numpy(inputs.window(1)[0].astype(np.int64))[None].to(adapted.model.device)
        bert = unwrapped(adapted.model).bert
        *_, below, last = bert(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
    assert np.allclose(found[1], torch.cat([last[0, 0], below[0].mean(0)]).cpu().numpy(), atol=1e-5)


def test_softmax_and_cross_entropy() -> None:
    scores = np.array([[1000.0, 0.0], [-1000.0, -1000.0], [0.3, -2.0]])
    assert np.allclose(softmax(scores)[:2], [[1, 0], [0.5, 0.5]])
    labels = np.array([0, 1, 1])
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels))
    assert cross_entropy(scores, labels) == pytest.approx(float(expected))


def test_memory_that_runs_out_halves_the_batch(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = adapted_of(tiny("bert"))
    inputs = adapted.reader.read(TEXTS)
    expected = adapted.logits(inputs)
    forward, sizes = type(adapted.model).forward, []

    def limited(self: Any, **batch: torch.Tensor) -> Any:
        sizes.append(batch["input_ids"].numel())
        if sizes[-1] > 40:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(self, **batch)

    monkeypatch.setattr(type(adapted.model), "forward", limited)
    assert np.allclose(adapted.logits(inputs), expected, atol=1e-5)
    assert max(sizes) > 40 >= sizes[-1]


def test_memory_too_small_for_a_single_text(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = adapted_of(tiny("bert"))

    def fails(self: Any, **batch: torch.Tensor) -> Any:
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(type(adapted.model), "forward", fails)
    with pytest.raises(InputError, match="memory ran out with a single text"):
        adapted.logits(adapted.reader.read(TEXTS))
