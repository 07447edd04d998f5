"""Reading: every kind of source, the columns found in it, and the one-line errors for what is broken."""

import gzip
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sheets import write_xlsx

from bertlora.data.columns import Columns, find_columns
from bertlora.data.rows import iter_texts, read_rows
from bertlora.data.source import Source
from bertlora.data.sources import open_sources
from bertlora.errors import DataError, HubError


def write(path: Path, text: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def rows_of(source: Source, *columns: str) -> list[tuple[object, ...]]:
    """All rows of a source; each with its place as the last item."""
    names = list(columns or source.columns)
    return [
        (*values, source.place(position))
        for batch in source.batches(names)
        for *values, position in zip(*(batch.columns[name] for name in names), batch.positions, strict=True)
    ]


def table(spec: str) -> Source:
    return open_sources([spec])[""]


def read_all(specs: tuple[str, ...]) -> None:
    for source in open_sources(specs).values():
        rows_of(source)


def error_of(*specs: str) -> str:
    with pytest.raises(DataError) as caught:
        read_all(specs)
    return str(caught.value)


def test_csv_keeps_quoted_newlines_and_exact_line_numbers(tmp_path: Path) -> None:
    spec = write(tmp_path / "r.csv", '\ufeffreview,sentiment\n"Good,\nvery ""good""",positive\n\nBad,negative\r\n')
    source = table(spec)
    assert source.columns == ["review", "sentiment"]
    expected = [('Good,\nvery "good"', "positive", "r.csv line 2"), ("Bad", "negative", "r.csv line 5")]
    assert rows_of(source) == expected
    assert rows_of(source) == expected, "a source can be read again"


def test_csv_with_semicolons(tmp_path: Path) -> None:
    assert rows_of(table(write(tmp_path / "r.csv", "text;label\na, b;1\n"))) == [("a, b", "1", "r.csv line 2")]


def test_csv_fields_longer_than_the_csv_module_allows_by_itself(tmp_path: Path) -> None:
    ((text, _, _),) = rows_of(table(write(tmp_path / "r.csv", f"text,label\n{'x' * 200_000},1\n")))
    assert len(str(text)) == 200_000


def test_large_csv_comes_in_several_batches(tmp_path: Path) -> None:
    spec = write(tmp_path / "r.csv", "text,label\n" + "good film,1\n" * 2500)
    assert [len(batch.positions) for batch in table(spec).batches(["text"])] == [1024, 1024, 452]


def test_tsv_takes_stray_quotes_as_text(tmp_path: Path) -> None:
    spec = write(tmp_path / "r.tsv", 'sentence\tlabel\n"stray quote\t1\nit\'s "fine"\t0\n')
    assert [row[0] for row in rows_of(table(spec))] == ['"stray quote', 'it\'s "fine"']


def test_quotes_of_a_tsv_that_pair_up_over_rows_by_chance_are_text(tmp_path: Path) -> None:
    texts = ['"never', "so dull", 'again"', "the end"] * 3
    spec = write(tmp_path / "r.tsv", "sentence\tlabel\n" + "".join(f"{text}\t1\n" for text in texts))
    assert [row[0] for row in rows_of(table(spec))] == texts


def test_tsv_with_well_formed_quotes(tmp_path: Path) -> None:
    spec = write(tmp_path / "r.tsv", 'sentence\tlabel\n"two\nlines ""here"""\t1\nplain\t0\n')
    assert rows_of(table(spec), "sentence") == [('two\nlines "here"', "r.tsv line 2"), ("plain", "r.tsv line 4")]


GLUE = {
    "sst2": ("sentence\tlabel", "fine film\t1", Columns("sentence", None, "label")),
    "mrpc": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        '1\t7\t8\tHe said "no\tNo',
        Columns("#1 String", "#2 String", "Quality"),
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "0\t1\t2\tWhy?\tHow?\t0",
        Columns("question1", "question2", "is_duplicate"),
    ),
    "mnli": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\t2\tx\ta\tb\tc\td\tA man\tNo man\tneutral\tneutral",
        Columns("sentence1", "sentence2", "gold_label"),
    ),
    "rte": (
        "index\tsentence1\tsentence2\tlabel",
        "0\tA\tB\tentailment",
        Columns("sentence1", "sentence2", "label"),
    ),
    "wnli": ("index\tsentence1\tsentence2\tlabel", "0\tA\tB\t1", Columns("sentence1", "sentence2", "label")),
    "qnli": (
        "index\tquestion\tsentence\tlabel",
        "0\tWho?\tShe.\tentailment",
        Columns("question", "sentence", "label"),
    ),
    "cola": ("gj04\t1\t\tThey left.", "gj04\t0\t*\tThey leaved.", Columns("sentence", None, "label")),
}


