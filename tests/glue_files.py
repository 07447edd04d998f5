"""Stand-ins of GLUE's data sets: the TSV files of gluebenchmark.com, and the splits of the hub's nyu-mll/glue.

The texts have quotes that are plain text: some open in one row and close in a later one, as in the published files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROWS = 40
PARSES = "promptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
MNLI = f"index\t{PARSES}\tsentence1\tsentence2"
MNLI_ROW = "{i}\t31193\t31193n\ttravel\t( a )\t( b )\t(ROOT a)\t(ROOT b)\t{a}\t{b}"
STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
STSB_ROW = "{i}\tmain-captions\tMSRvid\t2012test\t{i}\tnone\tnone\t{a}\t{b}"
MRPC = "#1 ID\t#2 ID\t#1 String\t#2 String"


class Task(NamedTuple):
    """A task of GLUE: its folder's name, the header and the rows of its files, its labels, and those of the hub."""

    folder: str
    header: str
    row: str
    test_header: str
    test_row: str
    labels: tuple[str, ...]
    hub_columns: tuple[str, ...]
    hub_labels: tuple[str, ...]


def pairs(header: str, row: str, label: str) -> tuple[str, str, str, str]:
    """Returns the headers and rows of a task whose test files have the same columns but the label."""
    return f"{header}\t{label}", f"{row}\t{{label}}", header, row


SENTENCES = pairs("index\tsentence1\tsentence2", "{i}\t{a}\t{b}", "label")
TWO = ("entailment", "not_entailment")
THREE = ("entailment", "neutral", "contradiction")
TASKS = {
    "cola": Task(
        *("CoLA", "", "gj04\t{label}\t\t{a}", "index\tsentence", "{i}\t{a}", ("0", "1")),
        *(("sentence",), ("unacceptable", "acceptable")),
    ),
    "mnli": Task(
        *("MNLI", f"{MNLI}\tlabel1\tgold_label", f"{MNLI_ROW}\t{{label}}\t{{label}}", MNLI, MNLI_ROW, THREE),
        *(("premise", "hypothesis"), THREE),
    ),
    "mrpc": Task(
        *("MRPC", f"Quality\t{MRPC}", "{label}\t7\t8\t{a}\t{b}", f"index\t{MRPC}", "{i}\t7\t8\t{a}\t{b}", ("0", "1")),
        *(("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    ),
    "qnli": Task(
        *("QNLI", *pairs("index\tquestion\tsentence", "{i}\t{a}\t{b}", "label"), TWO),
        *(("question", "sentence"), TWO),
    ),
    "qqp": Task(
        *("QQP", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "{i}\t1\t2\t{a}\t{b}\t{label}"),
        *("id\tquestion1\tquestion2", "{i}\t{a}\t{b}", ("0", "1")),
        *(("question1", "question2"), ("not_duplicate", "duplicate")),
    ),
    "rte": Task("RTE", *SENTENCES, TWO, ("sentence1", "sentence2"), TWO),
    "stsb": Task("STS-B", *pairs(STSB, STSB_ROW, "score"), (), ("sentence1", "sentence2"), ()),
    "wnli": Task("WNLI", *SENTENCES, ("0", "1"), ("sentence1", "sentence2"), ("not_entailment", "entailment")),
}


def texts(split: str, i: int) -> tuple[str, str]:
    """Returns the texts of a row. In every fourth row the first one opens a quote; two rows later it closes."""
    first = [f'"Wait for {split} {i}', f"they left {i} of {split}", f'said {split} {i}"', f'never "mind" {split} {i}']
    return first[i % 4], f"{split} {i} it's another one"


def label_of(labels: tuple[str, ...], i: int) -> str:
    """Returns the label of a row: each in turn, or a number from 0 to 5."""
    return labels[i % len(labels)] if labels else f"{i % 6 - i % 5 * 0.1:.3f}".replace("-", "")


def write_published(root: Path, name: str) -> Path:
    """Writes a task's folder as gluebenchmark.com has it. MNLI and QQP have their known oddities, 2 rows each."""
    task = TASKS[name]
    folder = root / task.folder
    folder.mkdir(parents=True)
    kinds = ("_matched", "_mismatched") if name == "mnli" else ("",)

    def lines(split: str, header: str, row: str) -> list[str]:
        made = []
        for i in range(ROWS):
            a, b = texts(split, i)
            made.append(row.format(i=i, a=a, b=b, label=label_of(task.labels, i)))
        return ([header] if header else []) + made

    # MNLI has the labels of one annotator in train, of five in dev, and then the one that most of them gave.
    dev_header, dev_row = task.header, task.row
    if name == "mnli":
        dev_header = task.header.replace("label1", "\t".join(f"label{k}" for k in range(1, 6)))
        dev_row = task.row.replace("{label}", "\t".join(["{label}"] * 5), 1)
    odd = {"qqp": ["5\t6\t7\tcut", "in two\t0"]}
    odd["mnli"] = [MNLI_ROW.format(i=i, a="a", b="b") + "\tneutral\t-" for i in (97, 98)]
    write(folder / "train.tsv", [*lines("train", task.header, task.row), *odd.get(name, [])])
    for kind in kinds:
        write(folder / f"dev{kind}.tsv", lines(f"dev{kind}", dev_header, dev_row))
        write(folder / f"test{kind}.tsv", lines(f"test{kind}", task.test_header, task.test_row))
    return folder


def write(path: Path, lines: list[str]) -> None:
    """Writes lines."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def hub_splits(name: str, rows: int = ROWS) -> dict[str, Any]:
    """Returns a task's splits as `load_dataset("nyu-mll/glue", name)` does; the test rows have the label -1."""
    from datasets import ClassLabel, Dataset, Features, Value

    task = TASKS[name]
    label = ClassLabel(names=list(task.hub_labels)) if task.hub_labels else Value("float32")
    columns: dict[str, Any] = {column: Value("string") for column in task.hub_columns}
    features = Features(columns | {"label": label, "idx": Value("int32")})

    def split(split: str, target: Callable[[int], float]) -> Any:
        values: dict[str, list[Any]] = {
            column: [texts(split, i)[part] for i in range(rows)] for part, column in enumerate(task.hub_columns)
        }
        return Dataset.from_dict(
            values | {"label": [target(i) for i in range(rows)], "idx": list(range(rows))}, features=features
        )

    def target(i: int) -> float:
        return i % len(task.hub_labels) if task.hub_labels else float(label_of((), i))

    kinds = ("_matched", "_mismatched") if name == "mnli" else ("",)
    splits = {f"validation{kind}": split(f"validation{kind}", target) for kind in kinds}
    tests = {f"test{kind}": split(f"test{kind}", lambda _: -1) for kind in kinds}
    return {"train": split("train", target)} | splits | tests
