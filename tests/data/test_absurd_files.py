"""Files that nobody would write: each is read or refused in one line, at once, and nothing else."""

import contextlib
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sheets import write_ods, write_xlsx

from bertlora.data.columns import find_columns
from bertlora.data.folder import Prepared
from bertlora.data.rows import iter_texts
from bertlora.data.scan import scan
from bertlora.data.sources import open_table
from bertlora.data.table_file import table_file
from bertlora.data.text_file import FileFormat
from bertlora.errors import DataError, InputError, RecipeError
from bertlora.pipeline.shadow_log import compare_shadows
from bertlora.recipe import Recipe
from bertlora.task import CLASSIFICATION

DEEP = 100_000
ROW = '{"text": "a", "label": "x"}\n'
LONG = 20_000_000  # more characters than a field may have


def parquet(columns: dict[str, list[str]]) -> bytes:
    """A Parquet file."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


PARQUET = parquet({"text": ["a"], "label": ["x"]})
# Name, encoding and content of a file, and what its error says; None if it is read.
FILES: dict[str, tuple[str, str | None, bytes, str | None]] = {
    "a line without end": ("r.csv", None, b"text,label\na" + b"x" * LONG, "r.csv line 2: "),
    "a quote without end": ("r.csv", None, b'text,label\na,"' + b"x\n" * 10_000, "is never closed"),
    "lists in lists": ("r.jsonl", None, b"[" * DEEP + b"]" * DEEP, "r.jsonl line 1: not JSON"),
    "objects in objects": ("r.jsonl", None, b'{"a": ' * DEEP + b"1" + b"}" * DEEP, "r.jsonl line 1: not JSON"),
    "objects as deep as Python's parser takes": (
        "r.jsonl",
        None,
        ROW.encode() + b'{"a": ' * 900 + b"1" + b"}" * 900,
        "line 2: not JSON (more than 100 objects",
    ),
    "a name of many dots": (
        "r.json",
        None,
        b'[{"text": "x", "label": "y", "' + b"a." * 900 + b'a": 1}, {"text": "x", "label": "y", "a": {"a": 1}}]',
        None,
    ),
    "a number of a million digits": (
        "r.jsonl",
        None,
        b'{"text": "a", "label": ' + b"9" * 10**6 + b"}",
        "line 1: not JSON",
    ),
    "a number above all": ("r.jsonl", None, ROW.encode() + b'{"text": "b", "label": 1e999}\n', None),
    "half of a surrogate pair": ("r.jsonl", None, b'{"text": "\\ud800", "label": "x"}', "line 1: not JSON"),
    "null bytes": ("r.csv", "utf-8", b"text,label\na\0b,x\nc,y\n", None),
    "a mark in the middle": ("r.csv", None, "text,label\na,\ufeffx\nb,y\n".encode(), None),
    "UTF-16 without its mark": ("r.csv", "utf-16", "text,label\na,x\n".encode("utf-16-be"), "r.csv"),
    "half a character of UTF-16": ("r.csv", None, "text,label\na,x\n".encode("utf-16") + b"a", "is not utf-16"),
    "half of a surrogate pair in UTF-7": ("r.csv", "utf-7", b"text,label\n+2AA-,x\n", "'utf-7' is unknown"),
    "names of hosts": ("r.csv", "idna", b"text,label\nxn--a,x\n", "'idna' is unknown"),
    "Parquet with a name that is no text": (
        "r.parquet",
        None,
        PARQUET.replace(b"text", b"te\xfft"),
        "not a complete Parquet",
    ),
    "a line break in a name": ("r.csv", None, b'"te\nxt","la\x0bbel"\na,b\n', "'te xt', 'la bel'"),
}


def read(path: Path, encoding: str | None = None) -> int:
    """Reads a table as `prepare` does; returns the number of its rows."""
    source = open_table(path, form=FileFormat(encoding))
    rows = sum(len(batch.positions) for batch in source.batches(source.columns))
    scan(source, find_columns(source), CLASSIFICATION)
    return rows


@pytest.mark.parametrize("title", FILES)
def test_absurd_tables(title: str, tmp_path: Path) -> None:
    name, encoding, content, expected = FILES[title]
    (tmp_path / name).write_bytes(content)
    if expected is None:
        assert read(tmp_path / name, encoding) in (1, 2)
        return
    with pytest.raises(InputError) as caught:
        read(tmp_path / name, encoding)
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


# What takes the place of the end of the sheet; calamine waited for it without end, or took all memory.
SHEETS = {
    "xlsx: the farthest cell": ("</sheetData>", '<row r="9"><c r="XFD1048576"><v>1</v></c></row></sheetData>', "cells"),
    "xlsx: beyond the farthest": ("</sheetData>", '<row><c r="ZZZZZZZ9999999999"/></row></sheetData>', "cells"),
    "xlsx: in small letters": ("</sheetData>", '<row><c r="kkkkkkkkk2"><v>1</v></c></row></sheetData>', "cells"),
    "xlsx: more rows than Excel has": ("</sheetData>", '<row r="3333333"/></sheetData>', "rows"),
    "xlsx: a stray cell": ("</sheetData>", '<row><c r="T1000000"><v>1</v></c></row></sheetData>', "far off"),
    "ods: a table without end": ("</table:table>", "", "mismatched tag"),
    "ods: a table of all cells": (
        "</table:table>",
        '<table:table-row table:number-rows-repeated="4294967295"><table:table-cell table:number-columns-repeated='
        '"4294967295" office:value-type="float" office:value="1"/></table:table-row></table:table>',
        "ells",
    ),
}


@pytest.mark.parametrize("title", SHEETS)
def test_absurd_sheets(title: str, tmp_path: Path) -> None:
    end, new, expected = SHEETS[title]
    kind = title.partition(":")[0]
    write, inner = {"xlsx": (write_xlsx, "xl/worksheets/s1.xml"), "ods": (write_ods, "content.xml")}[kind]
    good, bad = tmp_path / f"good.{kind}", tmp_path / f"bad.{kind}"
    write(good, {"Data": [["text", "label"], ["a", "x"], ["b", "y"]]})
    assert read(good) == 2
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as made:
        for name in old.namelist():
            content = old.read(name).decode()
            made.writestr(name, content.replace(end, new) if name == inner else content)
    with pytest.raises(DataError, match=f"is not a sheet that can be read .*{expected}"):
        read(bad)


LINE = '{"adapter": "a", "candidate": "c", "text": "t", "adapter_label": "n", "candidate_label": "y", "label": "y"}'


@pytest.mark.parametrize("disagreed", ["1e999", "-1", "1.5", "null", "9" * 400])
def test_absurd_counts_in_a_shadow_log(disagreed: str, tmp_path: Path) -> None:
    shadow = '{"adapter": "a", "candidate": "c", "labels": ["n", "y"], "agreed": 555555555555, "disagreed": %s}'
    counts = '{"shadow": ' + shadow + "}"
    log = tmp_path / "log.jsonl"
    log.write_text(f"{counts % 2}\n{LINE}", encoding="utf-8")
    assert compare_shadows(log)["shadows"][0]["decision"] == "undecided"
    log.write_text(f"{counts % disagreed}\n{LINE}", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: is not a line of a shadow log"):
        compare_shadows(log)


RECIPES = {
    "lists in lists": "x = " + "[" * DEEP,
    "tables in tables": "x = " + "{a = " * DEEP,
    "a number of many digits": "rank = " + "9" * 10_000,
    "a number of many digits, base 16": "rank = 0x" + "f" * 10_000,
    "a number above every float": f"alpha = {10**400}",
    "such numbers in a list": "targets = [0x" + "f" * 10_000 + "]",
    "null": "rank = \0",
    "a date": "rank = 2024-01-01",
    "a key with a line break": '"a\\nb" = 1',
}


@pytest.mark.parametrize("title", RECIPES)
def test_absurd_recipes(title: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPES[title], encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        Recipe.named(str(tmp_path / "r.toml"))
    assert "\n" not in str(caught.value)


def test_absurd_descriptions_of_prepared_data(tmp_path: Path) -> None:
    good = {
        "format_version": 1,
        "labels": ["n", "y"],
        "rows": {},
        "fingerprint": "0",
        "sources": {},
        "split": "70/15/15",
    }
    good |= {
        "columns": {"text": "a", "text_pair": None, "label": "b"},
        "sample": 0,
        "seed": 1,
        "notes": [],
        "checks": [],
    }
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps(good), encoding="utf-8")
    assert Prepared.load(tmp_path).labels == ["n", "y"]
    wrong = {
        "labels": "ny",
        "rows": {"../train": 1},
        "columns": {},
        "sources": [],
        "split": 7,
        "sample": -1,
        "seed": 1e999,
    }
    wrong |= {"notes": [1], "checks": [1], "task": "x", "label_rules": [], "format_version": None, "fingerprint": 1}
    for text in (*(json.dumps(good | {key: value}) for key, value in wrong.items()), "[" * DEEP, "[]", "\0", ""):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DataError):
            Prepared.load(tmp_path)


ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(max_examples=40)
@given(rows=st.lists(st.tuples(ANY, ANY), min_size=1, max_size=5), kind=st.sampled_from(["csv", "jsonl", "parquet"]))
@example(rows=[("\ufeff", "\0")], kind="csv")
def test_what_is_written_is_read_again(
    rows: list[tuple[str, str]], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("again") / f"r.{kind}"
    columns = dict(zip(("text", "label"), map(list, zip(*rows, strict=True)), strict=True))
    with table_file(path, kind, {name: pa.string() for name in columns}) as write:
        write(columns)
    source = open_table(
        path, form=FileFormat(None if kind == "parquet" else "utf-8") if kind == "csv" else FileFormat()
    )
    assert [batch.columns for batch in source.batches(["text", "label"])] == [columns]


@settings(max_examples=60)
@given(data=st.binary(min_size=1, max_size=60), encoding=st.sampled_from(["utf-8", "utf-16", "utf-32", "cp932"]))
def test_any_bytes_are_texts_or_a_clear_error(
    data: bytes, encoding: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "r.txt"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        found = [text for batch in iter_texts(str(path), encoding=encoding) for text, _ in batch]
        assert all(text.encode() is not None for text in found)
