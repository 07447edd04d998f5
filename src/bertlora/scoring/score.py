"""The steps of a scoring: begin or go on, compute the parts that are missing, join them."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlora.data.table_file import FORMATS, TEXT_FORMATS, format_of, safe_cells
from bertlora.errors import InputError, OutputError
from bertlora.files import check_vacant_file
from bertlora.pipeline.predict import predicted_columns
from bertlora.scoring.engine import computed
from bertlora.scoring.part_folder import PartFolder
from bertlora.scoring.parts import in_parts
from bertlora.scoring.plan import Plan, belonging, planned
from bertlora.scoring.progress import Clock, Progress
from bertlora.scoring.ray_engine import Cluster, computed_by_ray
from bertlora.scoring.sources import Sources, expanded
from bertlora.scoring.writing import join, write_part
from bertlora.task import MULTILABEL

if TYPE_CHECKING:
    from bertlora.run.loaded import Run


@dataclass(frozen=True)
class Scored:
    """The result of a scoring.

    Attributes:
        out: the output file.
        rows: rows in it.
        quarantined: rows that could not be read or computed.
        quarantine: the file that lists them; empty if there are none.
        resumed: rows of both kinds that were done at an earlier start.
        seconds: how long this start took.
        rows_per_s: the rows of this start by second.
        precision: `fp32`, `bf16` or `int8`.
    """

    out: str
    rows: int
    quarantined: int
    quarantine: str
    resumed: int
    seconds: float
    rows_per_s: float
    precision: str

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as an object."""
        return asdict(self)


def score(
    run: "Run",
    specs: Sequence[str],
    out: Path,
    *,
    overwrite: bool = False,
    probabilities: bool = False,
    safe_csv: bool = False,
    id_column: str | None = None,
    split: str = "test",
    precision: str = "fp32",
    columns: dict[str, Any] | None = None,
    cluster: Cluster | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Scored:
    """Labels the rows of files of any size, in order and in bounded memory.

    A row that cannot be read, or on which the model fails, is set aside in a file next to `out`.

    A kill loses at most the parts that are being computed. The same call goes on where it stopped, and gives the same
    file. `out` is there only when it is whole.

    Args:
        run: the run.
        specs: files, folders, globs or hub data sets, which are read one after the other as one table.
        out: the file to write; its name says the format: .csv, .tsv, .jsonl or .parquet.
        overwrite: replace `out`, and unfinished parts of something else.
        probabilities: give each label's probability a column.
        safe_csv: put `'` before cells that a spreadsheet would take for a formula.
        id_column: the only column that is written again; None writes all.
        split: the split of a hub data set.
        precision: `fp32`, `bf16`, `int8` or `auto`.
        columns: `text_column`, `text_pair_column`, `encoding` and `delimiter`, as `iter_texts` takes them.
        cluster: runs the model on Ray; None runs it in this process.
        progress: gets the progress after each part.
        options: `raw`, `abstain`, `sets` and `per_class`, as `Run.predict` takes them.

    Raises:
        InputError: an option does not fit, or the sources have a column with the name of one that is added.
        DataError: a source cannot be read as a whole, or there are no rows.
        OutputError: `out` is there already, cannot be written, or has unfinished parts of something else.
    """
    began, folder = time.perf_counter(), PartFolder(out, checked_format(out, safe_csv))
    sources = Sources(expanded(specs, [out, folder.quarantine]), split, columns or {})
    check_vacant_file(out, overwrite or bool(folder.end()), [Path(spec) for spec in sources.specs])
    chosen = {"probabilities": probabilities, "safe_csv": safe_csv, "id_column": id_column, "precision": precision}
    belongs = belonging(run, sources, chosen, options)
    with folder.locked():
        plan = planned(run, sources, folder, belongs, overwrite)
        if not folder.end():
            with _resumable():
                resumed = _compute(run, sources, folder, plan, cluster, progress)
                _join(sources, folder, plan, resumed)
        end = folder.end()
        folder.publish()
    seconds, quarantine = time.perf_counter() - began, str(folder.quarantine) if end["quarantined"] else ""
    new = end["rows"] + end["quarantined"] - end["resumed"]
    return Scored(
        out=str(out), quarantine=quarantine, seconds=seconds, rows_per_s=new / seconds, precision=plan.precision, **end
    )


def checked_format(out: Path, safe_csv: bool) -> str:
    """Returns the format that the name of the output asks for.

    Raises:
        InputError: it names none, or has no cells to make safe.
    """
    format = format_of(out)
    if not format:
        raise InputError(f"--out: {out.name} does not name a format; expected a name in {', '.join(FORMATS)}")
    if safe_csv and format not in TEXT_FORMATS:
        raise InputError(f"--safe-csv: {out.name} is not a CSV or TSV file; leave it out")
    return format


@contextmanager
def _resumable() -> Iterator[None]:
    """Inside, an output that cannot be written also says that the work is not lost."""
    try:
        yield
    except OutputError as error:
        raise OutputError(f"{error.args[0]}; the same command goes on where it stopped") from error


def _join(sources: Sources, folder: PartFolder, plan: Plan, resumed: int) -> None:
    """Joins the parts, which are all done; `resumed` rows of them at an earlier start."""
    rows, bad = join(folder, plan.names, plan.types)
    if not rows + bad:
        folder.clear()
        raise InputError(f"{sources.specs[0]}: has no rows, expected texts below its header")
    folder.write_end({"rows": rows, "quarantined": bad, "resumed": resumed})


def _compute(
    run: "Run",
    sources: Sources,
    folder: PartFolder,
    plan: Plan,
    cluster: Cluster | None,
    progress: Callable[[Progress], None] | None,
) -> int:
    """Computes and writes the parts that are missing. Returns the number of rows that were done before."""
    done = {number: record["rows"] + len(record["faults"]) for number, record in folder.records()}
    clock = Clock(sum(done.values()), progress)
    answers_of, one_text = run.predictions(**plan.options), folder.format in TEXT_FORMATS and plan.task == MULTILABEL
    parts = in_parts(sources.rows(plan.kept), done)
    if cluster is None:
        results = computed(run, parts, plan.precision)
    else:
        results = computed_by_ray(run, parts, sources, plan.kept, done, plan.precision, cluster)
    places = {spec: number for number, spec in enumerate(sources.specs)}
    with closing(results) as found:
        for part, outputs in found:
            answers = answers_of(outputs) if part.texts else []
            added = predicted_columns(list(plan.added), answers, one_text)
            columns = part.kept | {plan.added[name]: values for name, values in added.items()}
            # In the order of the sources, those that cannot be read among those that cannot be computed.
            faults = sorted(part.faults, key=lambda fault: (places[fault["file"]], fault["position"]))
            write_part(folder, part.number, safe_cells(columns) if plan.safe_csv else columns, faults, plan.types)
            clock.add(len(part.texts) + len(part.faults), part.fraction)
    return sum(done.values())
