"""Bad input gets one clear line on stderr, status 2, no traceback, and leaves every folder as it was."""

import errno
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from command_line import SMALL, Answer, answer, contents, good, start

from bertlora.files import whole_folder
from bertlora.hashes import sealed
from bertlora.run.lock import locked

Capsys = pytest.CaptureFixture[str]
GOOD = "text,label\n" + "".join(f"a film number {i},{'good' if i % 2 else 'bad'}\n" for i in range(20))
SHOWN = 600  # characters: a line that people still read


READY: dict[str, str | bytes | None] = {"r.csv": GOOD}


class Case(NamedTuple):
    """A command, what its one line must hold, and the files it finds.

    In the command, MODEL stands for the flags of a tiny model, and PLACE for the folder of models and runs.
    """

    command: str
    expected: str
    files: dict[str, str | bytes | None] = READY  # None: a folder


def parquet(columns: dict[str, list[Any]], cut: int = 0) -> bytes:
    """A Parquet file, without its last bytes."""
    file = io.BytesIO()
    pd.DataFrame(columns).to_parquet(file)
    return file.getvalue()[: len(file.getvalue()) - cut]


def table(text: str | bytes, name: str = "r.csv") -> dict[str, str | bytes | None]:
    """One file."""
    return {name: text}


SOURCES = {
    "missing file": Case("prepare nope.csv --out o", "nope.csv: there is no such file; check the path"),
    "empty file": Case("prepare r.csv --out o", "r.csv: the file is empty", table("")),
    "header alone": Case("prepare r.csv --out o", "r.csv: has no rows", table("text,label\n")),
    "folder in place of a file": Case("prepare r.csv --out o", "r.csv: is a folder, expected a file", {"r.csv": None}),
    "folder of nothing": Case("prepare d --out o", "d: a folder with an unknown layout", {"d": None}),
    "unknown file type": Case("prepare r.docx --out o", "the file type '.docx' is unknown", table("x", "r.docx")),
    "no sheet": Case("prepare r.xlsx --out o", "r.xlsx: is not a sheet that can be read", table("x", "r.xlsx")),
    "unknown encoding": Case(
        "prepare r.csv --out o --encoding utf-9", "--encoding: 'utf-9' is unknown; expected a name"
    ),
    "delimiter of two characters": Case(
        "prepare r.csv --out o --delimiter ::", "--delimiter: got '::', expected one character, or 'tab'"
    ),
    "delimiter of JSONL": Case(
        "prepare r.jsonl --out o --delimiter ;",
        "--delimiter: r.jsonl is not a CSV or TSV file; leave it out",
        table('{"text": "a", "label": 1}\n', "r.jsonl"),
    ),
    "encoding of Parquet": Case(
        "prepare r.parquet --out o --encoding cp1252",
        "--encoding: r.parquet has its own encoding; leave it out",
        table(parquet({"text": ["a"], "label": ["x"]}), "r.parquet"),
    ),
    "renaming without a name": Case("prepare r.csv --out o --rename good", "--rename: got 'good', expected OLD=NEW"),
    "unknown label to drop": Case(
        "prepare r.csv --out o --drop-label goood",
        "--drop-label: 'goood' is not one of the labels 'bad', 'good'; did you mean 'good'?",
    ),
    "labels all dropped": Case("prepare r.csv --out o --drop-label good", "every label is 'bad'"),
    "an ID as the label": Case(
        "prepare r.csv --out o",
        "the label column may be an ID: name the right one by --label-column",
        table("text,label\n" + "".join(f"film {i},x{i}\n" for i in range(40))),
    ),
    "numbers as labels": Case(
        "prepare r.csv --out o",
        "holds 40 different whole numbers, 0 to 39, which may be classes or amounts; give --task",
        table("text,label\n" + "".join(f"film {i},{i}\n" for i in range(40))),
    ),
    "wrong column": Case("prepare r.csv --out o --text-column txt", "--text-column 'txt' is not one of its columns"),
    "missing label column": Case(
        "prepare r.csv --out o",
        "no column has a known name for the label; name it with --label-column",
        table("text,id\na,1\n"),
    ),
    "missing text column": Case(
        "prepare r.csv --out o",
        "no column has a known name for the text; name it with --text-column",
        table("id,label\n1,a\n"),
    ),
    "ambiguous text": Case(
        "prepare r.csv --out o", "the text may be 'text' or 'review'", table("text,review,label\na,b,c\n")
    ),
    "ambiguous label": Case(
        "prepare r.csv --out o", "the label may be 'label' or 'sentiment'", table("text,label,sentiment\na,b,c\n")
    ),
    "blank text": Case("prepare r.csv --out o", "r.csv line 3: 'text' is blank", table("text,label\na,x\n  ,y\n")),
    "blank text, strictly": Case(
        "prepare r.csv --out o --strict",
        "r.csv: --strict forbids blank (1); run without it",
        table(GOOD + "  ,good\n"),
    ),
    "null text": Case(
        "prepare r.parquet --out o",
        "r.parquet: 1 of 2 rows are blank, more than 10% (r.parquet row 1: 'text' is blank); remove them or fill them",
        table(parquet({"text": ["a", None], "label": ["x", "y"]}), "r.parquet"),
    ),
    "null label": Case(
        "prepare r.jsonl --out o",
        "r.jsonl line 2: 'label' is blank",
        table('{"text": "a", "label": 1}\n{"text": "b", "label": null}\n', "r.jsonl"),
    ),
    "text that is a list": Case(
        "prepare r.jsonl --out o", "r.jsonl line 1: 'text' holds [1]", table('{"text": [1], "label": 1}\n', "r.jsonl")
    ),
    "single class": Case(
        "prepare r.csv --out o", "every label is 'x', expected two classes or more", table("text,label\na,x\nb,x\n")
    ),
    "fewer rows than classes": Case(
        "prepare r.csv --out o", "rows for 3 classes", table("text,label\na,x\nb,y\nc,z\n")
    ),
    "not UTF-8": Case(
        "prepare r.csv --out o --encoding utf-8",
        "r.csv line 2: byte 0xe9 at column 4 is not UTF-8; give another --encoding",
        table(b"text,label\ncaf\xe9,x\nb,y\n"),
    ),
    "not UTF-16": Case(
        "prepare r.jsonl --out o --encoding utf-16",
        "r.jsonl after line 0: the text is not utf-16",
        table("\n", "r.jsonl"),
    ),
    "open quote": Case("prepare r.csv --out o", "r.csv line 2: a quote that opens", table('text,label\n"a,x\nb,y\n')),
    "broken JSONL": Case(
        "prepare r.jsonl --out o", "r.jsonl line 2: not JSON", table('{"text": "a", "label": 1}\n{"text"\n', "r.jsonl")
    ),
    "cut Parquet": Case(
        "prepare r.parquet --out o",
        "r.parquet: not a complete Parquet file",
        table(parquet({"text": ["a", "b"], "label": ["x", "y"]}, cut=20), "r.parquet"),
    ),
    "test labels never seen": Case(
        "prepare train=r.csv test=t.csv --out o",
        "t.csv line 3: label 'goood' is not one of 'bad', 'good', the labels of r.csv; did you mean 'good'?",
        {"r.csv": GOOD, "t.csv": "text,label\na,good\nb,goood\n"},
    ),
    "unknown split": Case("prepare trian=r.csv --out o", "split 'trian' is unknown"),
    "two sources without names": Case("prepare r.csv r.csv --out o", "expected each as train=FILE"),
    "class folder alone": Case(
        "prepare d --out o", "only 'pos' of the folders", {"d": None, "d/pos": None, "d/pos/a.txt": "a"}
    ),
    "hub out of reach": Case("prepare hub:a/b --out o", "hub:a/b: cannot be fetched"),
    "hub without a name": Case("prepare hub: --out o", "expected hub:NAME or hub:NAME/CONFIG"),
    "split": Case("prepare r.csv --out o --split 70/40", "split: got '70/40', expected train/validation/test"),
    "split of no training": Case("prepare r.csv --out o --split 0/50/50", "split: got '0/50/50'"),
    "sample below 0": Case("prepare r.csv --out o --sample -1", "sample: got -1"),
    "sample of no number": Case(
        "prepare r.csv --out o --sample few", "--sample: got 'few', expected a whole number (0 or more)"
    ),
    "seed below 0": Case("prepare r.csv --out o --seed -1", "seed: got -1, expected a whole number"),
    "model to tokenise for": Case("prepare r.csv --out o --model a/b", "run 'bertlora cache a/b --to DIR'"),
}

