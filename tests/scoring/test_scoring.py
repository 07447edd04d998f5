"""Scoring of files: every row once and in order, whatever is broken and whenever it is killed."""

import csv
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bertlora.errors import DataError, FullMemoryError, InputError, OutputError, RunError
from bertlora.scoring import score

FILES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")


class Stub:
    """A run whose output is the length of the text, and that counts the texts it was given."""

    path = Path("no run")
    manifest = SimpleNamespace(labels=["short", "long"], task="classification")

    def __init__(self) -> None:
        self.texts = self.readies = 0
        self.model = SimpleNamespace(reader=SimpleNamespace(read=self._read), logits=self._logits)

    def _read(self, texts: list[str], pairs: list[str] | None) -> list[str]:
        return texts

    def _logits(self, texts: list[str], precision: str) -> Any:
        assert texts
        self.texts += len(texts)
        return np.array([[float(len(text))] for text in texts])

    def choose_precision(self, wanted: str) -> str:
        return wanted

    @contextmanager
    def ready(self, precision: str) -> Iterator[None]:
        self.readies += 1
        yield

    def predictions(self, **options: Any) -> Any:
        def line(length: float) -> dict[str, Any]:
            both = {"short": 1 / (1 + length), "long": length / (1 + length)}
            return {"label": "long" if length > 8 else "short", "confidence": max(both.values()), "probabilities": both}

        return lambda outputs: [line(row[0]) for row in outputs]


class PanicException(BaseException):
    """What the tokenizers library raises if its code in Rust fails."""


