"""Models and data sets of the hub, fetched from a stand-in on this machine; and what is said when it is away."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Answer, contents
from fork_server import ForkServer
from glue_files import ROWS, hub_splits
from hub_stand_in import HubStandIn

FEATURES = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
}
CARD = b"""---
configs:
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
  - split: validation
    path: sst2/validation-*
- config_name: cola
  data_files:
  - split: train
    path: cola/train-*
---
"""
ONE_FILE = "-00000-of-00001.parquet"
SOON_S = 15  # an unreachable hub is reported within seconds, imports included, not after minutes of retries


def parquet(rows: int, name: str) -> bytes:
    """A split as the hub stores it: Parquet, with the names of the classes in its metadata."""
    columns = {"text": [f"text {i} of {name}" for i in range(rows)], "label": [i % 2 for i in range(rows)]}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def files(tiny: Callable[[str], Path]) -> dict[tuple[str, str], dict[str, bytes]]:
    """Returns the repositories of the stand-in."""
    splits = {f"data/{name}{ONE_FILE}": parquet(rows, name) for name, rows in (("train", 20), ("test", 6))}
    glue = {f"sst2/train{ONE_FILE}": parquet(12, "sst2"), f"sst2/validation{ONE_FILE}": parquet(4, "validation")}
    return {
        ("models", "someone/tiny"): {path.name: path.read_bytes() for path in tiny("bert").iterdir()},
        ("models", "someone/gpt"): {"config.json": b'{"model_type": "gpt2"}'},
        ("models", "someone/images"): {"picture.png": b"PNG", "notes.txt": b"no model here"},
        ("datasets", "someone/reviews"): splits,
        ("datasets", "someone/glue"): {"README.md": CARD, **glue, f"cola/train{ONE_FILE}": parquet(8, "cola")},
    }


@pytest.fixture(scope="module")
def port() -> int:
    """Returns the port of all stand-ins: libraries read the hub's address when they are imported."""
    with HubStandIn() as stand_in:
        return stand_in.port