USAGE = {
    "unknown verb": Case("trian", "verb 'trian' is unknown; expected one of cache, prepare, audit, demo,"),
    "suggested verb": Case("evalute", "did you mean 'evaluate'?"),
    "unknown flag": Case(
        "plan --rnak 4", "argument '--rnak' is unknown; see 'bertlora plan --help'; did you mean '--rank'?"
    ),
    "flag without a verb": Case("--rank 4", "argument '--rank' stands where a verb is expected; see 'bertlora --help'"),
    "flag named as a positional": Case("plan --sources r.csv", "argument '--sources' is unknown; see 'bertlora plan"),
    "label column of no use": Case("predict PLACE/run a --label-column x", "argument '--label-column' is unknown"),
    "flag of another verb": Case("env --rank 4", "argument '--rank' is unknown; see 'bertlora env --help'"),
    "flag without a value": Case("plan --rank", "--rank: expected a value; see 'bertlora plan --help'"),
    "missing argument": Case("prepare r.csv", "required: --out; see 'bertlora prepare --help'"),
    "no DATA": Case("train --out o MODEL", "DATA is missing, and the recipe names none"),
    "unknown recipe": Case("plan --recipe imdb", "recipe 'imdb' is not one of default, audit, glue-cola"),
    "unknown recipe to print": Case("recipes sst2-brt", "did you mean 'sst2-bert'?"),
    "recipe that is no TOML": Case("plan --recipe r.csv", "r.csv: not a TOML file"),
    "recipe that is a folder": Case("plan --recipe d", "recipe 'd' is not one of default", {"d": None}),
    "unknown key": Case(
        "plan --recipe r.toml",
        "r.toml: recipe key 'rnak' is unknown; did you mean 'rank'?",
        table("rnak = 4", "r.toml"),
    ),
    "key of the wrong type": Case(
        "plan --recipe r.toml", "rank: got '4', expected a whole number", table('rank = "4"', "r.toml")
    ),
    "recipe that is not UTF-8": Case("plan --recipe r.toml", "r.toml: not a TOML file", table(b"# \xe9", "r.toml")),
    "unknown format": Case(
        "export PLACE/run --to o --format onix", "--format: got 'onix', expected one of merged, onnx"
    ),
    "unknown precision": Case(
        "predict PLACE/run a --precision fp16", "--precision: got 'fp16', expected one of auto, fp32, bf16"
    ),
    "texts and a file": Case("predict PLACE/run a --file r.csv", "takes texts or --file, not both"),
}

