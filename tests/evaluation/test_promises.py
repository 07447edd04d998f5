"""The promises of evaluation in words, each simulated in short; `benchmarks/simulations.py` does it at length.

So few draws find gross faults only. Of 20 draws of "chance" three may break a promise of 5 %, which is 15 %; of 100
draws of "advice" eleven. The figures in docs/evaluation.md are from 600 draws or more.
"""

import pytest
from promises import PROMISES, Promise
from promises.tasks import BALANCED

from bertlora.evaluation import choice

# Draws by topic; some take long.
DRAWS = {"coverage": 60, "chance": 20, "power": 60, "choice": 20, "advice": 100}
DRAWS |= {"abstention": 400, "sets": 300, "calibration": 100, "numbers": 400, "slices": 100, "audit": 60}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a choice resample 200 times: this adds a hundredth to the variance of a draw."""
    monkeypatch.setattr(choice, "RESAMPLES", 200)
    monkeypatch.setattr(choice, "CHUNK", 200 * BALANCED.rows)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: f"{promise.topic}: {promise.case}")
def test_a_promise_is_kept(promise: Promise) -> None:
    draws = DRAWS[promise.topic]
    for event, share in promise.measured(draws).items():
        assert promise.kept(share, draws), f"{event}: {share:.3f}, promised {promise.promised}"


def test_a_broken_promise_is_noticed() -> None:
    noisy = Promise("chance", "a test at the 30 % level", lambda random: {"noise": random.random() < 0.3}, high=0.05)
    share = noisy.measured(100)["noise"]
    assert not noisy.kept(share, 100)
    assert noisy.promised == "at most 5 %"
