"""Small files that expand to more than the memory: each is read in bounded memory, or refused in one line."""

import gzip
import io
import zipfile
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import little_memory
from sheets import write_ods, write_xlsx

from bertlora.data import parquet_file, parquet_pages, record_lines, text_file
from bertlora.data.sources import open_sources
from bertlora.errors import DataError

MB = 1_000_000
TIMES = 300  # so often 8 MB: 2.4 GB
FREE = 400 * MB  # memory


def gzipped(start: str, repeated: str) -> bytes:
    """A gzip file may have many members."""
    return gzip.compress(start.encode()) + TIMES * gzip.compress(repeated.encode() * (8 * MB // len(repeated)))


def zstd(start: str, repeated: str) -> bytes:
    """A zstd file may have many frames."""
    parts = start.encode(), repeated.encode() * (8 * MB // len(repeated))
    first, second = (pa.compress(part, "zstd", asbytes=True) for part in parts)
    return bytes(first + TIMES * second)


def parquet(texts: pa.Array | list[str], label: pa.Array | list[str], **options: bool) -> bytes:
    """A Parquet file of one row group."""
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "label": label}), file, compression="zstd", **options)
    return file.getvalue()


def repeated(times: int, length: int = MB) -> pa.Array:
    """A text of 1 MB, repeated; its column has it once."""
    return pa.DictionaryArray.from_arrays(pa.repeat(0, times).cast("int32"), pa.array(["x" * length]))


TEXTS = {
    "a line": ("a.csv.gz", lambda: gzipped("text,label\n", "x"), "line 2: is longer than"),
    "a line, zstd": ("a.jsonl.zst", lambda: zstd('{"text": "', "x"), "line 1: is longer than"),
    "a list of objects": ("a.json.gz", lambda: gzipped("[", "[]," * 100_000 + "\n"), "unpacks to more than"),
    "a page": (
        "a.parquet",
        lambda: parquet(["x" * (30 * MB), "b"], ["x", "y"], use_dictionary=False, write_statistics=False),
        "has a page of 30,000",
    ),
    "a list": (
        "a.parquet",
        lambda: parquet(["a"], pa.ListArray.from_arrays(pa.array([0, 4000]), repeated(4000))),
        "lists with texts of more",
    ),
    "a list of nothing": (
        "a.parquet",
        lambda: parquet(["a"], pa.ListArray.from_arrays(pa.array([0, 2 * MB]), pa.repeat(True, 2 * MB))),
        "lists of 2,000,000 items",
    ),
}  # fmt: skip


def read(path: Path) -> None:
    """Reads a table."""
    (source,) = open_sources([str(path)]).values()
    for _ in source.batches(source.columns):
        pass


@pytest.mark.parametrize("title", TEXTS)
def test_what_expands_is_refused(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "MOST_PAGE_BYTES", 20 * MB)
    monkeypatch.setattr(parquet_pages, "MOST_ITEMS", MB)
    name, content, expected = TEXTS[title]
    (tmp_path / name).write_bytes(content())
    assert (tmp_path / name).stat().st_size < 4 * MB
    with little_memory(FREE), pytest.raises(DataError, match=expected) as found:
        read(tmp_path / name)
    assert "\n" not in str(found.value)


def test_a_compressed_file_is_streamed(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzipped("text,label\n", f"{'x' * MB},a\n"))
    with little_memory(80 * MB):
        batches = open_sources([str(tmp_path / "a.csv.gz")])[""].batches(["text"])
        assert sum(len(batch.positions) for batch in islice(batches, 13)) > 100


def test_a_record_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_lines, "LONGEST_RECORD", MB)
    (tmp_path / "a.csv").write_text("text,label\na,b\n" + '"\n",' * MB)
    with pytest.raises(DataError, match=r"a\.csv line 3: a quote that opens in this row"):
        list(open_sources([str(tmp_path / "a.csv")])[""].batches(["text"]))


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}])
def test_texts_that_a_page_has_once_come_in_small_batches(
    options: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_pages, "MOST_BATCH_BYTES", 4 * MB)
    monkeypatch.setattr(parquet_file, "PART_BYTES", MB)
    texts = repeated(2000, 100_000)
    (tmp_path / "a.parquet").write_bytes(parquet(texts.cast("string") if options else texts, ["a"] * 2000, **options))
    assert (tmp_path / "a.parquet").stat().st_size < MB // 10
    batches = list(open_sources([str(tmp_path / "a.parquet")])[""].batches(["text", "label"]))
    assert max(len(batch.positions) for batch in batches) <= (10 if options else 40)
    assert [row for batch in batches for row in batch.positions] == list(range(2000))


def test_lists_within_lists_of_a_footer_are_refused() -> None:
    with pytest.raises(parquet_pages.PagesError, match="too deep"):
        parquet_pages._Thrift(b"\x19" * 5000).struct()  # a list of one list of one list ...


def sheets(kind: str, path: Path, length: int, rows: int) -> None:
    """Writes a workbook whose cells, 100 in each row, all have one text."""
    (write_xlsx if kind == "xlsx" else write_ods)(path, {"Data": [["text", "label"], ["HERE", "b"]]})
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name).decode() for name in old.namelist()}
    if kind == "ods":
        cell = (
            f'<table:table-cell table:number-columns-repeated="100"><text:p>{"x" * length}</text:p></table:table-cell>'
        )
        new = f'<table:table-row table:number-rows-repeated="{rows}">{cell}</table:table-row></table:table>'
        parts["content.xml"] = parts["content.xml"].replace("</table:table>", new)
    else:
        row = f"<row>{'<c t=' + chr(34) + 's' + chr(34) + '><v>0</v></c>'}</row>" * (100 * rows)
        name = "xl/worksheets/s1.xml"
        parts[name] = parts[name].replace("</sheetData>", f"{row}</sheetData>")
        parts["xl/sharedStrings.xml"] = f"<sst><si><t>{'x' * length}</t></si></sst>"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new_file:
        for name, text in parts.items():
            new_file.writestr(name, text)


@pytest.mark.parametrize("kind", ["xlsx", "ods"])
def test_a_text_that_very_many_cells_have_is_refused(kind: str, tmp_path: Path) -> None:
    sheets(kind, tmp_path / f"a.{kind}", 10, 100)
    assert len(open_sources([str(tmp_path / f"a.{kind}")])[""].columns) == 2
    sheets(kind, tmp_path / f"b.{kind}", MB, 100)
    assert (tmp_path / f"b.{kind}").stat().st_size < MB // 10
    with little_memory(FREE), pytest.raises(DataError, match="characters in its cells"):
        open_sources([str(tmp_path / f"b.{kind}")])


def test_the_bounds_of_a_workbook_are_of_all_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_xlsx(tmp_path / "a.xlsx", {name: [["text", "label"], ["a", "b"]] for name in "AB"})
    monkeypatch.setattr("bertlora.data.workbook.MOST_CELLS", 8)
    assert open_sources([str(tmp_path / "a.xlsx")])
    monkeypatch.setattr("bertlora.data.workbook.MOST_CELLS", 7)
    with pytest.raises(DataError, match="it is larger than"):
        open_sources([str(tmp_path / "a.xlsx")])


def test_large_compressed_lists_are_read_if_they_are_no_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "MOST_UNPACKED", 10)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'[{"text": "a", "label": "b"}]'))
    assert open_sources([str(tmp_path / "a.json.gz")])[""].columns == ["text", "label"]
