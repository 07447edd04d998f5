"""Files from strangers: nothing is unpickled wherever they are read, and absurd sizes take no memory."""

import ast
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import adapted_of, little_memory, save_tiny_run
from sheets import write_xlsx

import bertlora
from bertlora.data.folder import Prepared
from bertlora.data.sources import open_sources
from bertlora.data.tokens import TokenTable, kept_tokens
from bertlora.errors import BertloraError, RunError
from bertlora.hashes import check_files, sealed
from bertlora.model.adapter_files import is_quick
from bertlora.run.loaded import Run

Tiny = Callable[[str], Path]


class Evil:
    """What runs code when it is unpickled: it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Path:
    """A run on a base of its own, which a test may damage."""
    shutil.copytree(tiny("bert"), tmp_path / "base")
    save_tiny_run(tmp_path / "run", adapted_of(tmp_path / "base", ["bad", "good"]))
    return tmp_path / "run"


def changed(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(BertloraError) as found:
        act()
    assert "\n" not in str(found.value)
    return str(found.value)


def test_no_reader_unpickles(run: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    bomb = pickle.dumps(Evil(marker))
    pickle.loads(bomb)
    assert marker.exists()  # it works
    marker.unlink()
    Run.load(run).export(tmp_path / "export", "merged")
    for file in sorted([*run.rglob("*"), *(tmp_path / "base").rglob("*"), *(tmp_path / "export").rglob("*")]):
        if not file.is_file():
            continue
        loaded = tmp_path / "export" if file.is_relative_to(tmp_path / "export") else run
        kept = file.read_bytes()
        file.write_bytes(bomb)
        with suppress(BertloraError):  # a file may be one that is not needed
            Run.load(loaded).predict(["a joy"])
        file.write_bytes(kept)
        assert not marker.exists(), file
    for folder, name in ((tmp_path / "base", "pytorch_model"), (run / "adapter", "adapter_model")):
        (weights,) = folder.glob("*model.safetensors")
        weights.rename(tmp_path / "kept")
        (folder / f"{name}.bin").write_bytes(bomb)
        refused(lambda: Run.load(run).predict(["a joy"]))
        (tmp_path / "kept").rename(weights)
    for name in ("a.parquet", "a.csv", "a.jsonl", "a.xlsx", "a.csv.gz", "a.pkl", "a.arrow", "a.npy"):
        (tmp_path / name).write_bytes(bomb)
        refused(lambda name=name: open_sources([str(tmp_path / name)]))
    assert not marker.exists()


def test_parquet_with_pickled_types_and_arrays_of_objects(tmp_path: Path) -> None:
    bomb = pickle.dumps(Evil(tmp_path / "marker"))
    named = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": bomb}
    schema = pa.schema([pa.field("text", pa.string(), metadata=named), pa.field("label", pa.string())])
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"]}, schema=schema), tmp_path / "a.parquet")
    open_sources([str(tmp_path / "a.parquet")])
    kept_tokens(tmp_path, "t", lambda: [TokenTable.of([[1, 2]])])
    np.save(tmp_path / "t.offsets.npy", np.array([Evil(tmp_path / "marker")], dtype=object), allow_pickle=True)
    rebuilt = kept_tokens(tmp_path, "t", lambda: [TokenTable.of([[1, 2]])])
    assert rebuilt.ids.tolist() == [1, 2]
    assert not (tmp_path / "marker").exists()


def test_remote_code_does_not_run(run: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\nclass Evil: pass\n")
    for file, keys in (
        ("config.json", ("AutoConfig", "AutoModelForSequenceClassification")),
        ("tokenizer_config.json", ("AutoTokenizer",)),
    ):
        changed(base / file, auto_map=dict.fromkeys(keys, "evil.Evil"))
    changed(base / "config.json", model_type="evil")
    refused(lambda: Run.load(run).predict(["a joy"]))
    assert not (tmp_path / "marker").exists()


# What reads code or objects; and `eval` and `exec`, but not the method of models.
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}


def test_no_source_calls_what_runs_code() -> None:
    for path in Path(bertlora.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.partition(".")[0] for alias in node.names} | {str(getattr(node, "module", ""))}
                assert not names & FORBIDDEN, path
            if not isinstance(node, ast.Call):
                continue
            called, keys = ast.unparse(node.func), {key.arg: ast.unparse(key.value) for key in node.keywords}
            assert called not in ("eval", "exec", "compile", "torch.load", "torch.jit.load", "__import__"), path
            assert {keys.get("allow_pickle", "False"), keys.get("trust_remote_code", "False")} == {"False"}, path
            assert called != "np.load" or "allow_pickle" in keys, path
            assert (
                called not in ("AutoConfig.from_pretrained", "AutoTokenizer.from_pretrained")
                or "trust_remote_code" in keys
                or "export" in str(path)
            ), path


def header(tensors: dict[str, Any], length: int | None = None, data: bytes = b"") -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


SAFETENSORS = {
    "a header of exabytes": header({}, 1 << 60),
    "a header of gigabytes": header({}, 1 << 32),
    "a header beyond the file": header({}, 1000),
    "a tensor beyond the file": header(one([1 << 40], [0, 1 << 42])),
    "a shape that overflows": header(one([1 << 33, 1 << 33], [0, 8]), data=b"x" * 8),
    "tensors that overlap": header(one([2], [0, 8]) | {"b": one([2], [4, 12])["a"]}, data=b"x" * 12),
    "negative offsets": header(one([2], [-8, 0]), data=b"x" * 8),
    "no such type": header(one([2], [0, 8], "OBJECT"), data=b"x" * 8),
    "deep nesting": struct.pack("<Q", 200_000) + b'{"a":' * 40_000,
    "more bytes than tensors": header(one([2], [0, 8]), data=b"x" * 99),
}  # fmt: skip


def test_headers_of_absurd_sizes_are_refused(run: Path, tmp_path: Path) -> None:
    for file in (tmp_path / "base" / "model.safetensors", run / "adapter" / "adapter_model.safetensors"):
        kept = file.read_bytes()
        for content in SAFETENSORS.values():
            file.write_bytes(content)
            refused(lambda: Run.load(run).predict(["a joy"]))
        file.write_bytes(kept)
    for file in run.rglob("*.safetensors"):
        kept = file.read_bytes()
        for content in SAFETENSORS.values():
            file.write_bytes(content)
            refused(lambda: Run.load(run).predict(["a joy"]))
        file.write_bytes(kept)


# Key and value of a config.
ADAPTERS: list[tuple[str, Any]] = [
    ("r", 1_000_000), ("r", 0), ("r", "x"), ("r", 1e300),
    ("rank_pattern", {"query": 1_000_000}), ("rank_pattern", {"(a*)*b": 4}),
    ("target_modules", r"(.*.*)*x"), ("target_modules", r"(a|a)(a|a)(a|a)(a|a)(a|a)x"), ("target_modules", 5),
    ("exclude_modules", r"(\w+)+$"), ("layers_pattern", [r"(.+)+"]),
    ("megatron_config", {"a": 1}), ("layer_replication", [[0, 2]] * 1000), ("target_parameters", ["a"]),
    ("arrow_config", {}), ("peft_type", "PROMPT_TUNING"),
]  # fmt: skip
BASES: list[tuple[str, Any]] = [
    ("hidden_size", 10**9), ("num_hidden_layers", 10**6), ("intermediate_size", 10**9), ("vocab_size", 10**10),
    ("max_position_embeddings", 10**10), ("num_attention_heads", 0), ("hidden_size", -1), ("num_hidden_layers", -1),
    ("hidden_size", "x"),
]  # fmt: skip


def test_configs_of_absurd_sizes_are_refused_in_little_memory(run: Path, tmp_path: Path) -> None:
    with little_memory():
        for file, cases in ((run / "adapter/adapter_config.json", ADAPTERS), (tmp_path / "base/config.json", BASES)):
            kept = file.read_text()
            for key, value in cases:
                changed(file, **{key: value})
                refused(lambda: Run.load(run).predict(["a joy"]))
            file.write_text(kept)


OUTSIDE = ["../secret", "adapter/../../secret", "\0"]


def test_no_name_in_a_manifest_leads_out_of_its_folder(
    run: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("x")
    Run.load(run).export(tmp_path / "export", "merged")
    bertlora.prepare(reviews, tmp_path / "data", model=str(tmp_path / "base"))
    hashed: list[Path] = []
    monkeypatch.setattr("bertlora.hashes.sha256", lambda path: hashed.append(path) or "0")
    acts: dict[str, Callable[[], Any]] = {
        "run/run.json": lambda: Run.load(run),
        "export/run.json": lambda: Run.load(tmp_path / "export"),
        "export/certificate.json": lambda: Run.load(tmp_path / "export"),
        "data/dataset.json": lambda: Prepared.load(tmp_path / "data").split("train"),
    }
    for name, act in acts.items():
        file = tmp_path / name
        kept = file.read_text()
        for outside in OUTSIDE:
            file.write_text(sealed(json.loads(kept) | {"files": {outside: "0"}}))
            with suppress(BertloraError):  # a name may be one that this reader does not ask for
                act()
        if name == "data/dataset.json":
            file.write_text(sealed(json.loads(kept) | {"rows": {"../secret": 1}}))
            refused(act)
        file.write_text(kept)
    folders = [tmp_path / name for name in ("run", "export", "data")]
    assert [path for path in hashed if not any(path.resolve().is_relative_to(folder) for folder in folders)] == []
    for outside in (*OUTSIDE, "a/../../secret", "/etc/hostname", "..\\secret", "C:\\x"):
        with pytest.raises(RunError, match="outside the folder"):
            check_files(run, {outside: "0"})


def test_names_of_labels_and_members_are_no_paths(tmp_path: Path, tiny: Tiny) -> None:
    labels = ["../up", "/tmp/bertlora-label", "a/b", "new\nline", "nul\0", "..", "C:\\x"]
    save_tiny_run(tmp_path / "in/run", adapted_of(tiny("bert"), labels))
    loaded = Run.load(tmp_path / "in/run")
    assert loaded.predict(["a joy"])[0]["label"] in labels
    loaded.export(tmp_path / "in/export", "merged")
    write_xlsx(tmp_path / "in/a.xlsx", {"../s": [["text", "label"], *(["a", label] for label in ("../up", "a/b"))]})
    with zipfile.ZipFile(tmp_path / "in/a.xlsx", "a") as book:
        for name in ("../evil.xml", "/tmp/bertlora-label", "xl/../../evil.xml"):
            book.writestr(name, "<a/>")
    bertlora.prepare(tmp_path / "in/a.xlsx", tmp_path / "in/data", model=str(tiny("bert")), split="100/0/0")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"run", "export", "a.xlsx", "data"}
    assert {path.name for path in (tmp_path / "in/data").iterdir() if path.is_dir()} <= {"tokens"}
    assert not Path("/tmp/bertlora-label").exists()


@pytest.mark.timeout(60)
def test_a_pipe_is_not_waited_for(run: Path, tmp_path: Path) -> None:
    for file in [path for path in [*run.rglob("*"), *(tmp_path / "base").iterdir()] if path.is_file()]:
        file.rename(tmp_path / "kept")
        os.mkfifo(file)
        assert "is a pipe or a device" in refused(lambda: Run.load(run))
        file.unlink()
        (tmp_path / "kept").rename(file)
    (run / "loop").symlink_to(run / "loop")
    os.symlink(run, run / "again")
    assert Run.load(run).predict(["a joy"])


def test_usual_patterns_are_quick() -> None:
    assert all(is_quick(one) for one in ("query", r".*\.(query|value)$", r"^encoder\.layer\.[0-5]\..*(key|dense)$"))
    assert not any(is_quick(one) for one in (r"(a+)+$", r"(a*)*", r"(.|.){30}", ".*.*.*.*x"))
