"""Models without a shared base: their answers next to mixed adapters, and how many stay ready."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import adapted_of, randomise, save_tiny_run

from bertlora.model.adapted import Adapted
from bertlora.model.mixed import MixedAdapter
from bertlora.run.loaded import Run
from bertlora.serving.computing import READY, Alone, BaseOf, Computing
from bertlora.serving.fleet import Fleet
from bertlora.serving.questions import Answer, Question
from bertlora.serving.service import Service

TEXTS = ["a joy from the start", "dull", "i hated every minute of this long and lifeless film " * 4]
MIXED, OWN = ("mixed0", "mixed1"), tuple(f"dora{i}" for i in range(READY + 1))


class Model:
    """Notes when it becomes ready, and when it no longer is."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events

    @contextmanager
    def ready(self, precision: str = "fp32") -> Iterator[None]:
        self.events.append(f"+{self.name}")
        yield
        self.events.append(f"-{self.name}")

    def logits(self, inputs: Any, **options: Any) -> np.ndarray:
        assert options in ({"precision": "fp32"}, {"base": True})
        return np.full((1, 1), ord(self.name))


def test_the_models_used_last_stay_ready_and_none_during_a_job() -> None:
    events: list[str] = []
    models = {name: Alone(Model(name, events), "fp32") for name in "abcdefg"[: READY + 2]}
    base = BaseOf(Model("z", events))  # type: ignore[arg-type]
    inputs: Any = None

    def ask(computing: Computing, names: str) -> list[str]:
        events.clear()
        found = computing.logits([(models[name], inputs) for name in names])
        assert [int(np.asarray(logits)[0, 0]) for logits in found] == [ord(name) for name in names]
        return list(events)

    with Computing() as computing:
        assert ask(computing, "abcd") == ["+a", "+b", "+c", "+d"]
        assert ask(computing, "a") == []
        assert ask(computing, "e") == ["+e", "-b"]
        assert ask(computing, "caf") == ["+f", "-d"]
        events.clear()
        assert computing.job(lambda: list(events)) == ["-f", "-a", "-c", "-e"]
        assert ask(computing, "b") == ["+b"]
        computing.logits([(base, inputs)])
        assert events == ["+b", "-b"]  # the base of an adapter uses the modules of the adapter
        assert ask(computing, "d") == ["+d"]
    assert events == ["+d", "-d"]


@pytest.fixture(scope="module")
def runs(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns adapters that share a base, more with DoRA than stay ready, and an export."""
    folder = tmp_path_factory.mktemp("alone")
    for i, name in enumerate((*MIXED, *OWN)):
        keys = {"variant": "dora"} if name in OWN else {}
        adapted = adapted_of(tiny("bert"), [str(k) for k in range(2 + i % 3)], **keys)
        randomise(adapted.model, seed=i)
        save_tiny_run(folder / name, adapted)
    Run.load(folder / "mixed0").export(folder / "exported", "merged")
    return {path.name: path for path in sorted(folder.iterdir())}


def test_adapters_with_a_base_of_their_own_and_exports_answer_next_to_mixed_ones(runs: dict[str, Path]) -> None:
    service, draw = Service(Fleet(), batch_s=0.01), random.Random(0)
    for name, path in runs.items():
        model = service.fleet.load(name, path).run.model
        assert isinstance(model, MixedAdapter) == (name in MIXED)
        assert isinstance(model, Adapted) == (name in OWN)
    requests = [[(draw.choice(list(runs)), draw.randrange(3)) for _ in range(draw.randint(1, 6))] for _ in range(30)]

    async def answers() -> list[list[Answer]]:
        asked = [[Question(name, TEXTS[i], base=name in OWN and i == 2) for name, i in one] for one in requests]
        return await asyncio.gather(*map(service.answer, asked))

    found = asyncio.run(answers())
    service.close()
    expected = {}
    for name, path in runs.items():
        run = Run.load(path)
        inputs = run.model.reader.read(TEXTS)
        expected[name] = run.model.logits(inputs)
        if name in OWN:
            expected[name][2] = run.adapted.logits(inputs, base=True)[2]
    for one, said in zip(requests, found, strict=True):
        for (name, i), answer in zip(one, said, strict=True):
            np.testing.assert_allclose(answer.logits, expected[name][i], rtol=0, atol=1e-5, err_msg=f"{name} {i}")
    assert {name for one in requests for name, _ in one} == set(runs)
