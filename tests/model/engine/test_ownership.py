"""One owner of a model at a time: threads get right predictions, nesting is refused, a held model gives the same."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TEXTS, adapted_of, logits_of
from small_training import small_recipe, small_training

from bertlora.confidence.probabilities import Array
from bertlora.errors import InUseError
from bertlora.model.adapted import Adapted
from bertlora.model.engine import owned
from bertlora.model.engine.changes import Turns

Tiny = Callable[[str], Path]
# Texts of many lengths, enough tokens for the weights to be merged.
MANY = [" ".join(TEXTS[i % 4].split()[: 1 + i % 17] * 3) for i in range(200)]


@pytest.mark.parametrize("architecture", ["bert", "deberta"])
def test_threads_that_share_a_model_get_right_logits(tiny: Tiny, architecture: str) -> None:
    adapted = adapted_of(tiny(architecture), targets=["all-linear"])
    weights = {name: p.detach().clone() for name, p in adapted.model.named_parameters()}

    def ask(number: int) -> Array:
        if number % 4 == 3:
            return logits_of(adapted, MANY[:5], base=True)
        return logits_of(adapted, MANY if number % 4 == 0 else MANY[number : number + 9])

    expected = [ask(number) for number in range(16)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(16)))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(torch.equal(p, weights[name]) for name, p in adapted.model.named_parameters())


def test_a_model_held_ready_gives_the_same_logits_and_its_thread_calls_it_again_and_again(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"), targets=["all-linear"])
    expected = [logits_of(adapted, [text]) for text in TEXTS]
    with adapted.ready():
        held = [logits_of(adapted, [text]) for text in TEXTS]
    assert np.allclose(held, expected, atol=1e-5)
    assert np.array_equal(logits_of(adapted, TEXTS[:1]), expected[0])


def test_another_thread_waits_for_a_model_that_is_held_ready(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    expected, found = logits_of(adapted, TEXTS), []
    other = threading.Thread(target=lambda: found.append(logits_of(adapted, TEXTS)))
    with adapted.ready():
        other.start()
        other.join(0.2)
        assert other.is_alive()
        assert not found
    other.join(60)
    assert np.array_equal(found[0], expected)


def test_nesting_is_refused_and_leaves_the_model_free(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    expected = logits_of(adapted, TEXTS)

    def base(model: Adapted) -> object:
        return logits_of(model, TEXTS, base=True)

    for nested in (base, Adapted.merged, lambda a: a.save(Path("nowhere"))):
        with adapted.ready(), pytest.raises(InUseError, match="this thread already uses the model"):
            nested(adapted)
    assert np.array_equal(logits_of(adapted, TEXTS), expected)


def test_a_training_under_way_is_not_predicted_with(tiny: Tiny) -> None:
    training = small_training(small_recipe(tiny("bert")))
    events = training.run()
    next(events)
    with pytest.raises(InUseError):
        training.adapted.logits(training.train.inputs)
    events.close()
    assert training.adapted.logits(training.train.inputs).shape == (16, 2)


def test_an_owner_that_fails_gives_the_model_back(tiny: Tiny) -> None:
    adapted = adapted_of(tiny("bert"))
    with pytest.raises(ZeroDivisionError), owned(adapted.model):
        1 / 0  # noqa: B018
    with owned(adapted.model.get_base_model()), pytest.raises(InUseError), owned(adapted.model):
        pass


def test_threads_get_their_turns_in_the_order_in_which_they_asked() -> None:
    turns, order = Turns(), list[int]()

    def ask(number: int) -> None:
        with turns.taken():
            order.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    with turns.taken():
        for waiting, thread in enumerate(threads, 2):
            thread.start()
            while len(turns._queue) < waiting:  # it has asked
                pass
    for thread in threads:
        thread.join()
    assert order == list(range(8))
