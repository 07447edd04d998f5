"""The same file from Ray Data on a local cluster of two workers; one of them dies."""

import os
import signal
from pathlib import Path

import pytest

from bertlora.errors import InputError
from bertlora.run.loaded import Run
from bertlora.scoring import score
from bertlora.scoring.progress import Progress
from bertlora.scoring.ray_engine import Cluster, _places

WORKER = b"ray::MapWorker"


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
    lines = [f'{i},"review {i} {"of a long film " * (i % 7)}"' for i in range(12_000)]
    lines[5000] = "broken,row,here"
    source = tmp_path / "r.csv"
    source.write_text("id,text\n" + "\n".join(lines) + "\n")
    run, killed = Run.load(run_of_reviews), list[int]()
    here = score(run, [str(source)], tmp_path / "here.csv", probabilities=True)

    def kill_once(progress: Progress) -> None:
        if not killed:
            killed.append(progress.rows)
            kill_a_worker()

    assert [_places(None, cpus)[0] for cpus in (1, 2, 3)] == [1, 1, 2]
    with pytest.raises(InputError, match="got 3, expected at most 2"):
        _places(3, 3)
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        there = score(
            run, [str(source)], tmp_path / "there.csv", probabilities=True, cluster=Cluster(2), progress=kill_once
        )
    finally:
        ray.shutdown()
    assert killed == [4096]
    assert (there.rows, there.quarantined) == (here.rows, here.quarantined) == (11_999, 1)
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
