"""Pushing to a hub: a stand-in on this machine takes what is sent; nothing is sent without a yes."""

import io
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Answer, answer, contents
from conftest import NEGATIVE, POSITIVE
from hub_stand_in import Files, HubStandIn

from bertlora.export.exported import verify
from bertlora.pipeline.public_report import without_texts
from bertlora.run.loaded import Run
from bertlora.run.manifest import read_manifest

# The hub's library calls its HTTP client in an old way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO = "someone/reviews-lora"
Push = Callable[..., Answer]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """Returns a stand-in that is up, and puts its token in the environment."""
    with HubStandIn() as stand_in:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", stand_in.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", stand_in.token)
        yield stand_in


@pytest.fixture
def push(hub: HubStandIn, run_of_reviews: Path, capsys: pytest.CaptureFixture[str]) -> Push:
    """Returns a function that pushes the run of the reviews to a repository."""

    def pushed(*flags: object, repo: str = REPO, run: Path = run_of_reviews) -> Answer:
        return answer(capsys, "push", run, repo, *flags)

    return pushed


def downloaded(files: Files, folder: Path) -> Path:
    """Returns a folder with the files of a repository."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_a_pushed_run_predicts_the_same_and_holds_no_text(
    hub: HubStandIn, push: Push, run_of_reviews: Path, tmp_path: Path
) -> None:
    found = push("--yes", "--json")
    assert found.status == 0, found.err
    files = hub.repositories["models", REPO]
    assert hub.private == {REPO}
    assert found.json["private"] is True
    assert {one["path"]: one["bytes"] for one in found.json["files"]} == {n: len(c) for n, c in files.items()}
    assert all(name in found.err for name in files)
    assert {"README.md", "run.json", "report.html", "adapter_model.safetensors"} <= files.keys()

    texts = [text.encode() for text in (*POSITIVE, *NEGATIVE)]
    report = (run_of_reviews / "report.html").read_bytes()
    assert b"<blockquote" in report, "the run's own report quotes texts"
    assert [name for name, content in files.items() if any(text in content for text in texts)] == []

    here, there = Run.load(run_of_reviews), Run.load(snapshot := downloaded(files, tmp_path / "snapshot"))
    assert verify(snapshot, there.model)["format"] == "adapter"
    assert read_manifest(snapshot).files.keys() == files.keys() - {"README.md", "run.json", "report.html"}
    asked = ["a joy", "a long and dull evening", ""]
    assert there.predict(asked, sets=0.8) == here.predict(asked, sets=0.8)
    assert there.predict(asked, abstain="coverage=0.5") == here.predict(asked, abstain="coverage=0.5")


def test_an_export_is_pushed_whole(hub: HubStandIn, push: Push, run_of_reviews: Path, tmp_path: Path) -> None:
    run, export = Run.load(run_of_reviews), tmp_path / "export"
    run.export(export, "merged")
    whole = {name: content for name, content in contents(export).items() if content is not None}
    (export / ".DS_Store").touch()
    found = push("--yes", "--public", run=export)
    assert found.status == 0
    assert "no model card" in found.err
    assert hub.repositories["models", REPO] == whole
    assert hub.private == set()
    there = Run.load(downloaded(whole, tmp_path / "snapshot"))
    assert verify(tmp_path / "snapshot", there.model)["format"] == "merged"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_leaves_the_machine_without_a_yes(hub: HubStandIn, push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    found = push()
    assert found.status == 2
    assert "give --yes" in found.err
    for said in ("n\n", "\n", ""):
        monkeypatch.setattr(sys, "stdin", Terminal(said))
        assert push("--json").json["sent"] is False
    assert hub.requests == []
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert push("--json").json["sent"] is True
    assert ("models", REPO) in hub.repositories


def test_what_cannot_be_sent_is_one_line(
    hub: HubStandIn, push: Push, run_of_reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(expected: str, **more: object) -> None:
        found = push("--yes", **more)
        last = found.err.splitlines()[-1]
        assert found.status == 2, found.err
        assert last.startswith("bertlora: ")
        assert expected in last
        assert found.err.count("bertlora: ") == 1

    shutil.copytree(run_of_reviews, unfinished := tmp_path / "unfinished")
    (unfinished / "run.json").unlink()
    refused("did not finish", run=unfinished)
    refused("no such folder", run=tmp_path / "nothing")
    refused("expected OWNER/NAME", repo="a/b/c")
    hub.add("models", "someone/public", {"old": b""})
    refused("the repository is public", repo="someone/public")
    with monkeypatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_wrong")
        refused("does not know the token")
    with monkeypatch.context() as patch:
        patch.delenv("HF_TOKEN")
        patch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
        refused("there is no token")
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        refused("offline mode is on")
    hub.refuses = True
    refused("may not write there")
    assert hub.repositories == {("models", "someone/public"): {"old": b""}}
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    refused("cannot be reached")


def test_a_report_of_unknown_sections_is_not_trusted() -> None:
    assert without_texts("<section id='other'><blockquote>a text</blockquote></section>") is None
    page = '<section id="errors"><div class="body"><p>x</p></div>\n</section><section id="new"><blockquote>a text'
    assert without_texts(page) is None
