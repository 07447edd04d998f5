"""Predictions as text: JSON lines, CSV, or a small table on a terminal. Each form turns a chunk of lines into text."""

import io
from collections.abc import Callable, Sequence
from typing import Any

from bertlora.cli.console import json_line, shortened, visible
from bertlora.data.label_sets import DELIMITERS
from bertlora.data.table_file import safe_cells, text_rows

# Lines as `Run.predict` returns them → what is printed of them.
Form = Callable[[Sequence[dict[str, Any]]], str]
NO_LABEL = "(no label)"
GAP = 2  # blanks between columns
LABELS_SHARE = 0.4  # of the width of a terminal, for several labels
VALUE_WIDTH, INTERVAL_WIDTH = 10, 22


def json_lines(lines: Sequence[dict[str, Any]]) -> str:
    """Returns one JSON object a line."""
    return "".join(f"{json_line(line)}\n" for line in lines)


class CsvRows:
    """One row for each text, below a header: text, label, confidence, and the probability of each label.

    In a regression: text, value, and the ends of the interval, low and high. Of several labels: text, the labels with
    `|` between them, and the probability of each label.

    Args:
        safe: put `'` before cells that a spreadsheet would take for a formula.
    """

    def __init__(self, safe: bool = False) -> None:
        self._text = io.StringIO()
        self._safe = safe
        self._write = text_rows(self._text, "csv")

    def __call__(self, lines: Sequence[dict[str, Any]]) -> str:
        """Returns rows; the first call also returns the header."""
        self._text.seek(0)
        self._text.truncate()
        rows = [_flat(line) for line in lines]
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
        self._write(safe_cells(columns) if self._safe else columns)
        return self._text.getvalue()


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """Returns a prediction as cells: `probabilities` and `interval` become columns."""
    cells = {key: value for key, value in line.items() if key not in ("probabilities", "interval", "error")}
    if "interval" in line:
        low, high = line["interval"] or ("", "")
        return cells | {"low": low, "high": high}
    if "label" not in line:
        cells["labels"] = DELIMITERS[0].join(line["labels"] or ())
    return cells | {f"probability of {label}": value for label, value in line["probabilities"].items()}


class PredictionTable:
    """A table of label, confidence and text, for a terminal. Chunks share their columns and one header."""

    def __init__(self, labels: Sequence[str], width: int) -> None:
        """Makes a table.

        Args:
            labels: the run's labels.
            width: of the terminal, in characters.
        """
        self._width = width
        self._label_width = min(max(map(len, (*labels, NO_LABEL))), max(width // 3, len(NO_LABEL)))
        self._text_width = max(width - self._label_width - len("confidence") - 2 * GAP, 10)
        self._begun = False

    def __call__(self, lines: Sequence[dict[str, Any]]) -> str:
        """Returns rows; the first call also returns the header."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=not self._begun, pad_edge=False, padding=(0, GAP, 0, 0))
        table.add_column("label", width=self._label_width, no_wrap=True, overflow="ellipsis")
        table.add_column("confidence", width=len("confidence"), justify="right")
        table.add_column("text", max_width=self._text_width, no_wrap=True, overflow="ellipsis")
        self._begun = True
        for line in lines:
            label = line["label"] if line["label"] is not None else NO_LABEL
            confidence = "" if line["confidence"] is None else f"{line['confidence']:.3f}"
            text = _one_text(line)
            if line.get("labels") is not None:
                text = f"[{', '.join(line['labels'])}] {text}"
            # rich measures every character of a text, and of a long one only the start is shown.
            shown = visible(shortened(text, 2 * self._text_width))
            table.add_row(Text(visible(label)), confidence, Text(shown))
        console = Console(file=io.StringIO(), width=self._width, highlight=False)
        with console.capture() as captured:
            console.print(table)
        return captured.get()


class ValueTable:
    """A table of number, interval and text, for a terminal. Chunks share their columns and one header."""

    def __init__(self, width: int) -> None:
        """Makes a table for a terminal of this width, in characters."""
        self._text_width = max(width - VALUE_WIDTH - INTERVAL_WIDTH - 2 * GAP, 10)
        self._begun = False

    def __call__(self, lines: Sequence[dict[str, Any]]) -> str:
        """Returns rows; the first call also returns the header."""
        rows = [[number_text(line), interval_text(line), _one_text(line)] for line in lines]
        header = [] if self._begun else [["value", "interval", "text"]]
        self._begun = True
        return "".join(
            f"{value:>{VALUE_WIDTH}}{'':{GAP}}{ends:<{INTERVAL_WIDTH}}{'':{GAP}}"
            f"{shortened(visible(text), self._text_width)}\n"
            for value, ends, text in [*header, *rows]
        )


class LabelsTable:
    """A table of labels with their probabilities, and text, for a terminal. Chunks share columns and one header."""

    def __init__(self, width: int) -> None:
        """Makes a table for a terminal of this width, in characters."""
        self._labels_width = max(int(LABELS_SHARE * width), len(NO_LABEL))
        self._text_width = max(width - self._labels_width - GAP, 10)
        self._begun = False

    def __call__(self, lines: Sequence[dict[str, Any]]) -> str:
        """Returns rows; the first call also returns the header."""
        rows = [[labels_text(line), _one_text(line)] for line in lines]
        header = [] if self._begun else [["labels", "text"]]
        self._begun = True
        widths = self._labels_width, self._text_width
        cells = [
            [shortened(visible(cell), width) for cell, width in zip(row, widths, strict=True)]
            for row in [*header, *rows]
        ]
        return "".join(f"{labels:<{self._labels_width}}{'':{GAP}}{text}\n" for labels, text in cells)


def labels_text(line: dict[str, Any]) -> str:
    """Returns the labels of a prediction with their probabilities: `food 0.91, price 0.55`."""
    if line["labels"] is None:
        return ""
    return ", ".join(f"{label} {line['probabilities'][label]:.2f}" for label in line["labels"]) or NO_LABEL


def interval_text(line: dict[str, Any]) -> str:
    """Returns the interval of a prediction: `2.9 to 4.1`; empty if there is none."""
    return " to ".join(f"{end:.4g}" for end in line["interval"] or ())


def number_text(line: dict[str, Any]) -> str:
    """Returns the number of a prediction; empty for a blank text."""
    return "" if line["value"] is None else f"{line['value']:.4g}"


def value_text(line: dict[str, Any]) -> str:
    """Returns the number of a prediction and its interval."""
    ends = interval_text(line)
    return number_text(line) + (f"  ({ends})" if ends else "")


def _one_text(line: dict[str, Any]) -> str:
    if "error" in line:
        return f"({line['error']})"
    return " | ".join(line[key] for key in ("text", "text_pair") if key in line)
