"""Long texts in windows: what they cover, and that training, prediction, linear probe and export pool them alike."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import EVERY, LABELS, adapted_of, logits_of, save_tiny_run
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from bertlora.data.template import MAX_WINDOWS, OVERLAP, InputTemplate
from bertlora.errors import BertloraError
from bertlora.model.adapted import Adapted
from bertlora.model.base import find_base
from bertlora.model.engine.execution import executing
from bertlora.run.loaded import Run

Tiny = Callable[[str], Path]

ROOM = 14
LONG = " ".join(["the film was good and then it was bad", "a joy", "so dull that i left", "what a cast"] * 3)
TEXTS = ["a joy", LONG, "short and sweet", f"{LONG} and {LONG}", LONG[:70]]


def windowed(folder: Path, length: int = ROOM + 2, **keys: object) -> Adapted:
    return adapted_of(folder, max_length=length, long_texts="windows", targets=["all-linear"], **keys)


def alone(adapted: Adapted, text: str) -> np.ndarray:
    """Returns the logits of each window of a text, (P, K), read as a text of its own that fits."""
    ids = adapted.reader.tokenizer.ids([text])[0]
    template = adapted.reader.template
    room = template.room(pair=False)
    parts = [
        adapted.reader.tokenizer.backend.decode(ids[start : start + room])
        for start in template.starts(len(ids)).tolist()
    ]
    return np.concatenate([logits_of(adapted, [part]) for part in parts])


@pytest.fixture(scope="module")
def template() -> InputTemplate:
    return InputTemplate.of(find_base("minilm").text_tokenizer(), ROOM + 2, "right", "windows")


@given(length=st.integers(0, 400))
def test_windows_cover_a_text_and_overlap(template: InputTemplate, length: int) -> None:
    starts = template.starts(length)
    assert starts[0] == 0
    assert len(starts) <= MAX_WINDOWS
    if length <= ROOM:
        assert len(starts) == 1
        return
    assert starts[-1] == length - ROOM
    steps = np.diff(starts)
    if len(starts) < MAX_WINDOWS:
        assert steps.max() <= ROOM - ROOM // OVERLAP + 1  # rounding may cost a token of the overlap
        assert (len(starts) - 1) * (ROOM - ROOM // OVERLAP) >= length - ROOM
    assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize("architecture", EVERY)
def test_logits_are_the_mean_over_windows(architecture: str, tiny: Tiny) -> None:
    adapted = windowed(tiny(architecture))
    inputs = adapted.reader.read(TEXTS)
    counts = np.diff(inputs.windows.offsets)
    assert counts[0] == counts[2] == 1
    assert counts[1] > 2
    assert counts[3] > counts[1]
    found = adapted.logits(inputs)
    expected = np.stack([alone(adapted, text).mean(axis=0) for text in TEXTS])
    assert np.allclose(found, expected, atol=1e-5)
    assert np.allclose(found[[3, 1]], adapted.logits(inputs.take([3, 1])), atol=1e-5)
    assert inputs.lengths.tolist() == [
        int(inputs.windows.lengths[a:b].sum())
        for a, b in zip(inputs.windows.offsets, inputs.windows.offsets[1:], strict=False)
    ]


def test_a_text_that_fits_is_read_as_without_windows(tiny: Tiny) -> None:
    short = [TEXTS[0], TEXTS[2]]
    whole = adapted_of(tiny("bert"), max_length=ROOM + 2, targets=["all-linear"])
    assert np.array_equal(logits_of(windowed(tiny("bert")), short), logits_of(whole, short))


def test_packed_and_padded_learn_alike(tiny: Tiny) -> None:
    adapted = windowed(tiny("bert"))
    inputs, given_labels = adapted.reader.read(TEXTS), torch.tensor([0, 1, 2, 0, 1])
    gradients = []
    for pack in (True, False):
        adapted.model.zero_grad()
        with executing(adapted.model, 0, "fp32", training=True, pack=pack) as execution:
            assert execution.packs == pack
            cross_entropy(execution.logits(inputs, range(5)), given_labels).backward()
        gradients.append({n: p.grad.clone() for n, p in adapted.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-6), name


def test_features_of_the_linear_probe_are_pooled_alike(tiny: Tiny) -> None:
    adapted = windowed(tiny("bert"))
    _, features = adapted.base_features(adapted.reader.read([LONG]))
    ids = adapted.reader.tokenizer.ids([LONG])[0]
    parts = [
        adapted.reader.tokenizer.backend.decode(ids[start : start + ROOM])
        for start in adapted.reader.template.starts(len(ids)).tolist()
    ]
    _, each = adapted.base_features(adapted.reader.read(parts))
    assert np.allclose(features[0], each.mean(axis=0), atol=1e-5)


def test_frozen_layers_keep_windows(tiny: Tiny) -> None:
    adapted = windowed(tiny("bert"), adapt_last_layers=1)
    inputs = adapted.reader.read(TEXTS)
    with executing(adapted.model, 0, "fp32", training=True) as execution:
        plain = execution.logits(inputs, [4, 1, 3])
        execution.keep_prefix(inputs, 64)
        assert execution.prefixes
        kept = execution.logits(inputs, [4, 1, 3])
    assert torch.allclose(plain, kept, atol=1e-5)


def test_a_run_keeps_its_way_with_long_texts(tiny: Tiny, tmp_path: Path) -> None:
    adapted = windowed(tiny("bert"))
    save_tiny_run(tmp_path / "run", adapted)
    run = Run.load(tmp_path / "run")
    assert run.manifest.long_texts == "windows"
    assert np.allclose(logits_of(run.adapted, TEXTS), logits_of(adapted, TEXTS), atol=1e-6)
    facts = run.export(tmp_path / "merged", "merged")
    assert facts["texts"] == 100
    assert facts["largest_difference"] < 1e-4


def test_windows_are_of_single_texts(tiny: Tiny) -> None:
    adapted = windowed(tiny("bert"))
    with pytest.raises(BertloraError, match="long_texts: windows work only for single texts"):
        adapted.reader.read(["a"], ["b"])
    assert len(LABELS) == adapted.logits(adapted.reader.read(["a"])).shape[1]