@pytest.fixture
def hub(files: dict[tuple[str, str], dict[str, bytes]], port: int) -> Iterator[HubStandIn]:
    """Returns a stand-in that is up."""
    with HubStandIn(port) as stand_in:
        stand_in.repositories = dict(files)
        yield stand_in


Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def env(port: int, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Returns the environment in which libraries ask the stand-in."""
    home = tmp_path_factory.mktemp("home")
    found = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    found |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    return found | {name: "" for name in os.environ if name.lower().endswith("_proxy")}


@pytest.fixture(scope="module")
def server(env: dict[str, str]) -> Iterator[ForkServer]:
    with ForkServer(["bertlora.data.hub", "datasets"], env) as forks:
        yield forks


@pytest.fixture
def home(env: dict[str, str]) -> Path:
    """Returns the folder of the caches, empty."""
    home = Path(env["HF_HOME"])
    shutil.rmtree(home)
    home.mkdir()
    return home


@pytest.fixture
def ask(hub: HubStandIn, server: ForkServer, env: dict[str, str], home: Path, tmp_path: Path) -> Ask:
    """Returns a function that runs a verb, in a process of its own, with the stand-in as its hub."""

    def asked(*argv: object) -> Answer:
        words = tuple(map(str, argv))
        with server.start(words, env=env, cwd=tmp_path) as process:
            out, err = process.communicate(timeout=120)
        return Answer(process.wait(), out.decode(), err.decode(), words)

    return asked


def refused(found: Answer, expected: str) -> bool:
    """Returns whether a command printed one clear line and exited with status 2."""
    assert expected in found.err
    return (found.status, found.out, found.err.count("\n")) == (2, "", 1) and found.err.startswith("bertlora: ")


def test_a_model_is_fetched_once_and_then_found_offline(hub: HubStandIn, ask: Ask, env: dict[str, str]) -> None:
    fetched = ask("cache", "someone/tiny", "--json")
    assert fetched.status == 0, fetched.err
    facts = fetched.json
    assert facts["model"] == "someone/tiny"
    assert Path(facts["folder"]).name == facts["revision"]
    assert (Path(facts["folder"]) / "model.safetensors").is_file()
    assert any("GET /someone/tiny/resolve/" in line for line in hub.requests)

    hub.stop()
    assert ask("cache", "someone/tiny", "--json").json == facts
    plan = [sys.executable, "-m", "bertlora", "plan", "--model", "someone/tiny", "--max-length", "64", "--json"]
    offline = os.environ | env | {"HF_HUB_OFFLINE": "1"}  # read when libraries are imported
    assert json.loads(subprocess.run(plan, env=offline, capture_output=True, check=True).stdout)["total"] > 0


def test_a_model_is_copied_to_a_folder(ask: Ask, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    assert ask("cache", "someone/tiny", "--to", "model").status == 0
    copied = contents(tmp_path / "model")
    # A file in the folder says where it came from, so that an adapter can name a base that others find.
    assert json.loads(copied.pop("origin.json") or b"")["id"] == "someone/tiny"
    assert copied == contents(tiny("bert"))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("someone/nothing", "model someone/nothing: the hub has no such model, or it is private; check the id"),
        ("someone/gpt", "a gpt2 model is not an encoder that classifies"),
        ("someone/images", "the hub's files have no config.json; name a transformers model"),
    ],
)
def test_models_that_cannot_serve(model: str, expected: str, ask: Ask, tmp_path: Path) -> None:
    assert refused(ask("cache", model, "--to", "model"), expected)
    assert not (tmp_path / "model").exists()


def test_a_half_cached_model_is_fetched_whole(ask: Ask, home: Path) -> None:
    facts = ask("cache", "someone/tiny", "--json").json
    # This is left if another program has asked only for the config: no list of files, no weights.
    (Path(facts["folder"]) / "model.safetensors").unlink()
    for listing in home.glob("hub/models--*/trees/*"):
        listing.unlink()
    assert ask("cache", "someone/tiny", "--json").json == facts


def test_a_data_set_with_the_names_of_its_classes(ask: Ask, tmp_path: Path) -> None:
    found = ask("prepare", "hub:someone/reviews", "--out", "data", "--json")
    assert found.status == 0, found.err
    assert found.json["rows"] == {"train": 16, "validation": 4, "test": 6}
    assert found.json["labels"] == ["neg", "pos"]
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["sources"] == {
        "train": "hub:someone/reviews train",
        "test": "hub:someone/reviews test",
    }


@pytest.mark.slow
def test_a_configuration_and_then_only_the_cache(hub: HubStandIn, ask: Ask, tmp_path: Path) -> None:
    found = ask("prepare", "hub:someone/glue/sst2", "--out", "data", "--json")
    assert found.status == 0, found.err
    assert found.json["rows"] == {"train": 12, "validation": 4}
    assert refused(ask("prepare", "hub:someone/glue", "--out", "none"), "['sst2', 'cola']"), (
        "a configuration must be named"
    )
    hub.stop()
    began = time.monotonic()
    again = ask("prepare", "hub:someone/glue/sst2", "--out", "again", "--json")
    assert time.monotonic() - began < SOON_S
    assert again.json["fingerprint"] == found.json["fingerprint"]
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_glue_from_the_hub_to_a_submission(
    hub: HubStandIn, ask: Ask, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    files = {}
    for split, part in hub_splits("mrpc").items():
        file = io.BytesIO()
        part.to_parquet(file)
        files[f"mrpc/{split}{ONE_FILE}"] = file.getvalue()
    listed = "".join(f"  - split: {split}\n    path: mrpc/{split}-*\n" for split in ("train", "validation", "test"))
    card = f"---\nconfigs:\n- config_name: mrpc\n  data_files:\n{listed}---\n"
    hub.add("datasets", "nyu-mll/glue", {"README.md": card.encode(), **files})

    flags = ("--model", tiny("roberta"), "--max-length", 32, "--epochs", 1, "--precision", "fp32")
    trained = ask("train", "--recipe", "glue-mrpc", "--out", "run", *flags, "--json")
    assert trained.status == 0, trained.err
    assert trained.json["rows"] == {"train": ROWS, "validation": ROWS}
    assert 0 <= trained.json["epochs"][0]["f1"] <= 1
    test = ("--file", "hub:nyu-mll/glue/mrpc", "--format", "glue", "--out", "MRPC.tsv")
    found = ask("predict", "run", *test)
    assert (found.status, found.out) == (0, f"MRPC.tsv: {ROWS} texts\n"), found.err
    lines = [line.split("\t") for line in (tmp_path / "MRPC.tsv").read_text().splitlines()]
    assert [line[0] for line in lines] == ["index", *map(str, range(ROWS))]
    assert {line[1] for line in lines[1:]} <= {"0", "1"}


def test_data_sets_that_are_not_there(ask: Ask, tmp_path: Path) -> None:
    found = ask("prepare", "hub:someone/nothing", "--out", "data")
    assert refused(found, "hub:someone/nothing: the hub has no such data set")
    found = ask("prepare", "hub:someone/glue/mnli", "--out", "data")
    assert refused(found, "name a configuration as hub:NAME/CONFIG")
    assert not (tmp_path / "data").exists()


def test_a_hub_that_is_away(hub: HubStandIn, ask: Ask, tmp_path: Path) -> None:
    hub.stop()
    for argv, expected in (
        (("cache", "someone/tiny", "--to", "out"), "run 'bertlora cache someone/tiny --to DIR', then give --model DIR"),
        (
            ("prepare", "hub:someone/reviews", "--out", "out"),
            "download its files elsewhere and give them as train=FILE",
        ),
    ):
        began = time.monotonic()
        assert refused(ask(*argv), expected)
        assert time.monotonic() - began < SOON_S
    assert not (tmp_path / "out").exists()
