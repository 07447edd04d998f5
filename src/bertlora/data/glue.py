"""GLUE as gluebenchmark.com publishes it: the columns of its TSV files, and the answers that a submission holds.

Wang et al. 2019, "GLUE: A multi-task benchmark and analysis platform for natural language understanding".
"""

from collections.abc import Sequence

COLA_COLUMNS = ["source", "label", "mark", "sentence"]  # the files have no header
QQP_COLUMNS = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
_MNLI = ["index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse"]
_MNLI += ["sentence1_parse", "sentence2_parse", "sentence1", "sentence2"]
_MRPC = ["#1 ID", "#2 ID", "#1 String", "#2 String"]
_STSB = ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"]
# The headers that only GLUE has, so that quotes below them are plain text. SST-2's `sentence label` is not one of them.
_HEADERS = [
    ["index", "sentence"],
    ["index", "sentence1", "sentence2"],
    ["index", "sentence1", "sentence2", "label"],
    ["index", "question", "sentence"],
    ["index", "question", "sentence", "label"],
    ["id", "question1", "question2"],
    QQP_COLUMNS,
    ["index", *_MRPC],
    ["Quality", *_MRPC],
    _STSB,
    [*_STSB, "score"],
    _MNLI,
    [*_MNLI, "label1", "gold_label"],
    [*_MNLI, "label1", "label2", "label3", "label4", "label5", "gold_label"],
]


def _numbered(*labels: str) -> dict[str, str]:
    """Returns the answers of a task whose labels are 0 and 1 in GLUE's own files, and have names on the hub."""
    return {"0": "0", "1": "1"} | {label: str(i) for i, label in enumerate(labels)}


_THREE = {label: label for label in ("entailment", "neutral", "contradiction")}
_TWO = {label: label for label in ("entailment", "not_entailment")}
# File of a submission → label of the data → the answer that GLUE takes. STS-B has numbers and no labels.
SUBMISSIONS: dict[str, dict[str, str]] = {
    "AX.tsv": _THREE,
    "CoLA.tsv": _numbered("unacceptable", "acceptable"),
    "MNLI-m.tsv": _THREE,
    "MNLI-mm.tsv": _THREE,
    "MRPC.tsv": _numbered("not_equivalent", "equivalent"),
    "QNLI.tsv": _TWO,
    "QQP.tsv": _numbered("not_duplicate", "duplicate"),
    "RTE.tsv": _TWO,
    "SST-2.tsv": _numbered("negative", "positive"),
    "STS-B.tsv": {},
    "WNLI.tsv": _numbered("not_entailment", "entailment"),
}
# The column of a test file, or of the hub's test split, that numbers its rows.
INDEX_NAMES = ("index", "idx", "id")


def is_glue_header(columns: Sequence[str]) -> bool:
    """Returns whether a file with these columns is one of GLUE's, whose quotes are plain text."""
    return list(columns) in _HEADERS


def is_headless_cola(fields: Sequence[str]) -> bool:
    """Returns whether the first line of a file with these fields is a row of CoLA, whose files have no header."""
    return len(fields) == len(COLA_COLUMNS) and fields[1] in ("0", "1") and fields[2] in ("", "*")


def score_answer(value: float) -> str:
    """Returns a predicted similarity as STS-B's submission has it: in 0..5, with three digits."""
    return f"{min(max(value, 0.0), 5.0):.3f}"