VALUES = {
    f"{verb} {flags}": Case(f"{verb} {'r.csv --out o ' if verb == 'train' else ''}MODEL {flags}", expected)
    for verb in ("plan", "train")
    for flags, expected in {
        "--rank 0": "rank: got 0, expected a whole number (1 or more)",
        "--rank 1.5": "rank: got 1.5, expected a whole number",
        "--rank four": "rank: got 'four', expected a number",
        "--alpha 0": "alpha: got 0, expected a number (above 0)",
        "--lora-dropout 1": "lora_dropout: got 1, expected a number (0 to 0.99)",
        "--learning-rate -1": "learning_rate: got -1",
        "--learning-rate nan": "learning_rate: got nan",
        "--learning-rate inf": "learning_rate: got inf",
        "--batch-size 0": "batch_size: got 0",
        "--epochs 0": "epochs: got 0",
        "--max-length 129": "max_length: got 129, expected at most 128, the positions of",
        "--max-length 2": "max_length: got 2",
        "--truncation middle": "truncation: got 'middle', expected one of right, left, head-tail",
        "--variant dorra": "did you mean 'dora'?",
        "--split 50/50": "split: got '50/50'",
        "--targets qeury": "target 'qeury' matches no linear layer of this bert model; roles: query, key",
        "--targets query,qeury": "did you mean 'query'?",
        "--rank-pattern valeu=4": "'valeu' matches no linear layer",
        "--rank-pattern value=0": "rank_pattern of 'value': got 0",
        "--rank-pattern value": "rank_pattern of 'value': got '', expected a number",
        "--adapt-last-layers 3": "adapt_last_layers: got 3, expected at most 2",
    }.items()
}
VALUES |= {
    "label names": Case(
        "train r.csv --out o MODEL --label-names a,b,c", "label_names: got 3, expected one for each of bad, good"
    ),
    "label names alike": Case(
        "train r.csv --out o MODEL --label-names a,a", "label_names: got a, a, expected names that differ"
    ),
    "tracker": Case("train r.csv --out o MODEL --tracker mlflow", "tracker: mlflow is not installed; run pip install"),
    "sample too small": Case("train r.csv --out o MODEL --sample 1", "1 rows for 2 classes are left to train on"),
    "class of which no row is left to train": Case(
        "train r.csv --out o MODEL --split 4/0/96", "are left to train on, expected at least one for each"
    ),
}

