"""The average of the trained weights over the last steps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_training import run_all, same, small_recipe, small_training, state
from torch import Tensor, nn

from bertlora.recipe import Recipe
from bertlora.training.average import Average
from bertlora.training.events import Step

Tiny = Callable[[str], Path]


class Walk(nn.Module):
    """A weight that is trained, which takes the values it is given, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.still = nn.Parameter(torch.zeros(3), requires_grad=False)

    def to_step(self, step: int) -> None:
        with torch.no_grad():
            self.weight.fill_(float(step**2))


def walked(share: float, steps: int, of: int) -> tuple[Walk, Average]:
    model = Walk()
    average = Average(model, Recipe(average_weights=share), of)
    for step in range(1, steps + 1):
        model.to_step(step)
        average.add()
    return model, average


@pytest.mark.parametrize(("share", "steps", "expected"), [(0.0, 5, 25.0), (0.5, 3, 14 / 3), (1.0, 4, 30 / 4)])
def test_of_the_steps_done_all_count_alike_up_to_the_share(share: float, steps: int, expected: float) -> None:
    _, average = walked(share, steps, of=6)
    assert average.state().keys() == {"weight"}
    assert average.state()["weight"].tolist() == pytest.approx([expected] * 3)


def test_from_then_on_earlier_steps_fade() -> None:
    _, average = walked(0.5, 5, of=8)
    value = (1 + 4 + 9 + 16) / 4
    assert average.state()["weight"].tolist() == pytest.approx([value + (25 - value) / 4] * 3)


def test_a_resumed_average_goes_on() -> None:
    model, whole = walked(0.5, 6, of=8)
    _, begun = walked(0.5, 2, of=8)
    resumed = Average(model, Recipe(average_weights=0.5), 8)
    resumed.resume(begun.state(), 2)
    for step in range(3, 7):
        model.to_step(step)
        resumed.add()
    assert same(resumed.state(), whole.state())


def test_the_model_shows_the_average_and_gets_its_weights_back() -> None:
    model, average = walked(1.0, 3, of=3)
    with average.shown():
        assert model.weight.tolist() == pytest.approx([14 / 3] * 3)
    assert model.weight.tolist() == [9.0] * 3


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_training_evaluates_and_keeps_the_average(tiny: Tiny, share: float) -> None:
    training = small_training(small_recipe(tiny("bert"), average_weights=share), validate=False)
    states: list[dict[str, Tensor]] = [state(training) for e in training.run() if isinstance(e, Step)]
    last, window = states[0], max(1.0, share * len(states))
    for number, weights in enumerate(states[1:], start=2):
        last = {n: last[n].lerp(weights[n], max(1 / number, 1 / window)) for n in last}
    assert same(state(training), last)
    assert same(state(training), states[-1]) == (share == 0)


def test_what_was_evaluated_is_what_is_kept(tiny: Tiny) -> None:
    from bertlora.confidence.probabilities import cross_entropy

    training = small_training(small_recipe(tiny("bert"), average_weights=0.5, epochs=3))
    _, evaluations = run_all(training)
    best = next(e for e in reversed(evaluations) if e.best)
    scores = training.adapted.logits(training.train.inputs)
    assert cross_entropy(scores, training.train.labels) == pytest.approx(best.validation_loss, abs=1e-5)
