"""Predictions of several labels per text as people and programs read them."""

import csv
import io
from typing import Any

from bertlora.cli.answers import CsvRows, LabelsTable

FOUND = {"text": "soup, and a bill", "labels": ["price", "food"], "probabilities": {"food": 0.5, "price": 0.75}}
NONE = {"text": "no\nlabel", "labels": [], "probabilities": {"food": 0.1, "price": 0.2}}
BLANK = {"text": "", "labels": None, "probabilities": {"food": None, "price": None}, "error": "the text is blank"}
LINES: list[dict[str, Any]] = [FOUND, NONE, BLANK]


def test_csv_has_the_labels_in_one_cell() -> None:
    rows = list(csv.reader(io.StringIO(CsvRows()(LINES))))
    assert rows[0] == ["text", "labels", "probability of food", "probability of price"]
    assert [row[1] for row in rows[1:]] == ["price|food", "", ""]
    assert rows[3][2:] == ["", ""]


def test_a_table_has_labels_with_probabilities_and_fits_the_terminal() -> None:
    form = LabelsTable(60)
    lines = (form(LINES[:1]) + form(LINES[1:])).splitlines()
    assert lines[0].split() == ["labels", "text"]
    assert lines[1].startswith("price 0.75, food 0.50 ")
    assert lines[2].startswith("(no label) ")
    assert lines[3].endswith("(the text is blank)")
    many = {
        "text": "x" * 90,
        "labels": [f"label {i}" for i in range(30)],
        "probabilities": dict.fromkeys((f"label {i}" for i in range(30)), 0.9),
    }
    assert all(len(line) <= 60 for line in LabelsTable(60)([many]).splitlines())
