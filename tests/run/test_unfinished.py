"""A run that is not finished costs nothing that is: the old run stands under its name until the new one is whole."""

import shutil
from pathlib import Path

import pytest

from bertlora.errors import InputError, OutputError
from bertlora.run.folder import check_run_folder
from bertlora.run.manifest import MANIFEST
from bertlora.run.unfinished import RECIPE, REPLACED, beside, clear_leftovers, place_of, until_finished

OLD = {RECIPE: "old", MANIFEST: "old", "adapter/a": "old"}


def tree(folder: Path) -> dict[str, str]:
    """Every file below, hidden ones too, with its text."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def write(out: Path, *names: str, resume: bool = False, overwrite: bool = False, fails: bool = False) -> None:
    """Writes these files of a run for `out` as `train` does, and fails after them or not."""
    check_run_folder(out, resume, overwrite)
    place = place_of(out, resume, overwrite)
    with until_finished(place, out, resume):
        fill(place, dict.fromkeys(names, "new"))
        if fails:
            raise KeyboardInterrupt


@pytest.fixture(params=["folder", "link"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Returns the folder of a finished run, or a link to it."""
    fill(tmp_path / "disk" / "run", OLD)
    if request.param == "folder":
        return tmp_path / "disk" / "run"
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    return tmp_path / "run"


def test_the_old_run_stands_until_the_new_one_is_finished(run: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(run, "data/rows", overwrite=True, fails=True)
    assert tree(run.resolve().parent) == {f"run/{name}": text for name, text in OLD.items()}  # nothing was begun

    with pytest.raises(KeyboardInterrupt):
        write(run, "data/rows", RECIPE, overwrite=True, fails=True)
    assert tree(run) == OLD
    assert tree(beside(run)) == {"data/rows": "new", RECIPE: "new"}

    with pytest.raises(OutputError, match="a new run for it did not finish; give resume=True"):
        write(run, RECIPE)
    with pytest.raises(InputError, match="exclude each other"):
        write(run, RECIPE, resume=True, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        write(run, resume=True, fails=True)
    assert tree(run) == OLD

    write(run, MANIFEST, resume=True)
    assert tree(run) == {"data/rows": "new", RECIPE: "new", MANIFEST: "new"}
    assert [path.name for path in run.resolve().parent.iterdir()] == ["run"]


def test_a_kill_after_the_swap_does_not_bring_the_old_run_back(run: Path) -> None:
    """It lies where the new one was; the next process removes it."""
    fill(run, {REPLACED: ""})
    for folder, text in ((beside(run), "old"), (run.resolve(), "new")):
        shutil.rmtree(folder, ignore_errors=True)
        fill(folder, dict.fromkeys(OLD, text) | ({REPLACED: ""} if text == "old" else {}))
    assert place_of(run, resume=True, overwrite=False) == run
    clear_leftovers(run, killed=True)
    assert tree(run.resolve().parent) == {f"run/{name}": "new" for name in OLD}


@pytest.mark.parametrize("killed", [True, False])
def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path, killed: bool) -> None:
    """The data of a run that was not begun, if a lock says that it was killed: otherwise they may be the user's."""
    fill(
        tmp_path, {"run/data/dataset.json": "", "run/.data.partial-1/a": "", "b/.recipe.toml.partial-1": "", "b/x": ""}
    )
    for name in ("run", "b"):
        clear_leftovers(tmp_path / name, killed)
    assert ("b/.recipe.toml.partial-1" in tree(tmp_path)) != killed
    assert set(tree(tmp_path / "run")) == (set() if killed else {"data/dataset.json", ".data.partial-1/a"})
    assert "b/x" in tree(tmp_path)


def test_an_unfinished_run_is_replaced_by_a_newer_one(run: Path) -> None:
    for name in ("first", "second"):
        with pytest.raises(KeyboardInterrupt):
            write(run, RECIPE, name, overwrite=True, fails=True)
    assert set(tree(beside(run))) == {RECIPE, "second"}


def test_a_finished_new_run_takes_the_name_when_resumed(run: Path) -> None:
    """As if the process had been killed just before the rename."""
    fill(beside(run), {RECIPE: "new", MANIFEST: "new"})
    shutil.rmtree(run.resolve())
    write(run, resume=True)
    assert tree(run) == {RECIPE: "new", MANIFEST: "new"}


@pytest.mark.parametrize("there", [True, False])
def test_without_an_old_run_it_is_written_in_place(tmp_path: Path, there: bool) -> None:
    run = tmp_path / "run"
    if there:
        run.mkdir()
    with pytest.raises(KeyboardInterrupt):
        write(run, "data/rows", fails=True)
    assert (run.exists(), tree(tmp_path)) == (there, {})
    with pytest.raises(KeyboardInterrupt):
        write(run, RECIPE, fails=True)
    assert tree(run) == {RECIPE: "new"}
    write(run, MANIFEST, resume=True)
    assert tree(tmp_path) == {f"run/{RECIPE}": "new", f"run/{MANIFEST}": "new"}
