"""Tables in memory: a pandas DataFrame, a pyarrow Table, a datasets Dataset, and a table for each split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from command_line import SMALL

import bertlora
from bertlora.data.prepared import Prepared
from bertlora.errors import InputError

TEXTS: list[Any] = [f"a {'fine' if i % 2 else 'dull'} film, seen {i} times" for i in range(40)]
LABELS: list[Any] = [("bad", "good")[i % 2] for i in range(40)]
TEXTS[6], LABELS[9] = None, None


def tables() -> dict[str, Any]:
    """The same table of every kind, with a blank text and a blank label."""
    from datasets import Dataset

    columns = {"text": TEXTS, "label": LABELS}
    frame = pd.DataFrame(columns, index=range(100, 140))
    odd = frame.astype(object)
    odd.loc[106, "text"], odd.loc[109, "label"] = pd.NA, np.nan
    return {"frame": frame, "odd": odd, "arrow": pa.table(columns), "dataset": Dataset.from_dict(columns)}


def test_all_kinds_of_tables_give_the_same_data(tmp_path: Path) -> None:
    found = {name: bertlora.prepare(table, tmp_path / name) for name, table in tables().items()}
    assert len({each["fingerprint"] for each in found.values()}) == 1
    for name, each in found.items():
        (blank,) = (check for check in each["checks"] if check["name"] == "blank")
        kind = {"frame": "DataFrame", "odd": "DataFrame", "arrow": "Table", "dataset": "Dataset"}[name]
        assert blank["places"] == [f"{kind} row 6", f"{kind} row 9"]
        assert sum(each["rows"].values()) == 38


def test_tables_by_split(tmp_path: Path) -> None:
    frame = tables()["frame"]
    splits = {"train": frame.iloc[:30], "test": frame.iloc[30:], "unsupervised": frame.iloc[:2]}
    found = bertlora.prepare(splits, tmp_path / "data", split="80/20/0")
    assert found["rows"] == {"train": 22, "validation": 6, "test": 10}
    assert found["notes"] == ["left out: the splits unsupervised"]
    assert Prepared.load(tmp_path / "data").sources == {"train": "train DataFrame", "test": "test DataFrame"}
    with pytest.raises(InputError, match="the test split is of type list, expected a path"):
        bertlora.prepare({"train": frame, "test": ["a"]}, tmp_path / "other")
    with pytest.raises(InputError, match="the source is of type int, expected a path"):
        bertlora.prepare(3, tmp_path / "other")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="encoding: a table in memory has its own encoding; leave it out"):
        bertlora.prepare(frame, tmp_path / "other", encoding="utf-8")


def test_numbers_of_numpy_and_labels_of_pandas(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": [np.int64(i % 2) for i in range(40)]}, dtype=object).drop(index=6)
    frame["label"] = pd.Categorical(frame["label"])
    assert bertlora.prepare(frame, tmp_path / "data")["labels"] == ["0", "1"]


def test_a_run_is_trained_evaluated_and_resumed_from_a_table(tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    frame = tables()["frame"]
    keys = dict(zip((key.strip("-").replace("-", "_") for key in SMALL[::2]), SMALL[1::2], strict=True))
    settings: dict[str, Any] = {key: value if key == "precision" else int(value) for key, value in keys.items()}
    plan = bertlora.plan(frame, model=str(tiny("bert")), **settings)
    assert plan["steps"] > 0
    bertlora.train(frame, tmp_path / "run", model=str(tiny("bert")), epochs=1, **settings)
    assert "data" not in (tmp_path / "run" / "recipe.toml").read_text().split("\ndata = ")[0].splitlines()
    evaluated = bertlora.evaluate(tmp_path / "run", frame)
    assert evaluated["n"] == 38
    assert evaluated["where"] == "DataFrame"
    assert len(evaluated["notes"]) == 1
