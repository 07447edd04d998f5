"""The loop: it learns, it repeats itself, it does not change the base, and it evaluates and stops when it should."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import INT8
from small_training import (
    BAD,
    GOOD,
    IDS,
    TEXTS,
    examples,
    largest_difference,
    losses,
    run_all,
    same,
    script,
    small_recipe,
    small_training,
    state,
)

from bertlora.confidence.probabilities import row_losses
from bertlora.data.reader import Examples
from bertlora.errors import RecipeError
from bertlora.model.adapted import Adapted
from bertlora.recipe import Recipe
from bertlora.training.loop import Training
from bertlora.training.objective import ClassObjective
from bertlora.training.optimiser import step_rows

Tiny = Callable[[str], Path]


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_memorises_eight_texts(tiny: Tiny, architecture: str) -> None:
    recipe = small_recipe(tiny(architecture), targets=("all-linear",), batch_size=8, epochs=40)
    training = small_training(recipe, texts=TEXTS[:8], ids=IDS[:8])
    steps, evaluations = run_all(training)
    assert steps[0].loss > 0.3
    assert steps[-1].loss < 0.05
    assert evaluations[-1].accuracy == 1.0


def test_minilm_memorises_eight_texts() -> None:
    recipe = small_recipe("minilm", batch_size=8, epochs=15, learning_rate=2e-3, targets=("all-linear",))
    training = small_training(recipe, texts=TEXTS[:8], ids=[1, 1, 0, 0, 0, 1, 0, 1])  # no sense to be found in these
    steps, evaluations = run_all(training)
    assert evaluations[-1].accuracy == 1.0
    assert steps[-1].loss < 0.1 < steps[0].loss


def test_same_seed_same_losses_another_seed_others(tiny: Tiny) -> None:
    recipe = small_recipe(tiny("bert"), lora_dropout=0.2, encoder_dropout=0.1)
    first = losses(small_training(recipe))
    assert losses(small_training(recipe)) == first
    assert losses(small_training(recipe.replace(seed=7))) != first


def test_order_of_texts_is_fresh_each_epoch_and_complete() -> None:
    steps = [rows.tolist() for rows in step_rows(Recipe(batch_size=3, gradient_accumulation=2, epochs=2), 16)]
    assert [len(rows) for rows in steps] == [6, 6, 4] * 2
    first, second = ([row for rows in half for row in rows] for half in (steps[:3], steps[3:]))
    assert sorted(first) == sorted(second) == list(range(16))
    assert first != second


@pytest.mark.parametrize(("done", "max_steps"), [(0, 5), (2, 0), (3, 4), (6, 0)])
def test_steps_go_on_where_they_were_left(done: int, max_steps: int) -> None:
    recipe = Recipe(batch_size=6, epochs=2)
    steps = [rows.tolist() for rows in step_rows(recipe, 16)]
    rest = [rows.tolist() for rows in step_rows(recipe.replace(max_steps=max_steps), 16, done)]
    assert rest == steps[done : max_steps or None]


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "pissa"])
def test_frozen_weights_stay_bit_identical_and_the_adapter_moves(tiny: Tiny, variant: str) -> None:
    training = small_training(small_recipe(tiny("bert"), variant=variant, weight_decay=0.1))
    before = {name: p.detach().clone() for name, p in training.plain.named_parameters()}
    run_all(training)
    trained = set(state(training))
    moved = {name for name, p in training.plain.named_parameters() if not p.equal(before[name])}
    assert moved <= trained
    assert {name for name in trained if "lora_" in name} <= moved
    assert any("classifier" in name for name in moved)


def test_at_the_end_the_model_is_in_evaluation_mode(tiny: Tiny) -> None:
    training = small_training(small_recipe(tiny("bert"), encoder_dropout=0.5))
    training.model.train()
    run_all(training)
    assert not any(module.training for module in training.plain.modules())


# Accumulation and class weights


@pytest.mark.parametrize("count", [16, 13])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_accumulating_2_times_4_equals_a_batch_of_8(tiny: Tiny, count: int, class_weights: str) -> None:
    # 32 tokens are fewer than 8 texts have, so a step of 2 times 4 has two rows.
    recipe = small_recipe(tiny("bert"), batch_size=8, max_length=8, class_weights=class_weights, learning_rate=1e-3)
    data = {"texts": [*GOOD, *BAD][:count], "ids": ([1] * 4 + [0] * 12)[:count]}
    whole = small_training(recipe, **data)
    parts = small_training(recipe.replace(batch_size=4, gradient_accumulation=2), **data)
    assert whole.steps == parts.steps == 4
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)
    assert largest_difference(state(whole), state(parts)) < 1e-5
    assert largest_difference(state(whole), whole.start) > 1e-4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [16]),
        ({"max_length": 8}, [6, 8, 2]),  # at most the 32 tokens of four long texts
        ({"encoder_dropout": 0.1}, [4, 4, 4, 4]),  # in padded batches
    ],
    ids=str,
)
def test_texts_of_an_accumulated_step_share_packed_rows(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: list[int]
) -> None:
    sizes: list[int] = []
    loss = Training._summed_loss

    def counted(self: Training, rows: list[int]) -> Any:
        sizes.append(len(rows))
        return loss(self, rows)

    monkeypatch.setattr(Training, "_summed_loss", counted)
    training = small_training(small_recipe(tiny("bert"), gradient_accumulation=4, epochs=1, **changes))
    run_all(training)
    assert sizes == expected
    assert sum(sizes) == len(IDS)


def test_balanced_weights_follow_the_formula(tiny: Tiny) -> None:
    ids = [1] * 12 + [0] * 4
    for kind, expected in (("balanced", [16 / (2 * 4), 16 / (2 * 12)]), ("auto", None)):
        objective = small_training(small_recipe(tiny("bert"), class_weights=kind), ids=ids).objective
        assert isinstance(objective, ClassObjective)
        weights = objective.loss.class_weights
        assert (None if weights is None else weights.tolist()) == (expected and pytest.approx(expected))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(
    ("class_weights", "weights"),
    [("none", None), ("balanced", [2.0, 2 / 3]), ({"positive": 3.5}, [1.0, 3.5])],
    ids=["none", "balanced", "table"],
)
def test_the_loss_is_torchs_own(tiny: Tiny, class_weights: Any, weights: list[float] | None, smoothing: float) -> None:
    """On rows in which the classes are mixed otherwise than in all of them, whose weights add up to their number."""
    recipe = small_recipe(tiny("bert"), class_weights=class_weights, label_smoothing=smoothing, batch_size=16)
    training = small_training(recipe, ids=[1] * 12 + [0] * 4)
    rows = list(range(9, 16))
    given = None if weights is None else torch.tensor(weights).double()
    criterion = torch.nn.CrossEntropyLoss(weight=given, label_smoothing=smoothing)
    expected = criterion(
        torch.from_numpy(training_logits(training)[rows]), torch.from_numpy(training.train.labels[rows])
    )
    with training.adapted.execution("fp32", training=True) as training.execution:
        assert float(training._gradients(rows)) == pytest.approx(float(expected), rel=1e-5)
    # Validation rows have the plain loss.
    logits, y_true = training_logits(training)[:2], training.train.labels[:2]
    assert training.objective.measured(logits, y_true).row_losses == pytest.approx(row_losses(logits, y_true))


def test_a_weight_for_an_unknown_class_is_refused(tiny: Tiny) -> None:
    with pytest.raises(RecipeError, match="class_weights: 'postive' is not one of the classes 'negative', 'positive'"):
        small_training(small_recipe(tiny("bert"), class_weights={"postive": 2.0}))


def training_logits(training: Training) -> Any:
    return training.adapted.logits(training.train.inputs)


@pytest.mark.parametrize("norm", [0.05, 0.0])
def test_gradients_are_clipped_to_the_norm(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, norm: float) -> None:
    training = small_training(small_recipe(tiny("bert"), max_grad_norm=norm))
    seen: list[float] = []
    step = training.optimiser.step

    def look() -> None:
        grads = [p.grad for p in training.plain.parameters() if p.grad is not None]
        seen.append(float(torch.linalg.vector_norm(torch.stack([g.norm() for g in grads]))))
        step()

    monkeypatch.setattr(training.optimiser, "step", look)
    run_all(training)
    assert len(seen) == training.steps
    assert (max(seen) <= 0.05 * 1.001) == bool(norm)


# When it evaluates, what it keeps, when it stops


@pytest.mark.parametrize(
    ("every", "max_steps", "expected"),
    [(0, 0, [3, 6]), (4, 0, [4, 6]), (2, 0, [2, 4, 6]), (0, 5, [3, 5]), (10, 0, [6]), (0, 2, [2]), (1, 3, [1, 2, 3])],
)
def test_evaluates_at_the_right_steps_and_always_at_the_last(
    tiny: Tiny, every: int, max_steps: int, expected: list[int]
) -> None:
    recipe = small_recipe(tiny("bert"), evaluate_every_steps=every, max_steps=max_steps)
    training = small_training(recipe, texts=TEXTS[:10], ids=IDS[:10])
    steps, evaluations = run_all(training)
    assert [e.step for e in evaluations] == expected
    assert [s.step for s in steps] == list(range(1, expected[-1] + 1))
    assert all(s.steps == expected[-1] for s in steps)
    assert [e.epoch for e in evaluations] == pytest.approx([step / 3 for step in expected], abs=1e-4)


def test_the_trace_holds_what_the_history_averages(tiny: Tiny) -> None:
    training = small_training(small_recipe(tiny("bert"), evaluate_every_steps=3))
    steps, evaluations = run_all(training)
    trace = training.trace
    # On a GPU a step has the loss of the one before, except for the first.
    late = int(torch.cuda.is_available())
    assert [step.loss for step in steps[late:]] == trace.step_losses[: len(steps) - late]
    assert [float(losses.mean()) for losses in trace.row_losses] == [e.validation_loss for e in evaluations]
    assert [float(np.mean(predicted == IDS)) for predicted in trace.predicted] == [e.accuracy for e in evaluations]
    assert {part.shape for part in (*trace.row_losses, *trace.predicted)} == {(16,)}


def test_train_loss_is_the_mean_since_the_last_evaluation(tiny: Tiny) -> None:
    training = small_training(small_recipe(tiny("bert")))
    _, evaluations = run_all(training)
    for number, evaluation in enumerate(evaluations):
        own = training.trace.step_losses[4 * number : 4 * number + 4]
        assert evaluation.train_loss == pytest.approx(np.mean(own))


def keeps(training: Training) -> int:
    """Runs, and returns the number of the evaluation whose adapter the model ends with."""
    states = []
    for event in training.run():
        if hasattr(event, "accuracy"):
            states.append(state(training))
    assert not any(same(first, second) for first, second in itertools.pairwise(states))
    found = [number for number, kept in enumerate(states) if same(kept, state(training))]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("metric", "outcomes", "best"),
    [
        ("accuracy", [(8, 1.0), (12, 1.0), (10, 0.5)], 1),
        ("accuracy", [(8, 1.0), (12, 3.0), (12, 1.0)], 2),  # as accurate, and with less loss
        ("accuracy", [(12, 1.0), (12, 3.0), (12, 1.0)], 0),  # a tie through and through: the first
        ("loss", [(8, 0.5), (9, 5.0), (8, 4.0)], 0),  # less accurate than the second, with less loss
    ],
)
def test_the_best_adapter_is_put_back(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, metric: str, outcomes: list[tuple[int, float]], best: int
) -> None:
    script(monkeypatch, outcomes)
    training = small_training(small_recipe(tiny("bert"), epochs=3, best_metric=metric))
    assert keeps(training) == best
    assert [line["best"] for line in training.progress.history][best]
    assert not any(line["best"] for line in training.progress.history[best + 1 :])


def test_without_validation_the_last_adapter_is_kept(tiny: Tiny) -> None:
    training = small_training(small_recipe(tiny("bert"), epochs=3), validate=False)
    assert keeps(training) == 2
    assert all(line["accuracy"] is None and line["validation_loss"] is None for line in training.progress.history)


def test_stops_when_patience_is_spent(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [(10, 1.0), (12, 1.0), (11, 1.0), (12, 2.0), (16, 0.0)])
    recipe = small_recipe(tiny("bert"), epochs=5, early_stopping_patience=2, targets=("query",))
    training = small_training(recipe)
    assert keeps(training) == 1
    assert [line["step"] for line in training.progress.history] == [4, 8, 12, 16]


def test_stops_when_patience_is_spent_within_an_epoch(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [(10, 1.0), (9, 1.0)])
    recipe = small_recipe(tiny("bert"), epochs=5, early_stopping_patience=1, evaluate_every_steps=1)
    steps, evaluations = run_all(small_training(recipe))
    assert (len(steps), len(evaluations)) == (2, 2)


# Kinds of input and arithmetic


@pytest.mark.parametrize("precision", ["bf16", pytest.param("int8", marks=INT8)])
def test_fewer_bits_train(precision: str, tiny: Tiny) -> None:
    recipe = small_recipe(tiny("bert"), precision=precision, epochs=20, batch_size=8, targets=("all-linear",))
    training = small_training(recipe, texts=TEXTS[:8], ids=IDS[:8])
    steps, _ = run_all(training)
    assert training.precision == precision
    assert steps[-1].loss < 0.5 * steps[0].loss
    assert all(value.dtype == torch.float32 for value in state(training).values())


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_pairs_train(tiny: Tiny, architecture: str) -> None:
    """Whether both texts praise or both blame shows only in the pair."""
    recipe = small_recipe(tiny(architecture), targets=("all-linear",), batch_size=8, epochs=60)
    adapted = Adapted.fresh(recipe, ["differ", "agree"])
    first, second = [GOOD[0], GOOD[0], BAD[0], BAD[0]], [GOOD[1], BAD[1], GOOD[1], BAD[1]]
    pairs = Examples(adapted.reader.read(first, second), np.array([1, 0, 0, 1]))
    steps, evaluations = run_all(Training(adapted, recipe, pairs, pairs))
    assert evaluations[-1].accuracy == 1.0
    assert steps[-1].loss < 0.2 < steps[0].loss


@pytest.mark.parametrize(("truncation", "learns"), [("right", False), ("left", True), ("head-tail", True)])
def test_training_reads_the_end_that_truncation_leaves(tiny: Tiny, truncation: str, learns: bool) -> None:
    """The one word that matters comes last in texts longer than the maximum length."""
    recipe = small_recipe(tiny("bert"), truncation=truncation, max_length=16, epochs=30, targets=("all-linear",))
    training = small_training(recipe, texts=[f"{'film ' * 30} {word}" for word in ("good", "bad")] * 4, ids=[1, 0] * 4)
    _, evaluations = run_all(training)
    assert (evaluations[-1].accuracy == 1.0) == learns
    assert training.progress.tokens == 16 * training.progress.examples


def test_more_classes_than_two(tiny: Tiny) -> None:
    recipe = small_recipe(tiny("bert"), epochs=40, batch_size=6, targets=("all-linear",))
    training = small_training(recipe, texts=TEXTS[:6], ids=[0, 1, 2, 3, 0, 2], labels=["a", "b", "c", "d"])
    assert run_all(training)[1][-1].accuracy == 1.0


def test_summary_counts_what_was_trained_on(tiny: Tiny) -> None:
    training = small_training(small_recipe(tiny("bert")))
    run_all(training)
    summary = training.summary()
    assert summary["examples"] == 32
    assert summary["steps"] == 8
    assert summary["tokens"] == 2 * int(training.train.inputs.lengths.sum())
    assert summary["seconds"] > 0
    assert summary["peak_rss_mib"] > 50
    assert summary["loss"] == training.progress.history[-1]["train_loss"]


def test_examples_count_their_labels(tiny: Tiny) -> None:
    adapted = Adapted.fresh(small_recipe(tiny("bert")), ["a", "b"])
    assert len(examples(adapted)) == 0
    assert len(examples(adapted, ["x", "y"], [0, 1])) == 2