NO_MODEL = {
    "a/b": "run 'bertlora cache a/b --to DIR', then give --model DIR here",
    "./nowhere": "is neither a folder with a config.json, nor a hub id",
    "a--b..c": "neither a folder nor a hub id",
    "r.csv": "is neither a folder with a config.json, nor a hub id",
    "PLACE": "the folder has no config.json",
    "PLACE/no-tokenizer": "no usable tokenizer",
    "PLACE/no-weights": "no model.safetensors; save the model as safetensors",
    "PLACE/cut-weights": "cannot be loaded (Error while deserializing header",
    "PLACE/cut-config": "no usable config.json",
    "PLACE/gpt2": "a gpt2 model is not an encoder that classifies; name a BERT",
    "PLACE/t5": "a t5 model is not an encoder that classifies",
    "PLACE/unheard-of": "no usable config.json",
}
# What a verb has no need of, it does not miss.
NEEDLESS = {
    "cache": {"PLACE/no-tokenizer", "PLACE/cut-weights"},
    "plan": {"PLACE/no-tokenizer", "PLACE/no-weights"},
    "prepare": {"PLACE/no-weights", "PLACE/cut-weights"},
    "train": set(),
}
MODEL_COMMANDS = {
    "cache": "cache NAME --to o",
    "plan": "plan --max-length 32 --model NAME",
    "prepare": "prepare r.csv --out o --model NAME",
    "train": "train r.csv --out o --max-length 32 --model NAME",
}
MODELS = {
    f"{verb} {model}": Case(command.replace("NAME", model), expected)
    for verb, command in MODEL_COMMANDS.items()
    for model, expected in NO_MODEL.items()
    if model not in NEEDLESS[verb]
}

RUNS = {
    f"{verb} {run}": Case(verb.replace("RUN", run), expected)
    for verb in ("predict RUN a", "evaluate RUN", "export RUN --to o --format adapter")
    for run, expected in {
        "nope": "nope: no such run folder",
        "PLACE/gpt2": "is not a run folder (no run.json) and not a PEFT adapter",
        "PLACE/unfinished": "the run did not finish; continue it by 'bertlora train ... --out",
        "PLACE/newer": "format 99 is newer than this bertlora reads (2); upgrade bertlora",
        "PLACE/cut-manifest": "run.json: cannot be read",
        "PLACE/cut-adapter": "adapter_model.safetensors: is damaged",
        "PLACE/no-adapter": "lacks adapter/adapter_model.safetensors",
        "PLACE/moved": "its base is missing",
    }.items()
}
RUNS |= {
    "evaluate PLACE/cut-probe": Case("evaluate PLACE/cut-probe", "probe.safetensors: is damaged"),
    "another base": Case("predict PLACE/run a --model PLACE/other", "was trained on"),
    "blank text": Case("predict PLACE/run a ''", "text 2 is blank"),
    "no file to predict": Case("predict PLACE/run --file nope.txt", "nope.txt: there is no such file"),
    "empty file to predict": Case("predict PLACE/run --file r.txt", "r.txt: the file is empty", table("", "r.txt")),
    "more blank rows than 10 %": Case(
        "evaluate PLACE/run --data r.csv",
        "r.csv: 1 of 3 rows are blank, more than 10% (r.csv line 4: 'label' is blank)",
        table("text,label\na,bad\nb,good\nc,\n"),
    ),
    "no such split": Case("evaluate PLACE/run --split dev", "has no dev split, only train, validation, test"),
    "no data to evaluate": Case("evaluate PLACE/run --data nope.csv", "nope.csv: there is no such file"),
    "labels the run never saw": Case(
        "evaluate PLACE/run --data r.csv",
        "r.csv line 2: label 'fair' is not one of 'bad', 'good'",
        table("text,label\na,fair\n"),
    ),
    "an adapter without its data": Case(
        "evaluate PLACE/run/adapter --model PLACE/tiny",
        "the data it was trained on is missing; name labelled rows by --data",
    ),
    "finished run to resume": Case("train r.csv --out PLACE/run MODEL --resume", "there is nothing to resume"),
    "nothing to resume": Case("train r.csv --out o MODEL --resume", "o: holds no run to resume; leave out --resume"),
    "unfinished run in the way": Case(
        "train r.csv --out PLACE/unfinished MODEL", "give --resume to continue it, or --overwrite"
    ),
    "resumed with another recipe": Case("train --out PLACE/unfinished --resume --rank 9", "was begun with 2"),
    "resumed with other data": Case(
        "train r.csv --out PLACE/unfinished --resume", "r.csv; leave DATA out when resuming"
    ),
    "resumed with the data of another recipe": Case(
        "train --out PLACE/unfinished --resume --data hub:a/b", "data: got hub:a/b, but"
    ),
    "a text for a run on pairs": Case(
        "predict PLACE/pairs a", "trained on pairs of texts; give --pair A B, or --file with both columns"
    ),
    "no such split to predict": Case(
        "predict PLACE/run --file d --split validation",
        "no validation split, only train, test",
        {"d": None, "d/train.csv": GOOD, "d/test.csv": GOOD},
    ),
    "a folder of broken splits": Case(
        "train d --out o MODEL", "train.parquet: not a complete Parquet file", {"d": None, "d/train.parquet": b"PAR1"}
    ),
    "data of a newer format": Case(
        "train d --out o MODEL",
        "format version 99, expected 1",
        {"d": None, "d/dataset.json": '{"format_version": 99}'},
    ),
}

