"""Exported folders: the run's answers wherever they land, or a clear error."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import LABELS, TEXTS, adapted_of, cover_again, save_tiny_run, shift_answers
from transformers import pipeline

from bertlora.cli import main
from bertlora.confidence.calibration import Calibration
from bertlora.confidence.learned import Learned
from bertlora.confidence.spread import Spread
from bertlora.confidence.thresholds import Thresholds
from bertlora.data.reader import Reader
from bertlora.errors import InputError, RunError
from bertlora.export import per_token
from bertlora.export.certificate import Certificate
from bertlora.hashes import sealed
from bertlora.model.base import quiet
from bertlora.run.loaded import Run

ROOT = Path(__file__).parents[2]
Tiny = Callable[[str], Path]
WITH_MODEL = ["merged", "onnx", "openvino"]


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run whose temperature is not 1, with validation rows."""
    folder = tmp_path_factory.mktemp("origin") / "run"
    save_tiny_run(folder, adapted_of(tiny("bert"), targets=["all-linear"], max_length=16))
    draws = np.random.default_rng(0)
    y_true = draws.integers(0, 3, 400)
    logits = (8 * draws.normal(size=(400, 3)) + 6 * np.eye(3)[y_true]).astype(np.float64)
    return calibrated(folder, Calibration.fit(logits, y_true))


def calibrated(folder: Path, learned: Learned, **facts: Any) -> Run:
    """Returns the run of a folder after it got a calibration."""
    learned.save(folder)
    table = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(table | learned.facts() | facts))
    cover_again(folder)
    return Run.load(folder)


