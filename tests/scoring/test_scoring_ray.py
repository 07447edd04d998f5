"""The same file from Ray Data on a local cluster of two workers; one of them dies, and the model fails on two rows."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bertlora.data.inputs import Inputs
from bertlora.data.reader import Reader
from bertlora.errors import InputError
from bertlora.run.loaded import Run
from bertlora.scoring import score
from bertlora.scoring.progress import Progress
from bertlora.scoring.ray_engine import Cluster, Worker, _places

WORKER = b"ray::MapWorker"


@dataclass(frozen=True)
class FailingReader(Reader):
    """Fails on one text, and gives another one a token that the model does not have."""

    def read(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Inputs:
        if any(text.startswith("unreadable") for text in texts):
            raise ValueError("no token for it")
        inputs = super().read(texts, pairs)
        for i, text in enumerate(texts):
            if text.startswith("uncomputable"):
                inputs.first.ids[inputs.first.offsets[i]] = 10**6
        return inputs


def failing(run: Run) -> Run:
    """Gives a run this reader."""
    whole = run.adapted.reader
    run.adapted.reader = FailingReader(whole.tokenizer, whole.template, whole.pairs)
    return run


class FailingWorker(Worker):
    """A worker whose run fails on two texts."""

    def _load(self, path: str, model: str) -> None:
        super()._load(path, model)
        failing(self._run)


def kill_a_worker() -> None:
    """Kills one of the processes that run the model."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(WORKER):
                os.kill(int(process.name), signal.SIGKILL)
                return
        except OSError:  # it ended meanwhile
            continue
    raise AssertionError("there is no worker to kill")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray
def test_ray_gives_the_same_file_and_redoes_the_rows_of_a_dead_worker(
    run_of_reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # by itself, workers wait for minutes where other programs run
    lines = [f'{i},"review {i} {"of a long film " * (i % 7)}"' for i in range(12_000)]
    lines[5000] = "broken,row,here"
    lines[4500], lines[11_000] = "4500,unreadable", "11000,uncomputable"
    source = tmp_path / "r.csv"
    source.write_text("id,text\n" + "\n".join(lines) + "\n")
    run, killed = failing(Run.load(run_of_reviews)), list[int]()
    here = score(run, [str(source)], tmp_path / "here.csv", probabilities=True)

    def kill_once(progress: Progress) -> None:
        if not killed:
            killed.append(progress.rows)
            kill_a_worker()

    assert [_places(None, cpus)[0] for cpus in (1, 2, 3)] == [1, 1, 2]
    with pytest.raises(InputError, match="got 3, expected at most 2"):
        _places(3, 3)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("bertlora.scoring.ray_engine.Worker", FailingWorker)
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        there = score(
            run, [str(source)], tmp_path / "there.csv", probabilities=True, cluster=Cluster(2), progress=kill_once
        )
    finally:
        ray.shutdown()
    assert killed == [4096]
    assert (there.rows, there.quarantined) == (here.rows, here.quarantined) == (11_997, 3)
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    assert Path(there.quarantine).read_bytes() == Path(here.quarantine).read_bytes()
    bad = [json.loads(line) for line in Path(there.quarantine).read_text().splitlines()]
    assert [one["position"] for one in bad] == [4502, 5002, 11_002]
    assert [one["reason"] for one in bad if "the model" in one["reason"]] == [
        f"the model cannot compute it ({why})" for why in ("no token for it", "index out of range in self")
    ]
