"""Files as people have them: each is read, and what is left out is counted. docs/data.md lists these files."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import SMALL, good
from sheets import write_ods, write_xlsx

Capsys = pytest.CaptureFixture[str]
Rows = list[tuple[Any, Any]]
PLACES = ["café", "hôtel", "musée", "marché"]
# 40 rows without a fault, 20 of each label.
CLEAN: Rows = [
    (
        f"Très bon {PLACES[i % 4]}, déjà vu {i} fois" if i % 2 else f"Mauvais {PLACES[i % 4]}; trop cher {i}",
        ["no", "yes"][i % 2],
    )
    for i in range(40)
]
RUSSIAN: Rows = [
    (f"{'Отличный' if i % 2 else 'Плохой'} фильм, смотрел его раз {i}", ["no", "yes"][i % 2]) for i in range(40)
]


class Messy(NamedTuple):
    """A file, the flags it needs, and what `prepare` must say about it."""

    name: str
    write: Callable[[Path], object]
    flags: str = ""
    kept: int = 40
    blank: int = 0
    labels: tuple[str, ...] = ("no", "yes")
    checks: tuple[str, ...] = ()
    note: str = ""
    text: str = "Très bon hôtel, déjà vu 1 fois"


def with_labels(*changes: tuple[int, Any]) -> Rows:
    """The clean rows with other labels in some."""
    labels = dict(changes)
    return [(text, labels.get(i, label)) for i, (text, label) in enumerate(CLEAN)]


def with_texts(*changes: tuple[int, Any]) -> Rows:
    """The clean rows with other texts in some."""
    texts = dict(changes)
    return [(texts.get(i, text), label) for i, (text, label) in enumerate(CLEAN)]


def delimited(
    rows: Rows = CLEAN, sign: str = ",", encoding: str = "utf-8", header: str = "text{}label", end: str = "\n"
) -> Callable[[Path], object]:
    """Returns what writes rows with a delimiter and an encoding, every text in quotes."""
    lines = [header.format(sign), *(f'"{text}"{sign}{label}' for text, label in rows)]
    return lambda path: path.write_bytes((end.join(lines) + end).encode(encoding))


def json_lines(rows: Rows, compress: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Returns what writes rows as JSON lines, with the text in an object."""
    lines = [json.dumps({"id": i, "review": {"body": text, "stars": label}}) for i, (text, label) in enumerate(rows)]
    return lambda path: path.write_bytes(compress("\n".join(lines).encode()))


def zstd(raw: bytes) -> bytes:
    """Compresses with zstd."""
    return bytes(pa.Codec("zstd").compress(raw, asbytes=True))


