"""Runs the model on parts on a Ray cluster, by Ray Data.

This process, the driver, reads the sources for the kept columns, and writes. A task of Ray on the same machine reads
them once more and streams the texts of each part to actors, which send the outputs back: (B, K) numbers for B texts.
So only the texts and the outputs move over the network, and only this machine needs the sources.
"""

import logging
import os
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertlora.errors import InputError, OutputError, first_line
from bertlora.export.extras import extra
from bertlora.scoring.ahead import ahead
from bertlora.scoring.engine import Computed, computed_rows, read_rows
from bertlora.scoring.parts import Part, in_parts
from bertlora.scoring.sources import Sources

if TYPE_CHECKING:
    from bertlora.run.loaded import Run

# Actors take a CPU each. The reader takes less, which also keeps Ray from running it inside of one actor: it does that
# with steps that ask for the same.
READER_CPUS = 0.5


@dataclass(frozen=True)
class Cluster:
    """How the model runs on Ray.

    Attributes:
        workers: the number of actors; None takes all CPUs but one, since the reader needs a place (ray issue 44687).
        model: where the base model is on every machine, if it has moved.
    """

    workers: int | None = None
    model: str = ""


def check_ray() -> None:
    """Raises InputError if Ray is not installed."""
    extra("ray", "ray", "ray.data")


def computed_by_ray(
    run: "Run",
    parts: Generator[Part, None, None],
    sources: Sources,
    names: Sequence[str],
    done: Collection[int],
    precision: str,
    cluster: Cluster,
) -> Generator[Computed, None, None]:
    """Yields the parts with their outputs, in order; see `engine.computed`.

    Args:
        run: the run. Every machine has it in the same folder.
        parts: the parts, as this process reads them.
        sources: the sources; a task reads the same parts.
        names: the columns that are read.
        done: the numbers of parts that are left out.
        precision: `fp32`, `bf16` or `int8`.
        cluster: how the model runs.

    Raises:
        InputError: Ray is not installed, has too few CPUs, or a part cannot be computed, whatever its rows.
        OutputError: a worker died twice on the same part, or the cluster does not answer.
    """
    ray, data = extra("ray", "ray", "ray.data")
    with closing(ahead(parts)) as read:
        first = next(read, None)
        if first is None:
            return
        with _connected(ray), _settings(data):
            workers, cpus = _places(cluster.workers, ray.cluster_resources().get("CPU", 0))
            # The task's working folder is another.
            specs = [str(Path(spec).absolute()) if Path(spec).exists() else spec for spec in sources.specs]
            read_texts = partial(_texts, replace(sources, specs=specs), list(names), set(done))
            results = _dataset(ray, data, read_texts).map_batches(
                Worker,
                fn_constructor_args=(str(run.path.resolve()), cluster.model, precision),
                compute=data.ActorPoolStrategy(size=workers),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=cpus,
                # A worker that dies is replaced, and its part is done once more.
                max_restarts=-1,
                max_task_retries=1,
            )
            part: Part | None = first
            try:
                for block in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                    for row in block.to_pylist():
                        assert part is not None
                        yield _computed(part, row)
                        part = next(read, None)
            except ray.exceptions.RayError as error:
                raise OutputError(f"Ray: {_reason(ray, error)}") from error
            if part is not None:
                raise OutputError(f"Ray: the outputs of part {part.number} are missing")


