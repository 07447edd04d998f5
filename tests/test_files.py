"""Outputs that are either whole or not there, also when the disk is full."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertlora import files
from bertlora.errors import OutputError
from bertlora.files import check_vacant, megabytes, replace_folder, size_of, whole_folder, write_whole

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def tree(folder: Path) -> dict[str, str]:
    """Every file below, hidden ones too, with its text."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fail_to(monkeypatch: pytest.MonkeyPatch, method: str, when: str = "") -> None:
    """Lets a method of Path fail for paths that have `when` in their name."""
    whole = getattr(Path, method)

    def full(self: Path, *args: object, **options: object) -> object:
        if when in self.name:
            raise NO_SPACE
        return whole(self, *args, **options)

    monkeypatch.setattr(Path, method, full)


def fill(folder: Path, overwrite: bool = False, error: BaseException | None = None) -> None:
    with whole_folder(folder, overwrite) as partial:
        (partial / "a.txt").write_text("new")
        if error is not None:
            raise error
        (partial / "b.txt").write_text("new")


# Folders


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "deep" / "out") as partial:
        (partial / "a.txt").write_text("new")
        assert not (tmp_path / "deep" / "out").exists()
    assert tree(tmp_path) == {"deep/out/a.txt": "new"}


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OutputError("in the way")])
def test_a_failure_leaves_nothing_and_is_passed_on(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        fill(tmp_path / "out", error=error)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError("bad"), NO_SPACE])
def test_a_failure_keeps_the_old_folder(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("old")
    with pytest.raises((ValueError, OutputError)):
        fill(tmp_path / "out", overwrite=True, error=error)
    assert tree(tmp_path) == {"out/a.txt": "old"}


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"out: cannot be written \(No space left on device\); nothing was kept"):
        fill(tmp_path / "out", error=NO_SPACE)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to(monkeypatch, "mkdir", "partial")
    with pytest.raises(OutputError, match="No space left on device"):
        fill(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("swaps", [True, False])
def test_each_sync_and_rename_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool) -> None:
    """The old folder stays, and nothing else: also where the system cannot swap two names."""
    if not swaps:
        monkeypatch.setattr(files, "_swap", lambda first, second: False)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("old")
    failures = 0
    while said := failing(monkeypatch, failures, lambda: fill(tmp_path / "out", overwrite=True)):
        assert said.endswith("out: cannot be written (No space left on device); nothing was kept")
        assert tree(tmp_path) == {"out/a.txt": "old"}
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        failures += 1
    assert failures == (4 if swaps else 6)  # two files, the folder, the name; and two renames
    assert tree(tmp_path) == {"out/a.txt": "new", "out/b.txt": "new"}


def failing(monkeypatch: pytest.MonkeyPatch, number: int, write: Callable[[], None]) -> str:
    """Lets the call with this number fail, of all syncs and renames. Returns the error; empty if there are fewer."""
    count = iter(range(1000))

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object) -> object:
            if next(count) == number:
                raise NO_SPACE
            return real(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "rename", counted(Path.rename))
        try:
            write()
        except OutputError as error:
            return str(error)
    return ""


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="holds something already; name another folder, or give overwrite=True"):
        fill(tmp_path)
    assert tree(tmp_path) == {"letter.txt": "dear"}


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    assert tree(tmp_path) == {"out/a.txt": "new", "out/b.txt": "new"}


def test_overwrite_replaces_all(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "c.txt").write_text("old")
    fill(tmp_path / "out", overwrite=True)
    assert tree(tmp_path) == {"out/a.txt": "new", "out/b.txt": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_replace_folder(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert tree(tmp_path) == {"old/a.txt": "new"}


def test_what_writing_says_inside_is_about_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to(monkeypatch, "open", when="partial")
    with pytest.raises(OutputError) as caught, whole_folder(tmp_path / "out") as partial:
        write_whole(partial / "a.txt", "new")
    assert str(caught.value) == f"{tmp_path / 'out'}: cannot be written (No space left on device); nothing was kept"


# Links


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Returns a link to a folder on what may be another disk."""
    (tmp_path / "large" / "target").mkdir(parents=True)
    (tmp_path / "large" / "target" / "a.txt").write_text("old")
    (tmp_path / "out").symlink_to(tmp_path / "large" / "target")
    return tmp_path / "out"


def assert_link(link: Path, files: dict[str, str]) -> None:
    assert link.is_symlink()
    assert tree(link.parent / "large") == {f"target/{name}": text for name, text in files.items()}
    assert {path.name for path in link.parent.iterdir()} == {"large", "out"}


def test_the_target_of_a_link_is_replaced(linked: Path) -> None:
    fill(linked, overwrite=True)
    assert_link(linked, {"a.txt": "new", "b.txt": "new"})
    with pytest.raises(ValueError, match="bad"):
        fill(linked, overwrite=True, error=ValueError("bad"))
    assert_link(linked, {"a.txt": "new", "b.txt": "new"})


def test_a_link_to_nowhere_is_filled(linked: Path) -> None:
    (linked / "a.txt").unlink()
    linked.resolve().rmdir()
    fill(linked)
    assert_link(linked, {"a.txt": "new", "b.txt": "new"})


def test_replace_folder_through_a_link(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    replace_folder(tmp_path / "new", linked)
    assert_link(linked, {})


# Before anything is written


def test_an_input_is_not_replaced(linked: Path, tmp_path: Path) -> None:
    inputs = [tmp_path / "large" / "target" / "a.txt"]
    for folder in (linked, linked / ".." / "target", tmp_path / "large", tmp_path):
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"holds the input .*a\.txt; name another output folder"):
                check_vacant(folder, overwrite, inputs)
        with pytest.raises(OutputError, match="holds the input"), whole_folder(folder, True, inputs):
            pass
    assert_link(linked, {"a.txt": "old"})
    assert check_vacant(linked, True, [tmp_path / "large", linked / "missing"]) is None


def test_a_file_in_the_way_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="is a file, expected a folder"):
            check_vacant(tmp_path / "out", overwrite)
    with pytest.raises(OutputError, match="is not a folder that may be written to"):
        check_vacant(tmp_path / "out" / "below", False)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(OutputError, match="may be written to"):
            check_vacant(tmp_path / "out", False)
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_nothing_in_the_way(tmp_path: Path) -> None:
    assert check_vacant(tmp_path / "new", False) is None
    assert check_vacant(tmp_path, False) is None
    assert not (tmp_path / "new").exists()


# Files


def test_write_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "héllo\n")
    write_whole(tmp_path / "a.txt", "naïve\n")
    assert (tmp_path / "a.txt").read_bytes() == "naïve\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("method", ["open", "replace"])
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    write_whole(tmp_path / "a.txt", "old")
    fail_to(monkeypatch, method, when="partial")
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_whole(tmp_path / "a.txt", "new")
    monkeypatch.undo()
    assert tree(tmp_path) == {"a.txt": "old"}


# Sizes


def test_sizes(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "deep" / "b").write_bytes(b"x" * 5)
    assert size_of(tmp_path) == 15
    sizes = [megabytes(size) for size in (152_000, 999_499, 1_000_000, 90_900_000, 1_234_500_000)]
    assert sizes == ["152 KB", "999 KB", "1.0 MB", "90.9 MB", "1,234.5 MB"]