class Failing(Stub):
    """A run whose tokenizer or model raises an error on texts that ask for it."""

    def __init__(self, fault: Exception | None = None, after: int = 0) -> None:
        super().__init__()
        self.fault, self.after = fault, after

    def _read(self, texts: list[str], pairs: list[str] | None) -> list[str]:
        if any("unreadable" in text for text in texts):
            raise PanicException("no token for it\nand more")
        return texts

    def _logits(self, texts: list[str], precision: str) -> Any:
        if self.fault and self.texts >= self.after:
            raise self.fault
        if any("uncomputable" in text for text in texts):
            raise IndexError("index out of range")
        return super()._logits(texts, precision)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of three rows."""
    for place in ("data.source.BATCH_ROWS", "data.readers.BATCH_ROWS", "scoring.parts.PART_ROWS"):
        monkeypatch.setattr(f"bertlora.{place}", 3)


def run(folder: Path, specs: list[Path], out: str, stub: Stub | None = None, **options: Any) -> Any:
    stub = stub or Stub()
    found = score(stub, [str(spec) for spec in specs], folder / out, **options)  # type: ignore[arg-type]
    assert stub.readies <= 1
    assert not list(folder.glob(".*"))
    return found


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


def mixed_csv(path: Path) -> Path:
    """Ten good rows among rows that are broken in every way that a CSV file knows."""
    rows = [f'{i},"text {i}, caf\u00e9 {"x" * i}\nsecond line",{i * i}\n' for i in range(10)]
    rows.insert(8, "8.5,   ,7\n")
    rows.insert(6, '5.5,"never closed,0\n')
    rows.insert(4, "3.5,too,many,fields\n")
    rows.insert(4, '3.25,"goes" on,1\n')
    return write(path, f"id,text,square\n{''.join(rows)}".encode() + b"10,\xff bytes,1\n11,the last,121\n")


@pytest.mark.parametrize("out", ["o.csv", "o.tsv", "o.jsonl", "o.parquet"])
def test_every_good_row_is_written_in_order_and_every_bad_one_is_set_aside(tmp_path: Path, out: str) -> None:
    source = mixed_csv(tmp_path / "r.csv")
    found = run(tmp_path, [source], out, probabilities=True)
    rows = table(tmp_path / out)
    assert list(rows[0]) == [
        "id", "text", "square", "label", "confidence", "probability of short", "probability of long",
    ]  # fmt: skip
    assert [row["id"] for row in rows] == [*map(str, range(10)), "11"]
    assert rows[9]["text"] == f"text 9, caf\u00e9 {'x' * 9}\nsecond line"
    assert [row["label"] for row in rows] == ["long"] * 10 + ["short"]
    bad = table(Path(found.quarantine))
    assert [(one["place"].rpartition("r.csv ")[2], one["reason"][:12]) for one in bad] == [
        ("line 10", "a quoted tex"), ("line 11", "4 fields, ex"), ("line 16", "a quoted tex"),
        ("line 21", "'text' is bl"), ("line 26", "line 26: byt"),
    ]  # fmt: skip
    assert (found.rows, found.quarantined, found.resumed) == (11, 5, 0)


def test_json_lines_of_several_files_are_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(
        folder / "a.jsonl", '{"text": "one", "n": 1}\nno json\n{"text": ["a list"]}\n{"text": "two", "x": {"y": 2}}\n'
    )
    write(folder / "b.jsonl", '[1]\n{"n": 5}\n{"text": "three"}\n')
    for specs in ([folder], [folder / "*.jsonl"], [folder / "a.jsonl", folder / "b.jsonl"]):
        found = run(folder, specs, "out.jsonl", overwrite=True)
        rows = table(folder / "out.jsonl")
        assert [(row["text"], row["n"], row["x.y"]) for row in rows] == [
            ("one", 1, None), ("two", None, 2), ("three", None, None)
        ]  # fmt: skip
        bad = [(Path(one["file"]).name, one["position"]) for one in table(Path(found.quarantine))]
        assert bad == [("a.jsonl", 2), ("a.jsonl", 3), ("b.jsonl", 1), ("b.jsonl", 2)]
    found = run(folder, [write(folder / "c.jsonl", '{"text": "fine"}\n')], "out.jsonl", overwrite=True)
    assert not found.quarantine
    assert not (folder / "out.jsonl.quarantine.jsonl").exists()
    found = run(folder, [write(folder / "d.jsonl", '{"text": " "}\n{"text": null}\n')], "out.jsonl", overwrite=True)
    assert (found.rows, found.quarantined, table(folder / "out.jsonl")) == (0, 2, [])


def test_cells_that_look_like_formulas_stay_unless_asked(tmp_path: Path) -> None:
    source = write(tmp_path / "r.csv", 'text,x\ngood one,=1+1\n@name,-3\nplain,3\n"\ttab",\n')
    cells = {}
    for safe in (False, True):
        run(tmp_path, [source], "o.csv", overwrite=True, safe_csv=safe)
        cells[safe] = [(row["text"], row["x"]) for row in table(tmp_path / "o.csv")]
    assert cells[False] == [("good one", "=1+1"), ("@name", "-3"), ("plain", "3"), ("\ttab", "")]
    assert cells[True] == [("good one", "'=1+1"), ("'@name", "'-3"), ("plain", "3"), ("'\ttab", "")]


@pytest.mark.parametrize("out", ["o.csv", "o.parquet"])
def test_a_row_on_which_the_model_fails_is_set_aside(tmp_path: Path, out: str) -> None:
    texts = [f"text {i}" for i in range(14)]
    for i in (1, 6, 7, 8):  # 6 to 8 are a whole part
        texts[i] += " uncomputable"
    texts[4] = "unreadable"
    texts[3] = " "
    source = write(tmp_path / "r.csv", "id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    found = run(tmp_path, [source], out, Failing())
    assert [int(row["id"]) for row in table(tmp_path / out)] == [0, 2, 5, 9, 10, 11, 12, 13]
    bad = table(Path(found.quarantine))
    assert [one["place"].rpartition("r.csv ")[2] for one in bad] == [f"line {i + 2}" for i in (1, 3, 4, 6, 7, 8)]
    reasons = [one["reason"] for one in bad]
    assert reasons[0] == reasons[3] == "the model cannot compute it (index out of range)"
    assert reasons[1].startswith("'text' is blank")
    assert reasons[2] == "the model cannot compute it (no token for it)"
    assert (found.rows, found.quarantined) == (8, 6)


MACHINE_FAULTS = [
    MemoryError(),
    FullMemoryError("memory ran out with a single text"),
    OSError(28, "No space left on device"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RunError("m.onnx: ONNX Runtime cannot run it (Failed to allocate memory for requested buffer)"),
    KeyError("of a model that fails on every text"),
]


@pytest.mark.parametrize("fault", MACHINE_FAULTS, ids=lambda fault: str(fault)[:30])
def test_a_fault_of_the_machine_or_of_the_whole_model_stops_and_the_same_call_goes_on(
    tmp_path: Path, fault: Exception
) -> None:
    source = write(tmp_path / "r.csv", "text\n" + "".join(f"text {i}\n" for i in range(9)))
    with pytest.raises(type(fault)) as raised:
        score(Failing(fault, after=6), [str(source)], tmp_path / "o.csv")  # type: ignore[arg-type]
    assert raised.value is fault
    assert not (tmp_path / "o.csv").exists()
    found = run(tmp_path, [source], "o.csv")
    assert (found.rows, found.quarantined) == (9, 0)
    assert found.resumed >= 3  # of the two parts before, one may not have been written


def killed_at(step: int, folder: Path, source: Path, out: str) -> bool:
    """Scores in a process that kills itself before its file operation number `step`. Returns whether it was killed."""
    if child := os.fork():
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    count = 0

    def hook(event: str, args: Any) -> None:
        nonlocal count
        if event in FILES and out in str(args[0]):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    score(Stub(), [str(source)], folder / out)  # type: ignore[arg-type]
    os._exit(0)


@pytest.mark.parametrize("out", ["o.csv", "o.parquet"])
def test_a_kill_before_any_file_operation_loses_no_row_and_doubles_none(tmp_path: Path, out: str) -> None:
    source = mixed_csv(tmp_path / "r.csv")
    run(tmp_path, [source], out)
    outputs = [tmp_path / out, tmp_path / f"{out}.quarantine.jsonl"]
    whole = [path.read_bytes() for path in outputs]
    steps = computed = 0
    while True:
        steps += 1
        for path in outputs:
            path.unlink()
        if not killed_at(steps, tmp_path, source, out):
            break
        if not (tmp_path / f".{out}.parts" / "state.json").exists() and outputs[0].exists():
            continue  # killed after the end: all is there
        stub = Stub()
        score(stub, [str(source)], tmp_path / out)  # type: ignore[arg-type]
        computed += stub.texts
        assert [path.read_bytes() for path in outputs] == whole, steps
        assert [path.name for path in tmp_path.glob(".*")] == []
    assert steps > 25
    assert computed < 0.75 * steps * 11  # parts that were done are not computed again


def test_a_full_disk_is_one_line_and_the_same_call_goes_on(tmp_path: Path) -> None:
    lines = "".join(f"{i},{'text ' * (i * 10)}\n" for i in range(1, 20))
    source = write(tmp_path / "r.csv", f"id,text\n{lines}")
    if not (child := os.fork()):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # the error of a larger file stands for a full disk
        try:
            score(Stub(), [str(source)], tmp_path / "o.csv")  # type: ignore[arg-type]
        except OutputError as error:
            os._exit(0 if str(error).endswith("the same command goes on where it stopped") else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert not (tmp_path / "o.csv").exists()
    found = run(tmp_path, [source], "o.csv")
    assert (found.rows, found.resumed) == (19, 12)
    assert [row["id"] for row in table(tmp_path / "o.csv")] == [str(i) for i in range(1, 20)]


def test_another_work_than_the_unfinished_one_is_refused(tmp_path: Path) -> None:
    source = mixed_csv(tmp_path / "r.csv")

    def again(**options: Any) -> None:
        score(Stub(), [str(source)], tmp_path / "o.csv", **options)  # type: ignore[arg-type]

    def fail(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(progress=fail)
    assert not (tmp_path / "o.csv").exists()
    with pytest.raises(OutputError, match=r"parts: holds unfinished parts of other options; repeat .* overwrite=True"):
        again(probabilities=True)
    source.write_bytes(source.read_bytes() + b"12,new,1\n")
    with pytest.raises(OutputError, match="of another or changed source"):
        again()
    again(overwrite=True)
    assert [row["id"] for row in table(tmp_path / "o.csv")][-1] == "12"
    with pytest.raises(OutputError, match=r"o\.csv: is there already"):
        again()


def test_what_cannot_be_scored_leaves_nothing(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.csv", "text,x\na,1\n"), write(tmp_path / "b.csv", "text,y\na,1\n")
    empty, added = write(tmp_path / "e.csv", "text\n"), write(tmp_path / "c.csv", "text,confidence\na,1\n")
    with pytest.raises(DataError, match=r"a\.csv: lacks the column 'y' of .*b\.csv"):
        run(tmp_path, [a, b], "o.csv")
    with pytest.raises(InputError, match=r"e\.csv: has no rows"):
        run(tmp_path, [empty], "o.csv")
    with pytest.raises(InputError, match="has a column 'confidence' already"):
        run(tmp_path, [added], "o.csv")
    with pytest.raises(InputError, match=r"o\.txt does not name a format"):
        run(tmp_path, [a], "o.txt")
    with pytest.raises(DataError, match="no file has such a name"):
        run(tmp_path, [tmp_path / "*.nope"], "o.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv", "c.csv", "e.csv"]


def test_parquet_keeps_types_across_parts(tmp_path: Path) -> None:
    rows = {"text": [f"t{i}" for i in range(8)], "n": [None] * 4 + [1, 2, 3, 4], "tags": [["a"]] * 8}
    pq.write_table(pa.table(rows), tmp_path / "r.parquet")
    run(tmp_path, [tmp_path / "r.parquet"], "o.parquet")
    found = pq.read_table(tmp_path / "o.parquet")
    assert {name: found[name].to_pylist() for name in rows} == rows
    assert [str(found.schema.field(name).type) for name in rows] == ["string", "int64", "list<element: string>"]
