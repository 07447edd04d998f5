"""What the user does with labels: give them other names, merge those that differ in case, leave out their rows.

rules = LabelRules.of({"rename": ["spm=spam"], "merge_label_case": True, "drop_label": ["N/A"]})
rules.mapping({"spam": 9, "spm": 1, "Spam": 3, "N/A": 2})
# {"spam": "spam", "spm": "spam", "Spam": "spam", "N/A": DROPPED}
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bertlora.data.labels import quoted
from bertlora.data.named_columns import SourceColumns
from bertlora.errors import DataError, InputError, suggestion

DROPPED = ""


@dataclass(frozen=True)
class LabelRules:
    """Rules for labels, applied in this order.

    Attributes:
        rename: old name → new name.
        merge_case: whether labels that differ only in case or white space are one.
        drop: labels, by their old or new name, whose rows are left out. Of a set of labels, only the label is.
        delimiter: what separates the labels of a row in one cell; empty if nothing does, or if it is not known yet.
    """

    rename: dict[str, str] = field(default_factory=dict)
    merge_case: bool = False
    drop: tuple[str, ...] = ()
    delimiter: str = ""

    @classmethod
    def of(cls, options: SourceColumns) -> "LabelRules":
        """Returns the rules that options name.

        Raises:
            InputError: a renaming is not `old=new`.
        """
        rename: dict[str, str] = {}
        for pair in _listed(options.get("rename")):
            old, sign, new = pair.partition("=")
            if not sign or not old.strip() or not new.strip():
                raise InputError(f"--rename: got '{pair}', expected OLD=NEW, such as spm=spam")
            rename[old.strip()] = new.strip()
        drop = tuple(label.strip() for label in _listed(options.get("drop_label")))
        return cls(rename, bool(options.get("merge_label_case")), drop, options.get("label_delimiter") or "")

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "LabelRules":
        """Returns the rules that `to_json` described."""
        return cls(**(dict(table) | {"drop": tuple(table.get("drop", ()))}))

    def to_json(self) -> dict[str, Any]:
        """Returns the rules as an object; empty if there are none."""
        if self == LabelRules():
            return {}
        found = asdict(self) | {"drop": list(self.drop)}
        return found if self.delimiter else {key: value for key, value in found.items() if key != "delimiter"}

    def mapping(self, counts: Mapping[str, int]) -> dict[str, str]:
        """Returns the new name of each label; DROPPED for one whose rows are left out.

        Of labels that are merged, the most frequent gives the name.

        Args:
            counts: the labels of the source, with their rows.

        Raises:
            DataError: a label that a rule names is not one of them.
        """
        for flag, names in (("--rename", self.rename), ("--drop-label", self.drop)):
            known = {*counts, *self.rename.values()}
            for name in names:
                if name not in known:
                    listed = quoted(list(counts))
                    raise DataError(f"{flag}: '{name}' is not one of the labels {listed}{suggestion(name, counts)}")
        renamed = {label: self.rename.get(label, label) for label in counts}
        totals: dict[str, int] = {}
        for label, count in counts.items():
            totals[renamed[label]] = totals.get(renamed[label], 0) + count
        names = merged_names(totals) if self.merge_case else {label: label for label in totals}
        return {label: DROPPED if self.drops(label, new) else names[new] for label, new in renamed.items()}

    def drops(self, old: str, new: str) -> bool:
        """Returns whether the rows of a label are left out, given its old and its new name."""
        if old in self.drop or new in self.drop:
            return True
        return self.merge_case and label_key(new) in {label_key(label) for label in self.drop}


class KnownLabels:
    """Rules for the rows of a raw source, given the labels that a run knows.

    Args:
        rules: the rules with which its training data were prepared.
        labels: its labels.
    """

    def __init__(self, rules: LabelRules, labels: Sequence[str]) -> None:
        self._rules = rules
        self._labels = set(labels)
        self._by_key = {label_key(label): label for label in labels} if rules.merge_case else {}

    def name(self, label: str) -> str:
        """Returns the name of a row's label; DROPPED if the row is left out. An unknown label stays as it is."""
        new = self._rules.rename.get(label, label)
        if self._rules.drops(label, new):
            return DROPPED
        return new if new in self._labels else self._by_key.get(label_key(new), new)


def label_key(label: str) -> str:
    """Returns what is equal for labels that differ only in case or white space."""
    return " ".join(label.casefold().split())


def merged_names(counts: Mapping[str, int]) -> dict[str, str]:
    """Returns for each label the most frequent one with the same key; of equally frequent ones the first."""
    best: dict[str, str] = {}
    for label, count in counts.items():
        key = label_key(label)
        if key not in best or count > counts[best[key]]:
            best[key] = label
    return {label: best[label_key(label)] for label in counts}


def _listed(value: Iterable[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
