"""What is scored: files, folders and globs of files, read in order as one table, with the rows that cannot be read."""

import glob
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bertlora.data.json_source import JsonLinesSource, JsonListSource, every_column
from bertlora.data.rows import kept_batches, require_column, text_columns, texts_source
from bertlora.data.source import Source
from bertlora.data.sources import is_table_file
from bertlora.data.text_file import FileFormat, OnFault
from bertlora.errors import DataError

HUB = "hub:"
# A row that cannot be scored; and what makes one of a row, given the reason.
Fault = dict[str, Any]
Origin = Callable[[str], Fault]


class Rows(NamedTuple):
    """Some rows that can be scored, and those before or among them that cannot.

    Attributes:
        texts: their texts.
        pairs: their second texts; None for single texts.
        kept: the values of the columns that are written again.
        origins: for each text a function: the reason why it cannot be scored → its entry in `faults`.
        faults: the other rows: `file`, `position` (line from 1, or row from 0), `place` and `reason` of each.
        fraction: how much of all sources is read, 0..1; None if that is not known.
    """

    texts: list[str]
    pairs: list[str] | None
    kept: dict[str, list[object]]
    origins: list[Origin]
    faults: list[Fault]
    fraction: float | None


@dataclass(frozen=True)
class Sources:
    """The sources to score, in order.

    Attributes:
        specs: paths of files, or hub data sets.
        split: the split of a hub data set.
        columns: `text_column`, `text_pair_column`, `encoding` and `delimiter`, as `iter_texts` takes them.
    """

    specs: list[str]
    split: str
    columns: dict[str, Any]

    def state(self) -> list[list[object]]:
        """Returns the path, size and time of change of each file: they show whether a source has changed."""
        facts: list[list[object]] = []
        for spec in self.specs:
            path = Path(spec)
            about = [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []
            facts.append([str(path.resolve()) if path.exists() else spec, *about])
        return facts

    def names(self, id_column: str | None = None) -> list[str]:
        """Returns the columns that are written again: all of them, or only `id_column`. JSON is read once for them.

        Raises:
            DataError: a source cannot be read, or lacks a column that another one has.
        """
        names: dict[str, str] = {}
        pairs: dict[bool, str] = {}
        tables: dict[str, list[str]] = {}
        for spec in self.specs:
            source = self._opened(spec, _ignored)
            pairs.setdefault(text_columns(source, **self.columns).text_pair is not None, spec)
            if id_column:
                require_column(source, id_column)
                names[id_column] = spec
                continue
            found = every_column(source)
            names |= {name: spec for name in found if name not in names}
            if not isinstance(source, JsonLinesSource | JsonListSource):  # an object may lack a key
                tables[spec] = found
        if len(pairs) > 1:
            raise DataError(f"{pairs[True]} has pairs of texts and {pairs[False]} has not; score them one by one")
        _check_whole(names, tables)
        return list(names)

    def rows(self, names: Sequence[str]) -> Generator[Rows, None, None]:
        """Yields all rows in order, with the columns `names`. The last ones of a source may be faults only.

        Raises:
            DataError: a source is broken as a whole.
        """
        sizes = [Path(spec).stat().st_size if Path(spec).is_file() else 0 for spec in self.specs]
        total, before = sum(sizes) if all(sizes) else 0, 0.0
        for spec, size in zip(self.specs, sizes, strict=True):
            with closing(self._rows_of(spec, names)) as found:
                for rows in found:
                    read = rows.fraction if total else None
                    yield rows._replace(fraction=None if read is None else (before + size * read) / total)
            before += size

    def _rows_of(self, spec: str, names: Sequence[str]) -> Generator[Rows, None, None]:
        faults: dict[int, str] = {}

        def on_fault(position: int, reason: str) -> None:
            faults.setdefault(position, reason)

        source = self._opened(spec, on_fault)
        columns = text_columns(source, **self.columns)
        faults.clear()  # of the first rows, which were read to find the columns

        def set_aside(position: int, reason: str) -> Fault:
            return {"file": spec, "position": position, "place": source.place(position), "reason": reason}

        def taken() -> list[Fault]:
            found = [set_aside(position, faults[position]) for position in sorted(faults)]
            faults.clear()
            return found

        for batch, kept in kept_batches(source, names, columns, on_fault):
            for position, fault in zip(batch.positions, batch.faults, strict=True):
                if fault:
                    on_fault(position, fault)
            good = [i for i, fault in enumerate(batch.faults) if not fault]
            yield Rows(
                [batch.texts[i] for i in good],
                None if batch.pairs is None else [batch.pairs[i] for i in good],
                {name: [kept[name][i] for i in good] for name in names},
                [partial(set_aside, batch.positions[i]) for i in good],
                taken(),
                getattr(source, "fraction_read", None),
            )
        if faults:
            yield Rows([], None, {name: [] for name in names}, [], taken(), 1.0)

    def _opened(self, spec: str, on_fault: OnFault) -> Source:
        return texts_source(spec, self.split, replace(FileFormat.of(self.columns), on_fault=on_fault))  # type: ignore[arg-type]


def expanded(specs: Sequence[str], outputs: Sequence[Path] = ()) -> list[str]:
    """Returns the files that folders and globs stand for, each in the order of their names.

    Args:
        specs: files, folders, globs, or hub data sets.
        outputs: files that are written; a folder or glob does not stand for them.

    Raises:
        DataError: a glob stands for no file.
    """
    written = [path.resolve() for path in outputs]
    found: list[str] = []
    for spec in specs:
        path = Path(spec)
        if path.is_dir():
            files = sorted(child for child in path.iterdir() if child.is_file() and is_table_file(child))
        elif not path.exists() and not spec.startswith(HUB) and glob.has_magic(spec):
            files = sorted(Path(name) for name in glob.glob(spec, recursive=True) if Path(name).is_file())
            if not files:
                raise DataError(f"{spec}: no file has such a name; check the pattern")
        else:
            found.append(spec)
            continue
        kept = [str(file) for file in files if not file.name.startswith(".") and file.resolve() not in written]
        found += kept or [spec]  # such as a folder with a folder of texts for each class
    return list(dict.fromkeys(found))


def _check_whole(names: Mapping[str, str], tables: Mapping[str, Sequence[str]]) -> None:
    """Raises DataError if a table lacks one of the columns `names`, each with the source that has it."""
    for table, own in tables.items():
        if lacking := [name for name in names if name not in own]:
            raise DataError(
                f"{table}: lacks the column '{lacking[0]}' of {names[lacking[0]]}; score them one by one, or keep one "
                "common column by --id-column"
            )


def _ignored(position: int, reason: str) -> None:
    """Takes a row that cannot be read while columns are found."""