WRITERS = {
    "prepare": "prepare r.csv --out OUT",
    "train": "train r.csv --out OUT MODEL",
    "demo": "demo --out OUT",
    "export": "export PLACE/run --to OUT",
    "cache": "cache PLACE/tiny --to OUT",
}
PREPARED = {
    command: Case(command, f"{flag}: DATA is prepared already; give this to prepare")
    for command, flag in {
        "train PLACE/run/data --out o MODEL --sample 9": "--sample",
        "train PLACE/run/data --out o MODEL --split 80/10/10": "--split",
        "plan PLACE/run/data MODEL --text-column text": "--text-column",
        "evaluate PLACE/run --data PLACE/run/data --label-column label": "--label-column",
    }.items()
}

OUTPUTS = {
    f"{verb} to {out}": Case(
        command.replace("OUT", out), expected, {"r.csv": GOOD, "full": None, "full/mine": "kept", "file": "kept"}
    )
    for verb, command in WRITERS.items()
    for out, expected in {
        "full": "full: holds something already; name another folder, or give --overwrite",
        "file": "file: is a file, expected a folder to write to",
        "file/below": "is not a folder that may be written to",
        "/proc/nowhere": "cannot be written (No such file or directory)",
        "/sys/nowhere": "/sys/nowhere: cannot be written (",
    }.items()
}

OVERWRITTEN = {
    f"{verb} {fault}": Case(
        command, expected, {"r.csv": GOOD, "full": None, "full/mine": "kept", "one.csv": "text,label\na,x\nb,x\n"}
    )
    for verb, fault, command, expected in (
        ("prepare", "missing file", "prepare nope.csv --out full --overwrite", "no such file"),
        ("prepare", "single class", "prepare one.csv --out full --overwrite", "every label is 'x'"),
        ("train", "missing file", "train nope.csv --out full MODEL --overwrite", "no such file"),
        ("train", "single class", "train one.csv --out full MODEL --overwrite", "every label is 'x'"),
        ("train", "label names", "train r.csv --out full MODEL --overwrite --label-names a", "label_names: got 1"),
        (
            "export",
            "unknown format",
            "export PLACE/run --to full --overwrite --format x",
            "--format: got 'x', expected one of merged, onnx",
        ),
        ("cache", "missing model", "cache a/b --to full --overwrite", "run 'bertlora cache a/b"),
    )
}

OWN = {"d": None, "d/r.csv": GOOD}

