"""What is done with labels, and the checks that name those which are doubtful."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlora.data.label_rules import DROPPED, KnownLabels, LabelRules, label_key
from bertlora.data.prepared import Prepared, prepare
from bertlora.data.rows import read_rows
from bertlora.errors import DataError

LABELS = ["Yes", "yes", "YES ", "no", "No", "n/a", "N/A", "maybe", "sci fi", "Sci  Fi"]
COUNTS = st.dictionaries(st.sampled_from(LABELS), st.integers(1, 9), min_size=2)


@given(COUNTS, st.dictionaries(st.sampled_from(LABELS), st.sampled_from([*LABELS, "other"]), max_size=3), st.data())
def test_a_raw_file_gets_the_labels_that_training_had(
    counts: dict[str, int], rename: dict[str, str], data: Any
) -> None:
    rename = {old: new for old, new in rename.items() if old in counts}
    drop = data.draw(st.lists(st.sampled_from([*counts, *rename.values()]), max_size=2))
    rules = LabelRules(rename, data.draw(st.booleans()), tuple(drop))
    names = rules.mapping(counts)
    labels = sorted(set(names.values()) - {DROPPED})
    known = KnownLabels(LabelRules.from_json(rules.to_json()), labels)
    assert {label: known.name(label) for label in counts} == names
    if rules.merge_case:
        assert len({label_key(label) for label in labels}) == len(labels)
    if rules == LabelRules():
        assert names == {label: label for label in counts}


def prepared(tmp_path: Path, labels: list[str], **options: Any) -> Prepared:
    """A file of rows with these labels, prepared."""
    rows = [f"text number {i} of many,{label}" for i, label in enumerate(labels)]
    (tmp_path / "r.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return prepare([str(tmp_path / "r.csv")], tmp_path / "data", overwrite=True, **options)


def test_the_most_frequent_name_wins_and_is_remembered(tmp_path: Path) -> None:
    labels = ["Billing"] * 12 + ["billing"] * 7 + ["refund"] * 20 + ["rfund"] * 2 + ["N/A"] * 3
    rules: dict[str, Any] = {"merge_label_case": True, "rename": ["rfund=refund"], "drop_label": ["N/A"]}
    data = prepared(tmp_path, labels, **rules)
    assert data.labels == ["Billing", "refund"]
    assert sum(data.rows.values()) == 41
    assert data.label_rules == {"rename": {"rfund": "refund"}, "merge_case": True, "drop": ["N/A"]}
    assert Prepared.load(tmp_path / "data").label_rules == data.label_rules
    read = read_rows([str(tmp_path / "r.csv")], data.labels, rules=LabelRules.from_json(data.label_rules))
    assert read.labels.tolist() == [0] * 19 + [1] * 22
    assert read.rows.tolist() == list(range(41))
    with pytest.raises(DataError, match="label 'billing' is not one of 'Billing', 'refund'"):
        read_rows([str(tmp_path / "r.csv")], data.labels)


def test_doubtful_labels_are_named(tmp_path: Path) -> None:
    def checks(labels: list[str]) -> dict[str, tuple[int, list[int], str]]:
        names = ("label_variants", "missing_labels", "small_classes", "numeric_labels", "id_labels")
        made = prepared(tmp_path, labels, task="classification")
        found = [check for check in made.checks if check["name"] in names]
        assert {check["severity"] for check in found} <= {"warning"}
        return {check["name"]: (check["count"], check["rows"], check["advice"]) for check in found}

    assert checks(["yes", "no"] * 20) == {}
    found = checks(["Yes"] * 20 + ["yes "] * 3 + ["NULL"] * 6 + ["no"] * 20 + ["odd"])
    assert found["label_variants"][1:] == (
        [20, 21, 22],
        "labels that differ only in case or spaces, 'Yes' (20) and 'yes' (3); --merge-label-case makes them one",
    )
    assert found["missing_labels"][:2] == (6, list(range(23, 29)))
    assert found["missing_labels"][2].endswith("leave it out by --drop-label NULL")
    assert found["small_classes"][:2] == (2, [20, 21, 22, 49])
    (name, (count, _, advice)), *others = checks([str(i % 25) for i in range(100)]).items()
    assert (name, count, others) == ("numeric_labels", 25, [])
    assert "put them into a few ranges first" in advice
    assert list(checks([f"{i % 8}.5" for i in range(100)])) == ["numeric_labels"]
    assert list(checks([str(i % 8) for i in range(100)])) == [], "eight ratings are classes"
    assert checks([f"u{i % 35}" for i in range(60)])["id_labels"] == (
        35,
        [],
        "35 different labels in 60 rows: the column may be an ID; name the right one by --label-column",
    )