@pytest.mark.parametrize("task", GLUE)
def test_columns_of_every_glue_task_are_known(tmp_path: Path, task: str) -> None:
    header, row, columns = GLUE[task]
    source = table(write(tmp_path / f"{task}.tsv", f"{header}\n{row}\n"))
    assert find_columns(source) == columns
    assert len(rows_of(source)) == (2 if task == "cola" else 1), "CoLA's files have no header"


def test_broken_rows_of_qqp_are_left_out_with_a_note(tmp_path: Path) -> None:
    header, row, _ = GLUE["qqp"]
    source = table(write(tmp_path / "train.tsv", f"{header}\n{row}\n5\t6\t7\thalf\nno more\t0\n8\t9\t10\tWhat?\t\t0\n"))
    assert len(rows_of(source)) == len(rows_of(source)) == 1
    assert source.notes == ["train.tsv: 3 broken rows, which are known in GLUE's QQP, were left out"]


def test_json_lines_and_lists(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b"}]
    lines = "\n\n".join(map(json.dumps, rows))
    for name in ("r.jsonl", "r.ndjson", "r.json"):
        read = rows_of(table(write(tmp_path / name, lines)))
        assert read == [("a", 1, f"{name} line 1"), ("b", None, f"{name} line 3")]
    read = rows_of(table(write(tmp_path / "list.json", json.dumps(rows, indent=1))))
    assert read == [("a", 1, "list.json row 0"), ("b", None, "list.json row 1")]


def test_parquet_with_class_names_of_datasets(tmp_path: Path) -> None:
    names = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}
    data = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
    metadata = {"huggingface": json.dumps({"info": {"features": names}})}
    pq.write_table(data.replace_schema_metadata(metadata), tmp_path / "x.parquet")
    source = table(str(tmp_path / "x.parquet"))
    assert source.class_names == {"label": ["neg", "pos"]}
    assert rows_of(source) == [
        ("a", "pos", "x.parquet row 0"),
        ("b", "neg", "x.parquet row 1"),
        ("c", -1, "x.parquet row 2"),
    ]


def make_classes(root: Path, *classes: str) -> None:
    for label in classes:
        for i in range(2):
            write(root / label / f"{i}.txt", f"{label} text {i}")


def test_folder_of_classes(tmp_path: Path) -> None:
    make_classes(tmp_path / "reviews", "pos", "neg", "unsup")
    (tmp_path / "reviews" / "empty").mkdir()
    read = rows_of(table(str(tmp_path / "reviews")))
    assert read[0] == ("neg text 0", "neg", "reviews/neg/0.txt")
    assert [row[1] for row in read] == ["neg", "neg", "pos", "pos"]


def test_root_of_class_folders_is_named_splits(tmp_path: Path) -> None:
    root = tmp_path / "aclImdb"
    make_classes(root / "train", "pos", "neg", "unsup")
    make_classes(root / "test", "pos", "neg")
    sources = open_sources([str(root)])
    assert list(sources) == ["train", "test"]
    assert sources["train"].name == "aclImdb/train"
    assert len(rows_of(sources["train"])) == 4


def test_folder_with_a_single_class(tmp_path: Path) -> None:
    make_classes(tmp_path, "pos")
    assert "only 'pos' of the folders in it holds .txt files, expected a folder for each class" in error_of(
        str(tmp_path)
    )


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
def test_folder_of_split_files(tmp_path: Path, suffix: str) -> None:
    sign = {"tsv": "\t", "csv": ","}.get(suffix)
    text = f"sentence{sign}label\na{sign}1\n" if sign else '{"sentence": "a", "label": "1"}\n'
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}.{suffix}", text)
    sources = open_sources([str(tmp_path)])
    assert {split: source.name for split, source in sources.items()} == {
        "train": f"train.{suffix}",
        "validation": f"dev.{suffix}",
        "test": f"test.{suffix}",
    }


