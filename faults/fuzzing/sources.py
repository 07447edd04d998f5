"""Readers of data: tables and texts, the recipe, the prepared folder, the log of shadows."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sheets import write_ods, write_xlsx

from bertlora.data.columns import find_columns
from bertlora.data.encoding import detect_encoding
from bertlora.data.folder import Prepared
from bertlora.data.rows import iter_texts
from bertlora.data.scan import scan
from bertlora.data.sources import open_sources, open_table
from bertlora.data.text_file import FileFormat
from bertlora.errors import DataError
from bertlora.pipeline.shadow_log import compare_shadows
from bertlora.recipe import Recipe
from bertlora.task import CLASSIFICATION, MULTILABEL, REGRESSION
from fuzzing.engine import Target

ROWS = [{"text": "good film", "label": "yes"}, {"text": "bad, sad", "label": "no"}, {"text": "so-so", "label": None}]
TASKS = CLASSIFICATION, MULTILABEL, REGRESSION
CSV = [b"text,label\ngood,1\nbad,0\n", b'text;label\n"a;b ""c""\nd";yes\nx;no\n', b"sentence\n\xef\xbb\xbfx\n"]
CSV += [b"premise,hypothesis,label,split\na,b,1,train\nc,d,0,test\n", "text,label\né,1\n".encode("utf-16")]
TSV = [line.replace(b",", b"\t").replace(b";", b"\t") for line in CSV[:4]] + [b"gj04\t1\t\tThey left.\ngj04\t0\t*\tx\n"]
TSV += [b"id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tWhy?\tHow?\t0\n5\t6\t7\thalf\nno more\t0\n"]
LINES = "\n".join(map(json.dumps, ROWS)).encode()
JSONL = [LINES, b'{"review": {"body": "a", "stars": 5}}\n{"review": {"body": "b"}}\n', b'{"text": "\\ud83d\\ude00"}\n']
JSONL += [b'{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": []}\n', b'{"text": "a", "label": 1.5e300}\n']


def read_table(path: Path, data: bytes, task: str = CLASSIFICATION, encoding: str | None = None) -> None:
    """Reads a table as `prepare` does, in half of the cases without its broken rows."""
    path.write_bytes(data)
    faults: list[str] = []
    on_fault = None if len(data) % 2 else lambda line, reason: faults.append(f"{line} {reason}")
    source = open_table(path, form=FileFormat(encoding, on_fault=on_fault))
    try:
        columns = find_columns(source)
    except DataError:
        for _ in source.batches(source.columns):
            pass
    else:
        scan(source, columns, task)
    assert not any("\n" in note for note in source.notes), source.notes


def table(name: str, seeds: list[bytes], encoding: str | None = None) -> Callable[[Path], Target]:
    """Returns what makes the reader of files with this name."""
    return lambda folder: Target(
        lambda data: read_table(folder / name, data, TASKS[sum(data[-3:]) % 3], encoding), seeds
    )


def parquet() -> list[bytes]:
    """Small Parquet files."""
    names = {
        b"huggingface": json.dumps({"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}})
    }
    columns: list[dict[str, Any]] = [
        {"text": ["a", "b", None], "label": [0, 1, 1]},
        {"text": ["a"], "label": [["x", "y"]]},
        {"text": ["a", "b"], "label": [1.5, None]},
        {"text": [{"inner": 1}], "label": [b"raw"]},
    ]
    found = []
    for values in columns:
        file = io.BytesIO()
        pq.write_table(pa.table(values).replace_schema_metadata(names), file)
        found.append(file.getvalue())
    return found


def sheets(folder: Path) -> Target:
    """Workbooks: the file itself, or the XML in it, which a checksum would hide from mutations of the file."""
    cells: list[list[object]] = [["text", "label"], ["good", 1], [None, 2.5], ["bad", "no"]]
    write_xlsx(folder / "a.xlsx", {"Cover": [], "Data": cells})
    write_ods(folder / "a.ods", {"Data": cells})
    inner = {"xlsx": "xl/worksheets/s2.xml", "ods": "content.xml"}
    parts = {}
    for kind in inner:
        with zipfile.ZipFile(folder / f"a.{kind}") as file:
            parts[kind] = {name: file.read(name) for name in file.namelist()}

    def call(data: bytes) -> None:
        kind, rest = ("xlsx", "ods")[data[:1] > b"m"], data[1:]
        if data[:1].isalpha():
            made = io.BytesIO()
            with zipfile.ZipFile(made, "w") as file:
                for name, content in (parts[kind] | {inner[kind]: rest}).items():
                    file.writestr(name, content)
            rest = made.getvalue()
        read_table(folder / f"r.{kind}", rest)

    seeds = [{"xlsx": b"a", "ods": b"z"}[kind] + parts[kind][inner[kind]] for kind in inner]
    return Target(call, [*seeds, b" " + (folder / "a.xlsx").read_bytes(), b"~" + (folder / "a.ods").read_bytes()])


def texts(folder: Path) -> Target:
    """Plain text, one on each line."""

    def call(data: bytes) -> None:
        (folder / "r.txt").write_bytes(data)
        for batch in iter_texts(str(folder / "r.txt"), encoding="utf-8"):
            assert all(isinstance(text, str) for text, _ in batch)

    return Target(call, [b"a\nb\n\nc", b"\xef\xbb\xbfa\r\nb\r\n", "a\u2028b\x85\n".encode()])


def encodings(folder: Path) -> Target:
    """Bytes in any encoding: one is found, and it reads them, or a line is named."""
    words = "Très bon hôtel, déjà vu 3 fois\nЗавтра в кино\n"
    seeds = [words.encode(code, "ignore") for code in ("utf-8", "utf-16", "utf-16-be", "cp1252", "cp1251", "utf-8-sig")]

    def call(data: bytes) -> None:
        "".encode(detect_encoding(io.BytesIO(data)))
        read_lines(folder / "r.txt", data)

    def read_lines(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        for _ in iter_texts(str(path)):
            pass

    return Target(call, [seed + b"a\n" for seed in seeds], longest=100)


def compressed(folder: Path) -> Target:
    """Files that are compressed by gzip or zstd."""
    zstd = pa.Codec("zstd")
    seeds = [gzip.compress(CSV[0], mtime=0), gzip.compress(LINES, mtime=0), zstd.compress(CSV[0], asbytes=True)]

    def call(data: bytes) -> None:
        name = "r.csv.gz" if data[:2] == b"\x1f\x8b" or len(data) % 2 else "r.csv.zst"
        read_table(folder / name, data, encoding="utf-8")

    return Target(call, seeds)


def folders(folder: Path) -> Target:
    """Folders of any layout: each line of an input is a path in it, and what is behind `=` is in the file."""
    seeds = [
        b"pos/a.txt=good\nneg/a.txt=bad",
        b"train/pos/a.txt=x\ntrain/neg/b.txt=y\ntest/pos/c.txt=z\ntest/neg/d.txt=w",
    ]
    seeds += [
        b"train.csv=text,label\ntest.csv=text,label",
        b"dev_matched.tsv=a\tb\ntrain.tsv=a\tb",
        b"pos/=\nneg.txt=a",
    ]
    root = folder / "tree"
    count = 0

    def call(data: bytes) -> None:
        nonlocal count
        count += 1
        top = root / f"{count}"
        for line in data.split(b"\n")[:5]:
            name, _, content = line.partition(b"=")
            parts = [part.decode("utf-8", "surrogateescape")[:40] for part in name.replace(b"\0", b"").split(b"/")]
            path = top.joinpath(*(part for part in parts[:4] if part not in ("", ".", "..")))
            try:
                (path if name.endswith(b"/") else path.parent).mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except OSError:  # a file and a folder of one name, or a name that is too long
                continue
        try:
            for source in open_sources([str(top)]).values():
                for batch in source.batches(source.columns):
                    [source.place(position) for position in batch.positions]
        finally:
            clear(top)

    return Target(call, seeds)


def clear(path: Path) -> None:
    """Removes a folder."""
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def recipes(folder: Path) -> Target:
    """Recipes in TOML."""
    path = folder / "r.toml"

    def call(data: bytes) -> None:
        path.write_bytes(data)
        made = Recipe.named(str(path))
        path.write_text(made.to_toml(comments=False), encoding="utf-8")
        assert Recipe.named(str(path)) == made

    some = 'rank = 4\nlearning_rate = 1e-4\ntargets = ["query"]\nrank_pattern = {query = 4}\ndata = "x.csv"\n'
    return Target(call, [some.encode(), b'class_weights = {a = 2.0}\nsplit = "80/10/10"\nseed = 0xff\nepochs = 1_0\n'])


def prepared(folder: Path) -> Target:
    """The description of a prepared folder, and what reads the folder by it."""
    pq.write_table(
        pa.table({"text": ["a", "b"], "label": [0, 1], "row": [0, 1], "place": ["x", "y"]}), folder / "train.parquet"
    )
    facts: dict[str, Any] = {"format_version": 1, "labels": ["n", "y"], "rows": {"train": 2}, "fingerprint": "0" * 64}
    facts |= {"columns": {"text": "text", "text_pair": None, "label": "label"}, "sources": {"all": "r.csv"}}
    facts |= {"split": "70/15/15", "sample": 0, "seed": 42, "notes": [], "checks": []}
    several = facts | {"task": MULTILABEL, "label_rules": {"dropped": ["x"]}}

    def call(data: bytes) -> None:
        (folder / "dataset.json").write_bytes(data)
        found = Prepared.load(folder)
        for name in found.rows:
            found.split(name)
            found.places(name, [0])
        json.dumps(found.summary())

    return Target(call, [json.dumps(one).encode() for one in (facts, several, facts | {"task": REGRESSION})])


def split_files(folder: Path) -> Target:
    """The Parquet files of a prepared folder."""
    prepared(folder).call(prepared(folder).seeds[0])
    good = (folder / "train.parquet").read_bytes()

    def call(data: bytes) -> None:
        (folder / "train.parquet").write_bytes(data)
        found = Prepared.load(folder)
        found.targets("train")
        found.split("train")
        found.places("train", [0])

    return Target(call, [good, *parquet()])


def shadow_logs(folder: Path) -> Target:
    """The log of shadows, with labels that people filled in."""
    counts = {"shadow": {"adapter": "a", "candidate": "c", "labels": ["n", "y"], "agreed": 5, "disagreed": 2}}
    line = {"adapter": "a", "candidate": "c", "text": "t", "adapter_label": "n", "candidate_label": "y", "label": "y"}
    pairs = line | {"text_pair": "u", "adapter_label": ["n"], "candidate_label": [], "label": "n|y"}

    def call(data: bytes) -> None:
        (folder / "log.jsonl").write_bytes(data)
        json.dumps(compare_shadows(folder / "log.jsonl"))

    return Target(call, ["\n".join(map(json.dumps, some)).encode() for some in ([counts, line], [counts, pairs, line])])


TARGETS: dict[str, Callable[[Path], Target]] = {
    "CSV": table("r.csv", CSV, "utf-8"),
    "TSV": table("r.tsv", TSV, "utf-8"),
    "JSON lines": table("r.jsonl", JSONL, "utf-8"),
    "JSON": table("r.json", [json.dumps(ROWS).encode(), b"[" + JSONL[3].replace(b"}\n{", b"},\n{") + b"]"], "utf-8"),
    "Parquet": table("r.parquet", parquet()),
    "sheets": sheets,
    "plain text": texts,
    "encodings": encodings,
    "gzip and zstd": compressed,
    "folders": folders,
    "recipe": recipes,
    "dataset.json": prepared,
    "prepared Parquet": split_files,
    "shadow log": shadow_logs,
}