def plain(write: Callable[[Path], object], compress: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Returns what writes a file and then compresses it."""
    return lambda path: (write(path), path.write_bytes(compress(path.read_bytes())))


def sheet(rows: Rows) -> list[list[object]]:
    """Rows as a sheet, with an empty row in the middle and below."""
    cells: list[list[object]] = [["id", "text", "label"], *([i, *row] for i, row in enumerate(rows))]
    return [*cells[:10], [], *cells[10:], [], []]


FILES = {
    "byte-order mark": Messy("r.csv", delimited(encoding="utf-8-sig")),
    "Unicode text of Excel": Messy(
        "r.csv", delimited(sign="\t", encoding="utf-16"), note="r.csv: read as utf-16, delimiter tab"
    ),
    "cp1252 with semicolons": Messy(
        "r.csv",
        delimited([*with_texts((3, " ")), ("“Voilà”, l’été – 5 €", "yes")], ";", "cp1252"),
        blank=1,
        checks=("blank",),
        note="r.csv: read as cp1252, delimiter semicolon; if that is wrong, give --encoding or --delimiter",
    ),
    "Mac Roman, named": Messy("r.csv", delimited(encoding="mac_roman"), "--encoding mac_roman"),
    "cp1251": Messy(
        "r.csv",
        delimited(RUSSIAN, encoding="cp1251"),
        note="r.csv: read as cp1251, delimiter comma",
        text=RUSSIAN[1][0],
    ),
    "pipes": Messy("r.csv", delimited(sign="|"), note="r.csv: read as UTF-8, delimiter pipe"),
    "header with commas in quotes": Messy(
        "r.csv",
        delimited(sign=";", header='"text, as written"{}"label, 0 or 1"'),
        "--text-column|text, as written|--label-column|label, 0 or 1",
    ),
    "TSV with commas": Messy("r.tsv", delimited(), note="r.tsv: read as UTF-8, delimiter comma"),
    "delimiter, named": Messy("r.csv", delimited(sign="^"), "--delimiter ^"),
    "line ends of Windows, blank lines": Messy("r.csv", delimited(header=" text {} label ", end="\r\n\r\n")),
    "gzip": Messy("r.csv.gz", plain(delimited(encoding="cp1252"), gzip.compress), note="r.csv.gz: read as cp1252"),
    "zstd, nested objects": Messy(
        "r.jsonl.zst", json_lines(CLEAN, zstd), "--text-column review.body --label-column review.stars"
    ),
    "null labels": Messy(
        "r.jsonl.gz",
        json_lines(with_labels((5, None), (8, ""), (9, None)), gzip.compress),
        "--text-column review.body --label-column review.stars",
        kept=37,
        blank=3,
        checks=("blank",),
    ),
    "workbook": Messy(
        "r.xlsx",
        lambda path: write_xlsx(path, {"Cover": [], "Data": sheet(with_texts((2, None), (7, "  "))), "Notes": [["x"]]}),
        kept=38,
        blank=2,
        checks=("blank",),
        note="r.xlsx: the sheet 'Data' was read, and not 'Notes'",
    ),
    "OpenDocument": Messy(
        "r.ods",
        lambda path: write_ods(path, {"Data": sheet([(text, int(label == "yes")) for text, label in CLEAN])}),
        labels=("0", "1"),
    ),
    "nulls of Parquet": Messy(
        "r.parquet",
        lambda path: pq.write_table(
            pa.table(dict(zip(("text", "label"), zip(*with_texts((4, None)), strict=True), strict=True))), path
        ),
        kept=39,
        blank=1,
        checks=("blank",),
    ),
    "labels in several cases": Messy(
        "r.csv", delimited(with_labels((1, "Yes"), (3, "YES "), (5, "yes"), (0, "No"))), "--merge-label-case"
    ),
    "labels that mean missing": Messy(
        "r.csv",
        delimited(with_labels((1, "N/A"), (2, "null"))),
        "--drop-label N/A --drop-label null",
        kept=38,
        text="Très bon marché, déjà vu 3 fois",
        note="2 rows were left out, by --drop-label N/A, null",
    ),
    "typing errors in labels": Messy(
        "r.csv", delimited(with_labels((1, "yse"), (0, "noo"))), "--rename yse=yes --rename noo=no"
    ),
    "labels left as they are": Messy(
        "r.csv",
        delimited(with_labels((1, "Yes"), (2, "N/A"))),
        labels=("N/A", "no", "Yes", "yes"),
        checks=("label_variants", "missing_labels", "small_classes"),
    ),
}


def flags_of(messy: Messy) -> list[str]:
    """The flags as words; `|` separates words that hold spaces."""
    return messy.flags.split("|" if "|" in messy.flags else None)


@pytest.mark.parametrize("title", FILES)
def test_messy_files_are_prepared(title: str, tmp_path: Path, capsys: Capsys) -> None:
    messy = FILES[title]
    messy.write(tmp_path / messy.name)
    found = good(capsys, "prepare", tmp_path / messy.name, "--out", tmp_path / "data", *flags_of(messy), "--json").json
    checks = {check["name"]: check for check in found["checks"]}
    assert sum(found["rows"].values()) == messy.kept
    assert tuple(found["labels"]) == messy.labels
    assert checks.get("blank", {"count": 0})["count"] == messy.blank
    assert len(checks.get("blank", {"places": []})["places"]) == messy.blank
    assert set(messy.checks) <= set(checks)
    assert any(note.startswith(messy.note) for note in found["notes"]) or not messy.note
    assert messy.text in texts_of(tmp_path / "data")


def texts_of(data: Path) -> list[str]:
    """All texts of a prepared folder."""
    return [text for file in data.glob("*.parquet") for text in pq.read_table(file)["text"].to_pylist()]


def test_the_files_are_described() -> None:
    described = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert [title for title in FILES if f"| {title} |" not in described] == []


@pytest.mark.parametrize("title", ["cp1252 with semicolons", "workbook", "labels that mean missing"])
def test_messy_files_end_in_a_run_and_a_report(
    title: str, tmp_path: Path, tiny: Callable[[str], Path], capsys: Capsys
) -> None:
    messy = FILES[title]
    messy.write(tmp_path / messy.name)
    base = ("--model", tiny("bert"), *SMALL, "--epochs", 1)
    found = good(capsys, "train", tmp_path / messy.name, "--out", tmp_path / "run", *base, *flags_of(messy))
    assert f"note: {messy.note}" in found.err
    assert ("warning: blank: " in found.err) == (messy.blank > 0)
    good(capsys, "report", tmp_path / "run")
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"{messy.kept} rows: " in report
    assert ("these rows were left out" in report) == (messy.blank > 0)
    # The same file is read in the same way to evaluate the run, its dropped labels and blank rows included.
    evaluated = json.loads(good(capsys, "evaluate", tmp_path / "run", "--data", tmp_path / messy.name, "--json").out)
    assert evaluated["n"] == messy.kept
    assert any(f"left out: {messy.blank} blank row" in note for note in evaluated["notes"]) == (messy.blank > 0)