@pytest.fixture(scope="module")
def export_of(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a function: format → the run's export, written once."""
    folder = tmp_path_factory.mktemp("exports")
    return cache(lambda format: Path(run.export(folder / format, format)["to"]))


@pytest.fixture(scope="module", params=WITH_MODEL)
def exported(request: pytest.FixtureRequest, export_of: Callable[[str], Path]) -> Path:
    return export_of(request.param)


def alike(found: Any, expected: Any) -> bool:
    """Returns whether two answers are the same, numbers up to rounding."""
    if isinstance(expected, float):
        return bool(abs(found - expected) < 1e-4)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(alike(found[key], expected[key]) for key in expected)
    if isinstance(expected, list) and expected and isinstance(expected[0], float):
        return bool(np.allclose(found, expected, atol=1e-4))
    return bool(found == expected)


@pytest.mark.parametrize("options", [{}, {"raw": True}, {"abstain": "coverage=0.5"}, {"sets": 0.8}], ids=str)
def test_an_export_answers_as_its_run(exported: Path, run: Run, options: dict[str, Any]) -> None:
    assert run.manifest.temperature > 1.5
    found, expected = Run.load(exported).predict(TEXTS, **options), run.predict(TEXTS, **options)
    assert all(alike(one, other) for one, other in zip(found, expected, strict=True)), (found, expected)


def test_the_command_line_takes_an_export(
    exported: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(exported), *TEXTS, "--format", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(alike(one, other) for one, other in zip(lines, run.predict(TEXTS), strict=True))
    assert main(["verify", str(exported), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] < 1e-3
    assert main(["export", str(exported), "--to", str(tmp_path / "again")]) == 2
    assert "is an export" in capsys.readouterr().err


def test_transformers_gives_the_calibrated_confidence(run: Run, tmp_path: Path) -> None:
    run.export(tmp_path / "out", "merged")
    with quiet():
        pipe = pipeline("text-classification", model=str(tmp_path / "out"), device="cpu")
        found = [{item["label"]: item["score"] for item in pipe(text, top_k=None, truncation=True)} for text in TEXTS]
    assert np.allclose([[row[label] for label in LABELS] for row in found], run.predict_proba(TEXTS), atol=1e-5)


def test_a_changed_file_is_found_at_the_next_load(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    for file in sorted(path for path in folder.iterdir() if not path.name.startswith("certificate")):
        whole = file.read_bytes()
        file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        with pytest.raises(RunError):
            Run.load(folder)
        file.unlink()
        with pytest.raises((RunError, InputError)):
            Run.load(folder)
        file.write_bytes(whole)
    assert Run.load(folder).predict(TEXTS[:1])


def test_a_certificate_of_another_model_is_refused(exported: Path, tiny: Tiny, tmp_path: Path) -> None:
    save_tiny_run(tmp_path / "other", adapted_of(tiny("bert"), targets=["query"], max_length=16, seed=9))
    shutil.copytree(exported, tmp_path / "out")
    shutil.copyfile(tmp_path / "other" / "certificate.safetensors", tmp_path / "out" / "certificate.safetensors")
    with pytest.raises(RunError, match=r"certificate\.safetensors: is damaged, or belongs to another folder"):
        Run.load(tmp_path / "out")
    cover_again(tmp_path / "out")
    with pytest.raises(RunError, match=r"does not give the run's answers here: logits differ by up to \d"):
        Run.load(tmp_path / "out")


def test_verify_replays_once(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replays, difference = [], Certificate.difference

    def counted(self: Certificate, *given: Any) -> float:
        replays.append(given)
        return difference(self, *given)

    monkeypatch.setattr(Certificate, "difference", counted)
    shutil.copytree(exported, tmp_path / "new here")
    for times in (1, 2):  # also if it has passed before
        assert main(["verify", str(tmp_path / "new here")]) == 0
        assert len(replays) == times
    assert Run.load(tmp_path / "new here").predict(TEXTS[:1])
    assert len(replays) == 2


def test_verify_says_how_far_the_answers_are_off(
    export_of: Callable[[str], Path], run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(export_of("merged"), tmp_path / "out")
    shift_answers(folder, by=0.5)
    for verb in (["verify", str(folder)], ["predict", str(folder), "a text"]):
        assert main(verb) == 2
        found = capsys.readouterr()
        assert found.out == ""
        (said,) = found.err.splitlines()
        off = re.search(r"out: does not give the run's answers here: logits differ by up to (\S+), and at most 0", said)
        assert off is not None
        assert float(off[1]) == pytest.approx(0.5 * run.manifest.temperature, rel=0.05)


def test_verify_refuses_what_is_no_export(
    run_of_reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a note")
    old = shutil.copytree(run_of_reviews, tmp_path / "old")
    for name in ("certificate.json", "certificate.safetensors"):
        (old / name).unlink()
    cover_again(old)
    table = json.loads((old / "run.json").read_text())
    table["files"] = {name: hash for name, hash in table["files"].items() if not name.startswith("certificate")}
    (old / "run.json").write_text(sealed(table))
    for name, reason in (("nowhere", "no such run folder"), ("notes", "run.json"), ("old", "has no certificate")):
        assert main(["verify", str(tmp_path / name)]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert f"{name}: " in said
        assert reason in said


def test_a_machine_replays_once(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Run.load(exported)

    def replayed(*_: Any) -> Any:
        raise AssertionError("replayed again")

    monkeypatch.setattr(Certificate, "difference", replayed)
    assert Run.load(exported).predict(TEXTS) == first.predict(TEXTS)
    (exported / "run.json").touch()
    with pytest.raises(AssertionError, match="replayed again"):
        Run.load(exported)


def test_bf16_is_taken_only_where_it_is_faster_and_the_certificate_holds(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertlora.model.machine.has_bf16", lambda: True)
    monkeypatch.setattr("bertlora.model.machine.speed", {"fp32": 1.0, "bf16": 1.0}.__getitem__)
    assert Run.load(run.path).choose_precision("auto") == "fp32"
    monkeypatch.setattr("bertlora.model.machine.speed", {"fp32": 1.0, "bf16": 9.0}.__getitem__)
    assert Run.load(run.path).choose_precision("auto") == "bf16"
    monkeypatch.setattr(Certificate, "allowed", lambda *_: 0.0)
    assert Run.load(run.path).choose_precision("auto") == "bf16"  # it held when it was tried
    monkeypatch.setattr("bertlora.export.exported.proven", lambda *_: tmp_path / "no mark")
    assert Run.load(run.path).choose_precision("auto") == "fp32"


@pytest.mark.parametrize("keys", [{"truncation": "left"}, {"long_texts": "windows"}], ids=str)
def test_an_onnx_folder_reads_long_texts_as_its_run(keys: dict[str, Any], tiny: Tiny, tmp_path: Path) -> None:
    save_tiny_run(tmp_path / "run", adapted_of(tiny("bert"), targets=["all-linear"], max_length=10, **keys))
    run = Run.load(tmp_path / "run")
    run.export(tmp_path / "out", "onnx")
    found, expected = Run.load(tmp_path / "out").predict(TEXTS), run.predict(TEXTS)
    assert all(alike(one, other) for one, other in zip(found, expected, strict=True))
    cut = Reader.of(run.adapted.reader.tokenizer, 10, "right").read(TEXTS)
    differs = np.abs(run.adapted.logits(cut) - run.adapted.logits(run.adapted.reader.read(TEXTS))).max(axis=1)
    assert ((differs > 1e-3) == [False, True, False, True]).all()


def test_the_script_in_the_documents_opens_an_export(export_of: Callable[[str], Path], run: Run) -> None:
    page = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
    script = re.search(r"```python\n(import json.*?)```", page, re.DOTALL)[1]
    assert len(script.split("\n\n")[1].splitlines()) == 10  # as the page says
    seen: dict[str, Any] = {}
    exec(script.replace("exports/reviews", str(export_of("onnx"))), seen)
    assert len(seen["texts"]) == 2
    assert np.allclose(seen["probabilities"], run.predict_proba(seen["texts"]), atol=1e-5)


MISSING = {
    "onnx": ("onnx", "onnx"),
    "onnxscript": ("onnx", "onnx"),
    "onnxruntime": ("onnx", "onnx"),
    "openvino": ("openvino", "openvino"),
}


@pytest.mark.parametrize("package", MISSING)
def test_a_missing_package_is_named_with_its_extra(
    package: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    format, extra = MISSING[package]
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert main(["export", str(run.path), "--to", str(tmp_path / "out"), "--format", format]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"bertlora: {package} is needed here and cannot be imported (")
    assert said.endswith(f"; run pip install 'bertlora[{extra}]'")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("format", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_what_runs_an_export_is_named_if_it_is_missing(
    format: str,
    package: str,
    export_of: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = export_of(format)
    monkeypatch.setitem(sys.modules, package, None)
    for words in (["verify", str(folder)], ["predict", str(folder), "a text"]):
        assert main(words) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(f"bertlora: {package} is needed here")
        assert said.endswith(f"; run pip install 'bertlora[{format}]'")


@pytest.mark.parametrize(("task", "format"), [("multilabel", "onnx"), ("regression", "merged")])
def test_other_tasks(task: str, format: str, tiny: Tiny, tmp_path: Path) -> None:
    draws = np.random.default_rng(1)
    labels = LABELS if task == "multilabel" else ["stars"]
    save_tiny_run(tmp_path / "run", adapted_of(tiny("bert"), labels, task=task))
    learned: Learned = Spread.of(3.0, 1.0, draws.normal(size=(50, 1)), draws.normal(size=50))
    if task == "multilabel":
        learned = Thresholds.fit(9 * draws.normal(size=(200, 3)), draws.random((200, 3)) < 0.4)
    run = calibrated(tmp_path / "run", learned)
    run.export(tmp_path / format, format)
    found, expected = Run.load(tmp_path / format).predict(TEXTS), run.predict(TEXTS)
    assert all(alike(one, other) for one, other in zip(found, expected, strict=True))


def test_int8_is_measured_on_the_validation_rows_or_refused(
    run_of_reviews: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(run_of_reviews), "--format", "onnx-int8", "--to", str(tmp_path / "out")]
    assert main([*words, "--tolerance", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    trained = Run.load(run_of_reviews)
    assert found["rows"] == trained.calibration.rows
    assert found["before"]["accuracy"] == trained.metrics()["validation"]["accuracy"]
    assert found["lost_points"] == 100 * (found["before"]["accuracy"] - found["after"]["accuracy"])
    assert found["quantised_products"] == 13  # two layers of six, and the pooler
    assert found["other_products"] == 5
    assert found["texts_per_s"].keys() == {"onnx-int8", "onnx", "merged"}
    fastest = max(found["texts_per_s"], key=found["texts_per_s"].get)
    assert (fastest != "onnx-int8") == ("notes" in found)
    texts = ["A joy from start to finish.", "Dull, and far too long.", "Not bad at all."]
    together = Run.load(tmp_path / "out").predict_proba(texts)
    assert np.array_equal(together[1:2], Run.load(tmp_path / "out").predict_proba(texts[1:2]))
    assert np.abs(together - trained.predict_proba(texts)).max() < 0.05
    assert main([*words, "--overwrite", "--tolerance", "-100"]) == 2
    assert "points of accuracy" in capsys.readouterr().err
    assert Run.load(tmp_path / "out").predict(texts)  # the older one stays
    with pytest.raises(InputError, match="measured on the validation rows"):
        run.export(tmp_path / "other", "onnx-int8")
    assert not (tmp_path / "other").exists()


def test_int8_with_a_layer_that_stays_in_fp32_is_refused(
    run_of_reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weight_of = per_token._Rewriting.weight_of

    def hidden(self: Any, node: Any) -> Any:
        """Returns the weight as the rewriting finds it, except in the feed-forward of the first layer."""
        weight = weight_of(self, node)
        return None if "layer.0.intermediate" in str(node) else weight

    monkeypatch.setattr(per_token._Rewriting, "weight_of", hidden)
    assert main(["export", str(run_of_reviews), "--format", "onnx-int8", "--to", str(tmp_path / "out")]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "onnx-int8 has 12 of 13 linear layers in 8 bits" in said
    assert list(tmp_path.iterdir()) == []


def test_an_exported_adapter_has_a_certificate_too(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.export(tmp_path / "out", "adapter")
    assert Run.load(tmp_path / "out").predict(TEXTS, sets=0.8) == run.predict(TEXTS, sets=0.8)
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert "adapter, " in capsys.readouterr().out
    table = json.loads((tmp_path / "out" / "certificate.json").read_text())
    (tmp_path / "out" / "certificate.json").write_text(json.dumps(table | {"tolerance": -1}))
    assert main(["verify", str(tmp_path / "out")]) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert Run.load(exported).predict(TEXTS[:1])