def test_mnli_folder_takes_the_matched_set_and_says_so(tmp_path: Path) -> None:
    for name in ("train", "dev_matched", "dev_mismatched"):
        write(tmp_path / f"{name}.tsv", "sentence1\tsentence2\tgold_label\na\tb\tneutral\n")
    sources = open_sources([str(tmp_path)])
    assert list(sources) == ["train", "validation"]
    assert sources["validation"].notes == ["validation is dev_matched.tsv; the mismatched set was left out"]


def test_named_splits_and_aliases(tmp_path: Path) -> None:
    a = write(tmp_path / "a" / "data.csv", "text,label\na,1\n")
    b = write(tmp_path / "b" / "data.csv", "text,label\nb,1\n")
    sources = open_sources([f"val={b}", f"train={a}"])
    assert {split: source.name for split, source in sources.items()} == {
        "train": "a/data.csv",
        "validation": "b/data.csv",
    }
    assert "the validation split was named before" in error_of(f"train={a}", f"dev={b}", f"valid={b}")
    assert error_of(f"trian={a}").endswith("expected train, validation or test; did you mean 'train'?")
    assert "one of several sources, expected each as train=FILE" in error_of(a, b)


BROKEN = {
    "missing.csv": (None, "there is no such file; check the path"),
    "empty.csv": ("", "the file is empty, expected rows of text"),
    "x.docx": ("a", "the file type '.docx' is unknown, expected .csv, .tsv, .jsonl, .ndjson, .json (also with .gz or"),
    "x.xlsx": ("a", "x.xlsx: is not a sheet that can be read"),
    "cut.csv.gz": (gzip.compress(b"text,label\na,1\n")[:-4], "cut.csv.gz: cannot be decompressed"),
    "cut.jsonl.zst": (b"no zstd", "cut.jsonl.zst: cannot be decompressed"),
    "mixed.csv": (
        "text,label\ncafé,1\nété,1\n".encode() + b"caf\xe9,1\n",
        "mixed.csv line 4: byte 0xe9 at column 4 is not UTF-8; give another encoding",
    ),
    "count.csv": (
        "text,label\na,1\nb, c,1\n",
        "count.csv line 3: 3 fields, expected 2 (text, label); put quotes around a text that holds a comma",
    ),
    "open.csv": ('text,label\na,1\n"b,1\nc,1\n', "open.csv line 3: a quote that opens in this row is never closed"),
    "inner.csv": ('text,label\n"a "b" c",1\n', "inner.csv line 2: a quoted text goes on after its closing quote"),
    "twice.csv": ("text,text\na,b\n", "twice.csv line 1: column 'text' appears twice"),
    "broken.jsonl": ('{"text": "a"}\n{"text": \n', "broken.jsonl line 2: not JSON"),
    "list.jsonl": ("[1, 2]\n", "list.jsonl line 1: got [1, 2], expected a JSON object"),
    "half.jsonl": (r'{"text": "\ud800"}', "half.jsonl line 1: not JSON"),
    "broken.parquet": (b"PAR1 and no more", "broken.parquet: not a complete Parquet file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_get_one_clear_line(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    if content is not None:
        write(tmp_path / name, content)
    found = error_of(str(tmp_path / name))
    assert message in found
    assert "\n" not in found


def test_a_sheet_without_the_extra_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    path = write_xlsx(tmp_path / "r.xlsx", {"Data": [["text", "label"], ["a", "x"]]})
    assert error_of(path) == "r.xlsx: sheets need the extra 'excel'; run pip install 'bertlora[excel]'"


def test_folders_in_place_of_files(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    assert "x.csv: is a folder, expected a file" in error_of(str(tmp_path / "x.csv"))
    (tmp_path / "blank").mkdir()
    assert "a folder with an unknown layout" in error_of(str(tmp_path / "blank"))
    assert "no data source was given" in error_of()


def test_columns_by_preference_and_elimination(tmp_path: Path) -> None:
    def columns(header: str, **flags: object) -> Columns:
        return find_columns(table(write(tmp_path / "c.csv", f"{header}\n")), **flags)  # type: ignore[arg-type]

    assert columns("id,Title,Review,Sentiment") == Columns("Review", None, "Sentiment")
    assert columns("text,label,rating") == Columns("text", None, "label")
    assert columns("words,label") == Columns("words", None, "label")
    assert columns("text,mood") == Columns("text", None, "mood")
    assert columns("premise,hypothesis,label") == Columns("premise", "hypothesis", "label")
    assert columns("a,b,c", text="b", label="c") == Columns("b", None, "c")
    assert columns("a,b,c", text="a", text_pair="b") == Columns("a", "b", "c")
    assert columns("words", need_label=False) == Columns("words")
    with pytest.raises(DataError, match=r"c.csv: the text may be 'text' or 'review'; name one with text_column"):
        columns("text,review,label")
    with pytest.raises(DataError, match=r"the label may be 'label' or 'sentiment'; name one with label_column"):
        columns("text,label,sentiment")
    with pytest.raises(DataError, match=r"text_column 'reveiw' is not one of .*; did you mean 'review'\?"):
        columns("review,label", text="reveiw")
    with pytest.raises(
        DataError, match=r"no column has a known name for the label; name it with label_column, one of 'index'"
    ):
        columns("index,sentence")
    with pytest.raises(DataError, match=r"no column has a known name for the text"):
        columns("a,b,label")
    with pytest.raises(DataError, match=r"column 'a' is named twice"):
        columns("a,b,label", text="a", label="a")


def test_read_rows_in_the_labels_order(tmp_path: Path) -> None:
    spec = write(tmp_path / "r.csv", "text,label\na,pos\nb,neg\n")
    split = read_rows([spec], ["pos", "neg"])
    assert split.texts == ["a", "b"]
    assert split.pairs is None
    assert split.labels.tolist() == [0, 1]
    assert split.rows.tolist() == [0, 1]
    with pytest.raises(DataError) as caught:
        read_rows([spec], ["poss", "neg"])
    assert str(caught.value) == "r.csv line 2: label 'pos' is not one of 'poss', 'neg'; did you mean 'poss'?"


def test_iter_texts_needs_no_labels(tmp_path: Path) -> None:
    assert list(iter_texts(write(tmp_path / "a.txt", "one\r\ntwo"))) == [[("one", None), ("two", None)]]
    assert list(iter_texts(write(tmp_path / "a.csv", "text\none\n"))) == [[("one", None)]]
    assert list(iter_texts(write(tmp_path / "b.csv", "premise,hypothesis\na,b\n"))) == [[("a", "b")]]
    notes: list[str] = []
    blank = list(iter_texts(write(tmp_path / "a.txt", "one\n \ntwo\n"), notes=notes))
    assert blank == [[("one", None), ("", None), ("two", None)]]
    assert notes == ["a.txt: got no label: 1 blank row (a.txt line 2: 'text' is blank)"]
    with pytest.raises(DataError, match=r"a\.csv: has no rows"):
        list(iter_texts(write(tmp_path / "a.csv", "text\n")))


def test_hub_splits_and_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    part = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features)
    asked: list[tuple[str, ...]] = []

    def load(*way: str) -> dict[str, object]:
        asked.append(way)
        if way == ("glue/sst2",):
            raise datasets.exceptions.DatasetNotFoundError("no such data set")
        return {"train": part, "unsupervised": part, "validation_matched": part}

    monkeypatch.setattr(datasets, "load_dataset", load)
    sources = open_sources(["hub:glue/sst2"])
    assert asked == [("glue/sst2",), ("glue", "sst2")]
    assert list(sources) == ["train", "validation"]
    assert sources["train"].class_names == {"label": ["neg", "pos"]}
    assert rows_of(sources["train"])[0] == ("a", "pos", "hub:glue/sst2 train row 0")
    open_sources(["hub:nyu-mll/glue/sst2"])
    assert asked[-1] == ("nyu-mll/glue", "sst2")


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load(*way: str) -> None:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(HubError) as caught:
        open_sources(["hub:stanfordnlp/imdb"])
    assert str(caught.value) == (
        "hub:stanfordnlp/imdb: cannot be fetched (no route to host); check the name and the connection; "
        "offline, download its files elsewhere and give them as train=FILE validation=FILE test=FILE"
    )
