"""The verb that labels large files: score."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.cli.console import duration, say, show
from bertlora.cli.options import (
    MODEL,
    OVERWRITE_FILE,
    PATH,
    PRECISION,
    RUN,
    SAFE_CSV,
    TEXT_COLUMNS,
    OneOf,
    Option,
    Whole,
    flag,
    required,
)
from bertlora.cli.verb import Argument, is_quiet, verb
from bertlora.errors import InputError

if TYPE_CHECKING:
    from bertlora.scoring.progress import Progress

LINE_S = 30.0  # between two lines of progress where stderr is no terminal


def show_scored(found: dict[str, Any]) -> None:
    """Prints what was done."""
    resumed = f", {found['resumed']:,} of them before" if found["resumed"] else ""
    pace = f"{found['rows_per_s']:,.0f} rows/s in {found['precision']}"
    show(f"{found['out']}: {found['rows']:,} rows{resumed}; {duration(found['seconds'])}, {pace}")
    if found["quarantined"]:
        show(f"{found['quarantine']}: {found['quarantined']:,} rows that cannot be scored, each with its reason")


@verb(
    "Label the rows of large files, in bounded memory; the same command goes on after an interruption.",
    "bertlora score runs/a reviews/*.csv --out labelled.parquet",
    RUN,
    Argument(
        "sources",
        text="files that prepare reads, folders and globs of them, or hub:NAME; read in order as one table",
        nargs=-1,
        required=True,
        type=PATH,
        metavar="SOURCE...",
    ),
    required(
        "--out", "the file to write, in .csv, .tsv, .jsonl or .parquet; it is there only when it is whole", "FILE"
    ),
    OVERWRITE_FILE,
    flag("--probabilities", "also add a column for each label's probability"),
    SAFE_CSV,
    Option("--id-column", "the only column that stays next to the predictions; default: all stay", metavar="NAME"),
    *TEXT_COLUMNS,
    Option("--split", "the split of a hub data set", default="test", metavar="SPLIT"),
    flag("--raw", "give probabilities without calibration"),
    Option("--abstain", "as for predict", metavar="NAME=X", default=""),
    Option("--sets", "as for predict", type=float, metavar="X"),
    flag("--per-class", "as for predict"),
    MODEL,
    PRECISION,
    Option(
        "--engine",
        "local: in this process; ray: on a Ray cluster (docs/scale.md)",
        type=OneOf(("local", "ray")),
        default="local",
    ),
    Option(
        "--workers", "with --engine ray: the processes that run the model; default: a CPU each, but one", type=Whole(1)
    ),
    show=show_scored,
    messages=True,
)
def score(
    run: str, sources: Sequence[str], out: str, model: str, engine: str, workers: int | None, **options: Any
) -> dict[str, Any]:
    """Labels the rows of files."""
    from bertlora.scoring.ray_engine import Cluster, check_ray
    from bertlora.scoring.score import checked_format

    if options["per_class"] and options["sets"] is None:
        raise InputError("--per-class: is for label sets; give --sets too, such as --sets 0.9")
    if workers and engine != "ray":
        raise InputError("--workers: is for --engine ray; leave it out, or give both")
    checked_format(Path(out), options["safe_csv"])
    if engine == "ray":
        check_ray()
    names = ("text_column", "text_pair_column", "encoding", "delimiter")
    columns = {name: options.pop(name) for name in names}
    from bertlora.run.loaded import Run
    from bertlora.scoring.score import score

    loaded = Run.load(run, model)
    chosen = {name: options[name] for name in ("raw", "abstain", "sets", "per_class")}
    for note in loaded.predictions(**chosen).notes:
        say(note)
    cluster = Cluster(workers, model) if engine == "ray" else None
    with _shown() as progress:
        found = score(loaded, sources, Path(out), columns=columns, cluster=cluster, progress=progress, **options)
    return found.to_json()


class _Lines:
    """Prints the progress on stderr: on a terminal over the last line, elsewhere a line each half minute."""

    def __init__(self) -> None:
        self.terminal, self._last = sys.stderr.isatty(), time.monotonic()

    def __call__(self, found: "Progress") -> None:
        """Prints the progress, if it is time."""
        if is_quiet() or not (self.terminal or time.monotonic() > self._last + LINE_S):
            return
        self._last = time.monotonic()
        share = "" if found.fraction is None else f" ({found.fraction:.0%})"
        left = "" if found.seconds_left is None else f", {duration(found.seconds_left)} left"
        line = f"{found.rows:,} rows{share}, {found.rows_per_s:,.0f} rows/s{left}"
        print(
            f"\r{line}\033[K" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True
        )


@contextmanager
def _shown() -> "Iterator[_Lines]":
    """Yields what prints the progress; at the end a terminal's line is cleared."""
    lines = _Lines()
    try:
        yield lines
    finally:
        if lines.terminal and not is_quiet():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
