"""The frozen prefix: kept once, in memory or in a file, and nothing is different but the time."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import GOOD, TEXTS, largest_difference, losses, small_recipe, small_training, state

from bertlora.model.adapted import Adapted
from bertlora.model.engine import prefix
from bertlora.model.engine.execution import executing
from bertlora.model.engine.layers import encoder_layers
from bertlora.model.engine.prefix import Prefix, frozen_depth

Tiny = Callable[[str], Path]
FAMILIES = ("bert", "roberta", "distilbert", "electra")
LAST = {"adapt_last_layers": 1, "targets": ["all-linear"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_below_the_lowest_adapter_are_frozen(tiny: Tiny, family: str) -> None:
    model = tiny(family)
    assert frozen_depth(Adapted.fresh(small_recipe(model, **LAST), ["a", "b"]).model) == 1
    assert frozen_depth(Adapted.fresh(small_recipe(model, targets=["query"]), ["a", "b"]).model) == 0


def test_layers_that_are_one_module_are_not_frozen_one_by_one(tiny: Tiny) -> None:
    model = Adapted.fresh(small_recipe(tiny("albert"), **LAST), ["a", "b"]).model
    assert len(encoder_layers(model)) == 2
    assert frozen_depth(model) == 0
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("classifier" in name)
    # The last layer is never kept, nor what has its dropout.
    assert frozen_depth(model) == 0


def test_what_learns_below_leaves_nothing_frozen(tiny: Tiny) -> None:
    adapted = Adapted.fresh(small_recipe(tiny("bert"), **LAST), ["a", "b"])
    adapted.model.get_input_embeddings().weight.requires_grad_(True)
    assert frozen_depth(adapted.model) == 0


def test_models_without_packed_rows_have_none(tiny: Tiny) -> None:
    assert frozen_depth(Adapted.fresh(small_recipe(tiny("deberta"), **LAST), ["a", "b"]).model) == 0


@pytest.mark.parametrize("in_memory", [1 << 30, 0])
@pytest.mark.parametrize("family", FAMILIES)
def test_kept_states_give_the_same_logits(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, family: str, in_memory: int
) -> None:
    monkeypatch.setattr(prefix, "IN_MEMORY", in_memory)
    adapted = Adapted.fresh(small_recipe(tiny(family), **LAST), ["a", "b"])
    inputs = adapted.reader.read(TEXTS)
    rows = sorted(range(len(inputs)), key=lambda i: -int(inputs.lengths[i]))
    with executing(adapted.model, adapted.reader.pad_id, "fp32") as execution, torch.inference_mode():
        whole = execution.logits(inputs, rows)
        execution.keep_prefix(inputs, 20)
        assert execution.prefixes[id(inputs)].begin == 1
        below = adapted.model.get_base_model().base_model.get_submodule(
            "transformer.layer.0" if family == "distilbert" else "encoder.layer.0"
        )
        below.attention.register_forward_pre_hook(fails)
        assert largest_difference({"": execution.logits(inputs, rows)}, {"": whole}) < 1e-6


@pytest.mark.parametrize("epochs", [1, 2])
def test_training_is_the_same_with_and_without(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    recipe = small_recipe(tiny("bert"), epochs=epochs, **LAST)
    kept = small_training(recipe)
    found = losses(kept)
    assert len(kept.execution.prefixes) == (1 if epochs > 1 else 0)  # validation is training's own texts here
    monkeypatch.setattr(prefix, "IN_FILE", 0)
    plain = small_training(recipe)
    assert losses(plain) == pytest.approx(found, rel=1e-5)
    assert not plain.execution.prefixes
    assert largest_difference(state(kept), state(plain)) < 1e-5


def test_a_file_leaves_nothing_behind(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(prefix, "IN_MEMORY", 0)
    adapted = Adapted.fresh(small_recipe(tiny("bert")), ["a", "b"])
    inputs = adapted.reader.read(GOOD)
    room = Prefix.room(inputs, 1, 8, torch.bfloat16, tmp_path)
    assert room is not None
    assert list(tmp_path.iterdir()) == []
    states = torch.randn(int(inputs.lengths[[2, 0]].sum()), 8).bfloat16()
    room.put([2, 0], states)
    got = room.get([0, 2], 40, torch.device("cpu"))
    first = int(inputs.lengths[2])
    assert torch.equal(got[: len(states)], torch.cat([states[first:], states[:first]]))
    assert not got[len(states) :].any()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this platform cannot reserve space in a file")
def test_a_full_disk_keeps_no_prefix_and_training_is_the_same(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the space reserved, the first write to it would end the process by SIGBUS."""
    recipe = small_recipe(tiny("bert"), **LAST)
    expected = losses(small_training(recipe))
    asked: list[int] = []

    def full(file: int, offset: int, size: int) -> None:
        asked.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(prefix, "IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    training = small_training(recipe, checkpoints=tmp_path)
    assert losses(training) == pytest.approx(expected, rel=1e-5)
    assert not training.execution.prefixes
    tokens = int(training.train.inputs.lengths.sum())
    assert asked == [tokens * 32 * 4] * 2  # for training and validation texts, (tokens, D) in fp32
    assert not list(tmp_path.glob(".prefix-*"))


def test_the_file_has_its_space_before_it_is_written(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: list[tuple[int, int]] = []

    def mapped(name: str, **keys: Any) -> torch.Tensor:
        status = os.stat(name)
        found.append((status.st_size, status.st_blocks * 512))
        return torch.zeros(keys["size"], dtype=keys["dtype"])

    monkeypatch.setattr(prefix, "IN_MEMORY", 0)
    monkeypatch.setattr(torch, "from_file", mapped)
    inputs = Adapted.fresh(small_recipe(tiny("bert")), ["a", "b"]).reader.read(GOOD)
    assert Prefix.room(inputs, 1, 1000, torch.float32, tmp_path) is not None
    size = int(inputs.lengths.sum()) * 1000 * 4
    assert found[0][0] == size
    assert found[0][1] >= size


def fails(*_: object) -> None:
    raise AssertionError("a frozen layer ran again")
