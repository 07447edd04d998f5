"""Types of options, and the options that several verbs take."""

import math
from typing import Any

import click

from bertlora.cli.verb import Argument, Several
from bertlora.errors import suggestion
from bertlora.options import range_text

SOURCES = (
    "a CSV, TSV, JSONL, Parquet, XLSX or ODS file, a folder pos/ neg/, hub:NAME[/CONFIG], or train=FILE "
    "validation=FILE test=FILE"
)
# A word that shells complete as a path. Whether it can be read is for the verb to say.
PATH = click.Path(readable=False)


class OneOf(click.Choice[str]):
    """A choice whose error reads like the error of a recipe key."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Returns what came and what was expected."""
        return f"got '{value}', expected one of {', '.join(self.choices)}{suggestion(str(value), self.choices)}"


class Whole(click.ParamType):  # type: ignore[type-arg]  # no type argument in click 8.2
    """A whole number, `low` or more; without `low` the verb checks the range."""

    name = "whole number"

    def __init__(self, low: int | None = None) -> None:
        self.low = low
        self.range = range_text({"low": low, "high": math.inf, "above": False, "choices": ()})

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Returns what stands for the value in the help."""
        return "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the number; anything else is a usage error."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"got '{value}', expected a whole number{self.range}", param, ctx)
        if self.low is not None and number < self.low:
            self.fail(f"got {number}, expected a whole number{self.range}", param, ctx)
        return number


class Option(click.Option):
    """An option that takes a value; the help shows its range and default."""

    def __init__(self, flag: str, text: str, *, type: Any = str, metavar: str = "", default: Any = None) -> None:
        shown = [type.range.strip(" ()")] if isinstance(type, Whole) else []
        shown += [f"default: {default}"] if default not in (None, "") else []
        text += f"  [{'; '.join(shown)}]" if shown else ""
        super().__init__([flag], type=type, help=text, metavar=metavar or None, default=default)


class Repeated(click.Option):
    """An option that may be given several times, with one value each. Its value is a tuple."""

    def __init__(self, flag: str, text: str, metavar: str) -> None:
        super().__init__([flag], multiple=True, help=f"{text}; may be given several times", metavar=metavar)


def flag(name: str, text: str) -> click.Option:
    """Returns an option without a value."""
    return click.Option([name], is_flag=True, help=text)


def required(name: str, text: str, metavar: str) -> click.Option:
    """Returns an option that must be given: a path."""
    return click.Option([name], type=PATH, required=True, help=text, metavar=metavar)


RUN = Argument("run", text="a run folder, or an adapter that PEFT saved", type=PATH, metavar="RUN")
DATA = Argument(
    "sources",
    text=f"a prepared folder, or {SOURCES}; default: the recipe's own data",
    nargs=-1,
    type=PATH,
    metavar="[DATA]...",
)
OVERWRITE = flag("--overwrite", "replace what the output folder holds")
OVERWRITE_FILE = flag("--overwrite", "replace the file that --out names")
SAFE_CSV = flag("--safe-csv", "in CSV and TSV: put ' before cells that a spreadsheet would take for a formula")
TEXT_COLUMNS = (
    Option("--text-column", "the column of the text; default: found by its name", metavar="NAME"),
    Option("--text-pair-column", "the column of the second text of a pair; default: found by its name", metavar="NAME"),
    Option("--encoding", "the encoding of text files, such as cp1252; default: UTF-8, or detected", metavar="NAME"),
    Option("--delimiter", "what separates the fields of a CSV or TSV file; default: detected", metavar="X"),
)
COLUMNS = (
    *TEXT_COLUMNS,
    Option(
        "--label-column",
        "the column of the label, or A,B,C: columns of 0 and 1, one for each label; default: found by its name",
        metavar="NAME",
    ),
)
GROUP_COLUMN = Option(
    "--group-column",
    "rows with the same value, such as an author or thread, stay in one split and one fold; a blank is its own group",
    metavar="NAME",
)
SPLIT_COLUMNS = (
    GROUP_COLUMN,
    Option(
        "--time-column",
        "the oldest rows go to train, later ones to validation, the latest to test; ISO dates or numbers",
        metavar="NAME",
    ),
    Option("--split-column", "the split of each row: train, validation (valid, val, dev) or test", metavar="NAME"),
)
LABEL_RULES = (
    Repeated("--rename", "give a label another name, which may be another label's", metavar="OLD=NEW"),
    flag("--merge-label-case", "make labels one that differ only in case or spaces"),
    Repeated("--drop-label", "leave out the rows of a label, such as N/A", metavar="NAME"),
    Option("--label-delimiter", "what separates several labels in a cell; default: detected", metavar="X"),
)
MODEL = Option("--model", "where the base model is, if it has moved", type=PATH, metavar="MODEL", default="")
PRECISION = Option(
    "--precision",
    "arithmetic; auto: bf16 if this machine is at least 1.5 times as fast with it, and the run's certificate holds in "
    "it; otherwise fp32; int8: 8 bits, faster on CPUs with AVX512-VNNI, a little less exact",
    type=OneOf(("auto", "fp32", "bf16", "int8")),
    default="auto",
)
SPLIT = Option("--split", "the split on which to evaluate", default="test", metavar="SPLIT")


def rows_options(whose: str, split: click.Option) -> tuple[click.Parameter, ...]:
    """Returns the options of a verb that evaluates: which rows, columns, base model and precision."""
    text = f"a prepared folder, or {SOURCES}; default: the data of {whose}"
    return Several("--data", type=PATH, metavar="DATA...", help=text), split, *COLUMNS, MODEL, PRECISION