INPUTS = {
    "prepare": Case(
        "prepare d/r.csv --out d --overwrite", "d: holds the input d/r.csv; name another output folder", OWN
    ),
    "prepare, without --overwrite": Case("prepare d/r.csv --out d", "d: holds the input d/r.csv", OWN),
    "prepare, named splits": Case("prepare train=d/r.csv --out d --overwrite", "d: holds the input d/r.csv", OWN),
    "prepare, a folder above": Case("prepare d/r.csv --out . --overwrite", ".: holds the input d/r.csv", OWN),
    "prepare, the folder itself": Case("prepare d --out d/ --overwrite", "d: holds the input d;", OWN),
    "train": Case("train d/r.csv --out d MODEL --overwrite", "d: holds the input d/r.csv", OWN),
    "train, its own data": Case("train PLACE/run/data --out PLACE/run MODEL --overwrite", "run: holds the input "),
    "export": Case("export PLACE/run --to PLACE --overwrite", ": holds the input "),
    "export, the run itself": Case("export PLACE/run --to PLACE/run --overwrite", "run: holds the input "),
    "export, its adapter": Case("export PLACE/run --to PLACE/run/adapter --overwrite", "adapter: holds the input "),
    "export, its base": Case("export PLACE/run --to PLACE/tiny --overwrite", "tiny: holds the input "),
    "cache": Case("cache PLACE/tiny --to PLACE --overwrite", ": holds the input "),
}

CASES = {
    f"{group}: {name}": case
    for group, cases in {
        "sources": SOURCES,
        "usage": USAGE,
        "values": VALUES,
        "models": MODELS,
        "runs": RUNS,
        "outputs": OUTPUTS,
        "inputs": INPUTS,
        "overwrite": OVERWRITTEN,
        "prepared": PREPARED,
    }.items()
    for name, case in cases.items()
}