class Worker:
    """An actor: it loads the run, keeps its weights ready, and computes the outputs of parts."""

    def __init__(self, path: str, model: str, precision: str) -> None:
        self._precision = precision
        # The weights are ready for one thread, and Ray may call from several.
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(self._load, path, model).result()

    def __call__(self, batch: Any) -> Any:
        """Returns number, outputs, faults and error of the part in a table of one row with number, texts and pairs."""
        return self._thread.submit(self._computed, batch).result()

    def _load(self, path: str, model: str) -> None:
        from bertlora.run.loaded import Run

        self._run, self._held = Run.load(path, model), ExitStack()
        self._held.enter_context(self._run.ready(self._precision))

    def _computed(self, batch: Any) -> Any:
        import pyarrow as pa

        part = batch.to_pylist()[0]
        texts, pairs, model = part["texts"], part["pairs"], self._run.model
        outputs, faults, error = b"", dict[int, str](), ""
        try:
            found = computed_rows(model, texts, pairs, read_rows(model, texts, pairs), self._precision)
            outputs, faults = np.asarray(found.outputs, np.float64).tobytes(), found.faults
        except Exception as fault:  # Ray would stop everything, with a message of its own
            error = str(fault) or type(fault).__name__
        table = {"number": [part["number"]], "outputs": pa.array([outputs], pa.binary()), "error": [error]}
        rows, reasons = [list(faults)], [list(faults.values())]
        return pa.table(
            table | {"rows": pa.array(rows, pa.list_(pa.int64())), "reasons": pa.array(reasons, pa.list_(pa.string()))}
        )


def _places(workers: int | None, cpus: float) -> tuple[int, float]:
    """Returns the number of workers, and the CPUs of each. They leave room for the reader, for which Ray would wait.

    Raises:
        InputError: the cluster has no room for this many workers.
    """
    if cpus <= 1:  # a share each; not the reader's, see READER_CPUS
        return 1, max(0.0, cpus - READER_CPUS) * 0.9
    most = int(cpus - READER_CPUS)
    if workers and workers > most:
        raise InputError(f"--workers: got {workers}, expected at most {most}: the cluster has {cpus:g} CPUs in all")
    return workers or most, 1


def _reason(ray: Any, error: Exception) -> str:
    """Returns why Ray stopped, in a line."""
    if isinstance(error, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
        return f"a worker died, also when its rows were redone ({first_line(error)})"
    return f"stopped ({str(error).strip().splitlines()[-1]})"


def _computed(part: Part, row: dict[str, Any]) -> Computed:
    """Returns a part with its outputs, (B, K), from a row of a worker."""
    if row["error"]:
        raise InputError(row["error"])
    if row["number"] != part.number:
        raise OutputError(f"Ray: got part {row['number']} for part {part.number}; is a source being changed?")
    part = part.without(dict(zip(row["rows"], row["reasons"], strict=True)))
    outputs = np.frombuffer(row["outputs"])
    return Computed(part, outputs.reshape(len(part.texts), -1) if part.texts else np.empty((0, 0)))


def _texts(sources: Sources, names: list[str], done: Collection[int]) -> Iterator[Any]:
    """Yields a table of one row for each part: its number, texts and pairs."""
    import pyarrow as pa

    texts = pa.list_(pa.string())
    for part in in_parts(sources.rows(names), done):
        yield pa.table(
            {"number": [part.number], "texts": pa.array([part.texts], texts), "pairs": pa.array([part.pairs], texts)}
        )


def _dataset(ray: Any, data: Any, read: Any) -> Any:
    """Returns the dataset whose one task, on this machine, calls `read`."""
    from ray.data.block import BlockMetadata
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Parts(data.Datasource):  # type: ignore[misc]
        """The parts of the sources."""

        def get_read_tasks(self, parallelism: int, *more: Any, **named: Any) -> list[Any]:
            """Returns the one task."""
            facts = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [data.ReadTask(read, facts)]

        def estimate_inmemory_data_size(self) -> int | None:
            """Returns None: it is not known."""
            return None

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    where = {"scheduling_strategy": here}
    return data.read_datasource(Parts(), num_cpus=READER_CPUS, override_num_blocks=1, ray_remote_args=where)


@contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """Inside, this process is connected to the cluster of RAY_ADDRESS, one on this machine, or one of its own."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its log files say more
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _settings(data: Any) -> Iterator[None]:
    """Inside, new datasets keep the order, print nothing, and have a part in each block."""
    context = data.DataContext.get_current()
    wanted = {"target_max_block_size": 1, "enable_progress_bars": False}
    before = {name: getattr(context, name) for name in wanted}
    ordered = context.execution_options.preserve_order
    logger = logging.getLogger("ray.data")
    level = logger.level
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        context.execution_options.preserve_order = True
        logger.setLevel(logging.ERROR)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        context.execution_options.preserve_order = ordered
        logger.setLevel(level)
