"""Tables that are written in parts come back as they were, from every format, and are whole or not there."""

import datetime
import json
from pathlib import Path

import pandas as pd
import pytest

from bertlora.data.sources import open_sources
from bertlora.data.table_file import FORMATS, column_types, format_of, table_file

PARTS = [
    {"id": ["7", "007"], "text": ['a "quoted", text', "two\nlines\u2028here"], "label": ["x", None], "p": [0.25, 1.0]},
    {"id": ["", "8"], "text": ["tab\there", "é; €"], "label": [None, None], "p": [0.1, 1 / 3]},
]
NAMES = list(PARTS[0])


def written(path: Path, parts: list[dict[str, list[object]]]) -> Path:
    format = format_of(path)
    with table_file(path, format, column_types(parts) if format == "parquet" else None) as write:
        for part in parts:
            write(part)
    return path


def read(path: Path) -> dict[str, list[object]]:
    (source,) = open_sources([str(path)]).values()
    found: dict[str, list[object]] = {name: [] for name in source.columns}
    for batch in source.batches(source.columns):
        for name, values in batch.columns.items():
            found[name] += values
    return found


@pytest.mark.parametrize("suffix", [*FORMATS, ".CSV"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    found = read(written(tmp_path / f"t{suffix}", PARTS))
    whole = {name: [value for part in PARTS for value in part[name]] for name in NAMES}
    assert list(found) == NAMES
    if format_of(tmp_path / f"t{suffix}") in ("csv", "tsv"):  # which have texts only
        found["p"] = [float(str(value)) for value in found["p"]]
        whole["label"] = [value or "" for value in whole["label"]]
    assert found == whole


def test_values_that_are_no_text(tmp_path: Path) -> None:
    """Lists, objects, dates, whole numbers, and a column whose types do not agree."""
    day = datetime.date(2026, 3, 1)
    rows = {"many": [[1, 2], []], "object": [{"a": True}, None], "day": [day, None], "mixed": [1, "one"], "n": [1, 2]}
    parts = [{name: values[i : i + 1] for name, values in rows.items()} for i in range(2)]
    frame = pd.read_parquet(written(tmp_path / "t.parquet", parts))
    assert frame["n"].tolist() == [1, 2]
    assert [list(value) for value in frame["many"]] == rows["many"]
    assert frame["mixed"].tolist() == ["1", "one"]
    assert frame["day"][0] == day
    lines = [json.loads(line) for line in written(tmp_path / "t.jsonl", parts).read_text().splitlines()]
    assert lines[0] == {"many": [1, 2], "object": {"a": True}, "day": "2026-03-01", "mixed": 1, "n": 1}
    first, _ = pd.read_csv(written(tmp_path / "t.csv", parts)).to_dict("records")
    assert (first["many"], first["object"], first["day"]) == ("[1, 2]", '{"a": true}', "2026-03-01")
    written(tmp_path / "nan.jsonl", [{"x": [float("nan"), float("inf"), 1e300]}])
    assert (tmp_path / "nan.jsonl").read_text().split() == ['{"x":', "null}", '{"x":', "null}", '{"x":', "1e+300}"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_failure_keeps_the_old_file(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"t{suffix}", PARTS)
    before = path.read_bytes()
    broken = [PARTS[0], {"id": ["9"], "text": [KeyError], "label": [object], "p": ["no number", "one too many"]}]
    with pytest.raises(ValueError, match=r"shorter|longer|length"):
        written(path, broken)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