@pytest.fixture(scope="module")
def place(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of models and runs: good ones, and each kind of bad one."""
    from bertlora.cli import main

    place = tmp_path_factory.mktemp("place")
    (place / "r.csv").write_text(GOOD)
    for name in ("tiny", "other", "no-tokenizer", "no-weights", "cut-weights", "cut-config", "gone"):
        shutil.copytree(tiny("electra" if name == "other" else "bert"), place / name)
    for path in place.glob("no-tokenizer/tokenizer*"):
        path.unlink()
    (place / "no-weights" / "model.safetensors").unlink()
    halve(place / "cut-weights" / "model.safetensors")
    halve(place / "cut-config" / "config.json")
    for kind in ("gpt2", "t5", "unheard-of"):
        (place / kind).mkdir()
        (place / kind / "config.json").write_text(json.dumps({"model_type": kind}))

    for run, model in (("run", "tiny"), ("moved", "gone")):
        words = ("train", place / "r.csv", "--out", place / run, "--model", place / model, *SMALL, "--epochs", "1")
        assert main([str(word) for word in words]) == 0
    shutil.rmtree(place / "gone")
    pairs = json.loads((place / "run" / "run.json").read_text()) | {"pairs": True}
    shutil.copytree(place / "run", place / "pairs")
    (place / "pairs" / "run.json").write_text(sealed(pairs))
    for name in ("unfinished", "newer", "cut-manifest", "cut-adapter", "no-adapter", "cut-probe"):
        shutil.copytree(place / "run", place / name)
    (place / "unfinished" / "run.json").unlink()
    manifest = json.loads((place / "run" / "run.json").read_text())
    (place / "newer" / "run.json").write_text(sealed(manifest | {"format_version": 99}))
    halve(place / "cut-manifest" / "run.json")
    halve(place / "cut-adapter" / "adapter" / "adapter_model.safetensors")
    halve(place / "cut-probe" / "probe.safetensors")
    (place / "no-adapter" / "adapter" / "adapter_model.safetensors").unlink()
    return place


def halve(path: Path) -> None:
    """Cuts off the second half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns an empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(command: str, place: Path) -> list[str]:
    """The words of a case's command."""
    small = " ".join(("--model", str(place / "tiny"), *SMALL))
    return [word.strip("'") for word in command.replace("MODEL", small).replace("PLACE", str(place)).split()]


def check(found: Answer, expected: str, status: int = 2) -> None:
    """Checks that a command said one clear line, and nothing else."""
    assert found.status == status, found.err
    assert found.out == ""
    assert found.err.startswith("bertlora: ")
    assert found.err.count("\n") == 1
    assert found.err.endswith("\n")
    assert "Traceback" not in found.err
    assert len(found.err) < SHOWN
    assert expected in found.err


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, place: Path, here: Path, capsys: Capsys) -> None:
    case = CASES[name]
    for path, content in case.files.items():
        if content is None:
            (here / path).mkdir()
        else:
            (here / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = contents(here), contents(place)
    check(answer(capsys, *words(case.command, place)), case.expected)
    assert (contents(here), contents(place)) == before


def test_bad_bytes_on_stdin_after_a_good_line(place: Path) -> None:
    with start("predict", place / "run") as process:
        out, err = process.communicate(b"a good film\n\xe9\n", timeout=60)
    assert process.returncode == 2
    assert json.loads(out)["text"] == "a good film"
    check(Answer(2, "", err.decode()), "is not UTF-8")


def test_bad_bytes_in_an_argument(place: Path) -> None:
    with start("predict", place / "run", "a good film", b"\xe9") as process:
        out, err = process.communicate(timeout=60)
    check(Answer(process.returncode, out.decode(), err.decode()), "text 2 is not UTF-8")


def test_blank_line_on_stdin(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a good film\n\nanother\n"))
    found = answer(capsys, "predict", place / "run")
    assert [line["text"] for line in found.lines] == ["a good film"]
    check(Answer(found.status, "", found.err), "stdin line 2: is blank, expected a text")


def test_an_interruption_is_one_line(place: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (here / "r.csv").write_text(GOOD)
    before = contents(here)
    monkeypatch.setattr("bertlora.data.prepared.open_sources", interrupted)
    for command, advice in {
        "prepare r.csv --out o": "interrupted; nothing was half-written\n",
        "train r.csv --out o MODEL": "interrupted; 'bertlora train ... --resume' continues the run\n",
    }.items():
        check(answer(capsys, *words(command, place)), advice, status=130)
        assert contents(here) == before


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionError("the hub hung up"), "bertlora: ConnectionError: the hub hung up; --debug shows where\n"),
        (OSError(errno.ECONNRESET, "reset by peer"), "reset by peer; --debug shows where\n"),
        (OSError(errno.ENOSPC, "No space left"), "bertlora: No space left; check the path"),
        (OSError(errno.EACCES, "denied", "a.csv"), "bertlora: a.csv: denied; check the path"),
    ],
)
def test_faults_of_the_network_are_not_blamed_on_a_path(
    error: OSError, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("bertlora.recipe.Recipe.named", failing)
    check(answer(capsys, "recipes", "default"), expected)


@pytest.mark.parametrize("word", ["--sources", "--verb", "--page"])
def test_only_real_flags_are_suggested(word: str, capsys: Capsys) -> None:
    found = answer(capsys, "plan", word)
    assert f"did you mean '{word}'" not in found.err


@pytest.mark.parametrize("command", ["train r.csv --out o MODEL", "train --out o --resume", "audit r.csv --out o"])
def test_a_second_process_is_refused(command: str, place: Path, here: Path, capsys: Capsys) -> None:
    """Whatever it was to do; and it changes nothing of what the first one writes."""
    (here / "r.csv").write_text(GOOD)
    (here / ".o.partial-1").write_text("of the first one")
    with locked(here / "o"):
        before = contents(here)
        check(answer(capsys, *words(command, place)), "o: process ")
        assert contents(here) == before


def test_demo_does_not_offer_to_resume(place: Path, capsys: Capsys) -> None:
    found = answer(capsys, "demo", "--out", place / "unfinished")
    check(found, "give --overwrite")
    assert "--resume" not in found.err


def no_space(*_: object, **__: object) -> None:
    """What the system says on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")


FULL = {
    "prepare": ("prepare r.csv --out o", "bertlora.data.split_file.SplitWriter.add"),
    "prepare, at its end": ("prepare r.csv --out o", "bertlora.data.folder.Prepared.write_manifest"),
    "train, at its data": ("train r.csv --out o MODEL", "bertlora.data.split_file.SplitWriter.add"),
    "train, at its recipe": ("train r.csv --out o MODEL", "bertlora.pipeline.training_run.write_whole"),
    "export, merged": ("export PLACE/run --to o", "transformers.PreTrainedModel.save_pretrained"),
    "export, adapter": ("export PLACE/run --to o --format adapter", "shutil.copytree"),
    "export, onnx": ("export PLACE/run --to o --format onnx", "onnx.save"),
    "cache": ("cache PLACE/tiny --to o", "shutil.copytree"),
}


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_leaves_nothing(
    name: str, place: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    command, writer = FULL[name]
    (here / "r.csv").write_text(GOOD)
    before = contents(here), contents(place)
    monkeypatch.setattr(writer, no_space)
    check(answer(capsys, *words(command, place)), "No space left on device")
    assert (contents(here), contents(place)) == before


@pytest.mark.parametrize("writer", ["bertlora.training.saving.save_checkpoint", "bertlora.model.adapted.Adapted.save"])
def test_training_goes_on_after_a_full_disk(
    writer: str, place: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    (here / "r.csv").write_text(GOOD)
    train = words("train r.csv --out o MODEL --epochs 2 --json", place)
    with monkeypatch.context() as patched:
        patched.setattr(writer, no_space)
        found = answer(capsys, *train)
    check(Answer(found.status, found.out, found.err.splitlines(keepends=True)[-1]), "No space left on device")
    assert not (here / "o" / "run.json").exists()
    check(answer(capsys, "predict", "o", "a film"), "the run did not finish")
    after = good(capsys, *train, "--resume").json
    whole = good(capsys, *(word if word != "o" else "whole" for word in train)).json
    assert after["validation"] == whole["validation"]
    assert not [path for path in (here / "o").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Exception("No space left on device (os error 28)"), "No space left on device"),  # as tokenizers says it
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'")]), "No space left on device"),
        (RuntimeError("basic_ios::clear: iostream error"), "the disk is full or broken"),  # as OpenVINO says it
    ],
)
def test_a_full_disk_in_the_words_of_libraries(error: Exception, reason: str, here: Path) -> None:
    with pytest.raises(OSError, match=rf"^o: cannot be written \({reason}\); nothing was kept$"):
        fill(here, error)
    assert contents(here) == {}


def fill(folder: Path, error: Exception) -> None:
    """Fails while it writes a folder."""
    with whole_folder(Path("o")) as partial:
        (partial / "file").write_text("half")
        raise error


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Returns a function: size in KiB → an empty disk of that size; the test is skipped if none can be mounted."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        path = tmp_path / f"disk-{size}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(path)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small disk can be mounted by root alone")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)  # a file of it may be mapped into memory


REAL = {
    "prepare": ("prepare r.csv --out OUT", 8),
    "train, at its data": ("train r.csv --out OUT MODEL", 8),
    "train, at its recipe": ("train r.csv --out OUT MODEL", 24),
    "export, merged": ("export PLACE/run --to OUT", 100),
    "export, merged, at its tokenizer": ("export PLACE/run --to OUT", 4096),
    "export, adapter": ("export PLACE/run --to OUT --format adapter", 100),
    "export, onnx": ("export PLACE/run --to OUT --format onnx", 3000),
    # There is room for the graph in fp32 and the tokenizer, but not for a second graph.
    "export, onnx-int8": ("export PLACE/run --to OUT --format onnx-int8", 5200),
    "export, openvino": ("export PLACE/run --to OUT --format openvino", 5200),
    "cache": ("cache PLACE/tiny --to OUT", 100),
}


@pytest.mark.parametrize("name", REAL)
def test_a_disk_that_is_really_full(
    name: str, place: Path, here: Path, disk: Callable[[int], Path], capsys: Capsys
) -> None:
    command, size = REAL[name]
    (here / "r.csv").write_text(GOOD)
    small = disk(size)
    reason = "the disk is full or broken" if name == "export, openvino" else "No space left on device"
    check(answer(capsys, *words(command.replace("OUT", str(small / "o")), place)), f"cannot be written ({reason})")
    assert contents(small) == {}


@pytest.mark.parametrize("size", [64, 400])
def test_training_on_a_disk_that_fills_up(
    size: int, place: Path, here: Path, disk: Callable[[int], Path], capsys: Capsys
) -> None:
    (here / "r.csv").write_text(GOOD)
    out = disk(size) / "o"
    command = words(f"train r.csv --out {out} MODEL --epochs 2", place)
    found = answer(capsys, *command, "--batch-size", "2", "--rank", "16")
    check(Answer(found.status, found.out, found.err.splitlines(keepends=True)[-1]), "No space left on device")
    assert (out / "recipe.toml").is_file()
    assert not (out / "run.json").exists()
    assert not list(out.rglob(".*"))
