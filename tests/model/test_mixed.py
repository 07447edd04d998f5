"""Many adapters on one base: whatever the mix, each text gets the answer that its adapter gives by itself."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import made_once
from helpers import INT8, SWITCHES, adapted_of, logits_of, plain_peft, randomise, save_tiny_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from bertlora.confidence.probabilities import Array
from bertlora.data.inputs import Inputs
from bertlora.errors import InputError, NotMixableError, RunError
from bertlora.model.adapter_files import WEIGHTS_FILE
from bertlora.model.base import find_base
from bertlora.model.engine import ROW_TOKENS
from bertlora.model.engine import mixed as mixed_module
from bertlora.model.mixed import MixedAdapter, MixedBase
from bertlora.run.loaded import Run

Tiny = Callable[[str], Path]
TEXTS = [
    "a joy",
    "dull",
    "not bad at all, " * 4,
    "the sequel beats the first part by a mile",
    "far too long " * 14,
    "x",
]
TEXTS += ["unforgettable, and moving", "i hated every minute of it"]
# One adapter for each: number of labels, whether it reads pairs, and the recipe.
KINDS: list[tuple[int, bool, dict[str, Any]]] = [
    (1, False, {"targets": ["query"], "rank": 1, "task": "regression"}),
    (7, False, {"targets": ["all-linear"], "rank": 16, "task": "multilabel"}),
    (2, False, {"targets": ["all-linear"], "rank": 3, "adapt_last_layers": 1}),
    (2, False, {"targets": ["query", "ffn-out"], "rank": 9, "adapt_last_layers": 1}),
    (3, False, {"targets": ["key", "value", "ffn-in"], "rank": 8, "long_texts": "windows", "max_length": 16}),
    (4, True, {"targets": ["all-linear"], "rank": 5, "variant": "rslora"}),
    (3, False, {"targets": ["all-linear"], "rank": 2, "rank_pattern": {"query": 6}, "alpha_pattern": {"value": 3}}),
]
SERVED = ["bert", "distilbert", "roberta", "camembert", "data2vec-text", "electra", "ernie", "albert", "mpnet"]
SERVED += ["modernbert", "modernbert-mean"] if SWITCHES else []
PARTS = st.lists(
    st.tuples(st.integers(0, len(KINDS) - 1), st.lists(st.integers(0, len(TEXTS) - 1), max_size=5)), max_size=8
)


class Pool(NamedTuple):
    """A shared base, its adapters, and what each answers by itself, (texts, K)."""

    shared: MixedBase
    adapters: list[MixedAdapter]
    own_answers: list[Array]
    folder: Path

    def inputs(self, number: int, texts: list[int]) -> Inputs:
        """Returns the inputs of these texts for an adapter."""
        pairs = [TEXTS[-1 - i] for i in texts] if KINDS[number][1] else None
        return self.adapters[number].reader.read([TEXTS[i] for i in texts], pairs)

    def check(self, parts: list[tuple[int, list[int]]], tokens: int = ROW_TOKENS) -> None:
        """Fails unless every answer is what the adapter gives by itself."""
        asked = [(self.adapters[number], self.inputs(number, texts)) for number, texts in parts]
        answers = self.shared._logits(asked, tokens)
        for (number, texts), found in zip(parts, answers, strict=True):
            assert np.abs(found - self.own_answers[number][texts]).max(initial=0) <= 1e-5


@pytest.fixture(scope="module")
def pool(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Pool]]:
    """Returns a function: architecture → a shared base with an adapter of every kind. Merging pays soon there."""

    def fill(architecture: str, folder: Path) -> Any:
        shared = MixedBase(find_base(str(tiny(architecture))))
        adapters, own_answers = [], []
        for number, (classes, pairs, keys) in enumerate(KINDS):
            adapted = adapted_of(tiny(architecture), [str(k) for k in range(classes)], pairs, **keys)
            randomise(adapted.model, number + 1)
            adapted.save(folder / str(number))
            adapters.append(shared.load(folder / str(number), adapted.labels, adapted.reader, adapted.task))
            second = TEXTS[::-1] if pairs else None
            own_answers.append(logits_of(adapted, TEXTS, second))
            assert np.abs(own_answers[-1] - logits_of(adapted, TEXTS, second, base=True)).max() > 0.01
        return Pool(shared, adapters, own_answers, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed_module, "WORTH_MERGING", 100)
        yield made_once(fill, tmp_path_factory)


@pytest.mark.parametrize("architecture", SERVED)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=PARTS, tokens=st.sampled_from([30, 200, ROW_TOKENS]))
def test_a_mix_gives_each_adapters_own_answers(
    pool: Callable[[str], Pool], architecture: str, parts: list[tuple[int, list[int]]], tokens: int
) -> None:
    pool(architecture).check(parts, tokens)


def test_one_adapter_is_merged_when_that_pays_and_gives_the_same(pool: Callable[[str], Pool]) -> None:
    p, everything = pool("bert"), list(range(len(TEXTS)))
    encoder = p.shared._encoder
    p.check([(2, everything)])  # whatever was merged before
    for number in (1, 6):
        p.check([(0, [0]), (1, [1])])
        p.check([(number, [0])])
        assert encoder._merged is not p.adapters[number].update
        p.check([(number, everything)])
        assert encoder._merged is p.adapters[number].update
        assert all(product.merged is not product.frozen for product in encoder.products)
        p.check([(number, everything)])


def test_layers_below_the_lowest_adapted_one_run_once_for_each_text(
    pool: Callable[[str], Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    p, calls = pool("bert"), list[tuple[str, int, int]]()
    encoder = p.shared._encoder
    states, vectors = encoder.states, encoder.vectors

    def seen_states(windows: Any, end: int) -> Any:
        calls.append(("below", len(windows), end))
        return states(windows, end)

    def seen_vectors(windows: Any, updates: Any, begin: int, given: Any) -> Any:
        calls.append(("above", len(windows), begin))
        return vectors(windows, updates, begin, given)

    monkeypatch.setattr(encoder, "states", seen_states)
    monkeypatch.setattr(encoder, "vectors", seen_vectors)
    p.check([(2, [0, 1, 2]), (3, [0, 1, 2]), (2, [3]), (3, [0])])
    assert sorted(calls) == [("above", 1, 0), ("above", 6, 1), ("below", 3, 1)]


def test_memory_that_runs_out_halves_the_row(pool: Callable[[str], Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    p, room = pool("bert"), [2]
    vectors = p.shared._encoder.vectors

    def short_of_memory(windows: Any, *rest: Any) -> Any:
        if len(windows) > room[0]:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return vectors(windows, *rest)

    monkeypatch.setattr(p.shared._encoder, "vectors", short_of_memory)
    p.check([(0, [0, 1, 2]), (1, [3, 4, 5]), (2, [0])])
    room[0] = 0
    with pytest.raises(InputError, match="memory ran out with a single text"):
        p.check([(0, [0])])


def changed(source: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """Returns a copy of an adapter whose tensors were changed."""
    shutil.copytree(source, to)
    tensors = load_file(to / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, to / WEIGHTS_FILE)
    return to


def test_an_adapter_that_overflows_spoils_no_other(pool: Callable[[str], Pool], tmp_path: Path) -> None:
    def grow(tensors: dict[str, torch.Tensor]) -> None:
        for name, value in tensors.items():
            if "lora_" in name:
                value *= 1e25

    p = pool("bert")
    huge = p.shared.load(changed(p.folder / "1", tmp_path / "huge", grow), p.adapters[1].labels, p.adapters[1].reader)
    own = p.inputs(6, [0, 1, 5])
    bad, good = p.shared.logits([(huge, own), (p.adapters[6], own)])
    assert not np.isfinite(bad).any()
    assert np.abs(good - p.own_answers[6][[0, 1, 5]]).max() <= 1e-5


def test_threads_load_and_ask_at_once(pool: Callable[[str], Pool]) -> None:
    p, everything = pool("bert"), list(range(len(TEXTS)))

    def work(number: int) -> None:
        if number % 3 == 0:
            p.check([(number % 7, everything), (6, everything)])
        else:
            fresh = p.shared.load(p.folder / "6", p.adapters[6].labels, p.adapters[6].reader)
            assert np.abs(fresh.logits(p.inputs(6, everything)) - p.own_answers[6]).max() <= 1e-5

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(work, range(12)))


@pytest.mark.parametrize("precision", ["bf16", pytest.param("int8", marks=INT8)])
def test_fewer_bits_are_near_the_adapter_by_itself(precision: str, tiny: Tiny, tmp_path: Path) -> None:
    adapted = adapted_of(tiny("bert"), targets=["all-linear"])
    adapted.save(tmp_path)
    shared = MixedBase(find_base(str(tiny("bert"))), precision)
    mixed, inputs = shared.load(tmp_path, adapted.labels, adapted.reader), adapted.reader.read(TEXTS)
    with adapted.ready(precision):
        own_answers = adapted.logits(inputs, precision=precision)
    assert np.abs(mixed.logits(inputs, precision=precision) - own_answers).max() < 0.03 * np.abs(own_answers).max()
    with pytest.raises(InputError, match=f"got fp32, but the shared base runs in {precision}"):
        mixed.logits(inputs)


DAMAGES: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "lacks .*lora_A": lambda t: [t.pop(n) for n in list(t) if "layer.1" in n and "query" in n],
    "does not fit .*lora_A": lambda t: t.pop(next(n for n in t if "lora_B" in n)),
    "lacks classifier.weight": lambda t: t.pop(next(n for n in t if n.endswith("classifier.weight"))),
    r"classifier.bias has the shape \(5,\)": lambda t: t.update({"base_model.model.classifier.bias": torch.ones(5)}),
    "not finite": lambda t: next(iter(t.values())).fill_(float("inf")),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_adapters_are_refused(message: str, pool: Callable[[str], Pool], tmp_path: Path) -> None:
    p = pool("bert")
    folder = changed(p.folder / "6", tmp_path / "damaged", DAMAGES[message])
    with pytest.raises(RunError, match=message.replace("lacks .*lora_A", "lacks bert.encoder.layer.1")) as raised:
        p.shared.load(folder, p.adapters[6].labels, p.adapters[6].reader)
    assert "\n" not in str(raised.value)


def test_runs_and_pefts_adapters_load_on_a_shared_base(tiny: Tiny, tmp_path: Path) -> None:
    base = tiny("bert")
    shared = MixedBase(find_base(str(base)))
    save_tiny_run(tmp_path / "run", adapted_of(base, targets=["all-linear"], variant="pissa"))
    model = plain_peft("bert", base)
    randomise(model)
    model.save_pretrained(tmp_path / "peft")
    runs = [Run.load(tmp_path / name, on=shared) for name in ("run", "peft")]
    for run in runs:
        own_answers = Run.load(run.path)
        assert np.abs(run.predict_proba(TEXTS) - own_answers.predict_proba(TEXTS)).max() <= 1e-6
        assert run.manifest == own_answers.manifest
        with pytest.raises(InputError, match="is loaded on a shared base"):
            _ = run.adapted
    first, again = runs[0].model, Run.load(tmp_path / "run", on=shared).model
    assert first.reader.tokenizer is again.reader.tokenizer


def test_what_cannot_share_a_base_says_so(tiny: Tiny, tmp_path: Path) -> None:
    shared = MixedBase(find_base(str(tiny("bert"))))
    for name, keys in {"dora": {"variant": "dora"}, "biases": {"bias": "all"}}.items():
        save_tiny_run(tmp_path / name, adapted_of(tiny("bert"), **keys))
    save_tiny_run(tmp_path / "another base", adapted_of(tiny("roberta")))
    for name in ("dora", "biases", "another base"):
        with pytest.raises(NotMixableError, match=name):
            Run.load(tmp_path / name, on=shared)
    with pytest.raises(NotMixableError, match="a deberta-v2 model cannot be shared"):
        MixedBase(find_base(str(tiny("deberta-v2"))))
