"""Predictions for the rows of a file: in order, next to the file's own columns, in batches of bounded size."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bertlora.errors import DataError, InputError
from bertlora.pipeline.predict import ROWS, FileRows, write_predictions

WHERE = {"text_column": None, "text_pair_column": None, "split": "test"}


class Stub:
    """A run whose label is the last word of the text, and its confidence the number of texts in the batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.manifest = SimpleNamespace(labels=["odd", "even"], task="classification")

    def ready(self, precision: str) -> Any:
        return nullcontext()

    def predict(self, texts: list[str], pairs: list[str] | None, **options: Any) -> list[dict[str, Any]]:
        self.batches.append(len(texts))
        both = {"odd": 0.25, "even": 0.75}
        more = {"abstained": True, "labels": ["odd"]} if options else {}
        return [{"label": text.split()[-1], "confidence": 0.75, "probabilities": both} | more for text in texts]


def rows_file(path: Path, count: int) -> Path:
    lines = (json.dumps({"id": i, "text": f"number {i} {'odd' if i % 2 else 'even'}", "x": [i]}) for i in range(count))
    path.write_text("\n".join(lines))
    return path


def test_every_row_keeps_its_columns_and_its_place(tmp_path: Path) -> None:
    run, count = Stub(), 2 * ROWS + 5
    rows = FileRows.open(str(rows_file(tmp_path / "r.jsonl", count)), **WHERE)
    assert write_predictions(run, rows, tmp_path / "o.jsonl", "jsonl") == count  # type: ignore[arg-type]
    assert run.batches == [ROWS, ROWS, 5]
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines[:1]] == [["id", "text", "x", "predicted_label", "confidence"]]
    assert [line["id"] for line in lines] == list(range(count))
    assert all(line["predicted_label"] == ("odd" if line["id"] % 2 else "even") for line in lines)
    assert all(line["x"] == [line["id"]] for line in lines)


def test_a_column_that_only_a_late_row_has_is_kept(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{i} odd"} | ({"note": {"by": "me"}} if i == 150 else {})) for i in range(160)]
    for name, text in {"r.jsonl": "\n".join(lines), "r.json": f"[{','.join(lines)}]"}.items():
        (tmp_path / name).write_text(text)
        rows = FileRows.open(str(tmp_path / name), **WHERE)
        write_predictions(Stub(), rows, tmp_path / "o.jsonl", "jsonl")  # type: ignore[arg-type]
        found = [json.loads(line).get("note.by") for line in (tmp_path / "o.jsonl").read_text().splitlines()]
        assert found == [None] * 150 + ["me"] + [None] * 9


def test_one_column_and_every_figure(tmp_path: Path) -> None:
    rows = FileRows.open(str(rows_file(tmp_path / "r.jsonl", 1)), "id", **WHERE)
    options: dict[str, Any] = {"abstain": "coverage=0.5", "sets": 0.9}
    write_predictions(Stub(), rows, tmp_path / "o.csv", "csv", probabilities=True, **options)  # type: ignore[arg-type]
    assert (tmp_path / "o.csv").read_text() == (
        "id,predicted_label,confidence,abstained,predicted_labels,probability of odd,probability of even\n"
        '0,even,0.75,true,"[""odd""]",0.25,0.75\n'
    )


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("text,confidence\na odd,high\n")
    rows = FileRows.open(str(tmp_path / "r.csv"), **WHERE)
    with pytest.raises(InputError, match=r"r\.csv: has a column 'confidence' already; rename it, or keep one other"):
        write_predictions(Stub(), rows, tmp_path / "o.csv", "csv")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'nope' is not one of its columns"):
        FileRows.open(str(tmp_path / "r.csv"), "nope", **WHERE)
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]
