"""Hashes of files, and the seal of the manifest that has them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlora.errors import DataError
from bertlora.hashes import check_files, hashes_of, opened, sealed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=8,
)
TABLES = st.dictionaries(st.text(max_size=5).filter(lambda key: key != "sha256"), VALUES, max_size=4)


@given(TABLES, st.data())
def test_a_manifest_with_a_changed_byte_is_refused_or_says_the_same(table: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(sealed(table).encode("utf-8", "surrogatepass"))
    assert opened(raw.decode("utf-8", "surrogatepass")) == table
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = opened(raw.decode("utf-8", "surrogatepass"))
    except ValueError:
        return
    found.pop("sha256", None)
    # A change within the name of the seal takes it away; nothing else is changed then.
    assert table.items() <= found.items() or found == table


def test_files_must_be_there_and_have_their_content(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_text("a")
    (tmp_path / "below" / "b").write_text("b")
    files = hashes_of(tmp_path, ["a", "below/b"])
    check_files(tmp_path, files)
    (tmp_path / "below" / "b").write_text("c")
    check_files(tmp_path, files, ["a", "never listed"])
    with pytest.raises(DataError, match=r"below/b: is damaged, or belongs to another folder .*; prepare it again"):
        check_files(tmp_path, files, kind=DataError, advice="prepare it again")
    (tmp_path / "a").unlink()
    with pytest.raises(ValueError, match="lacks a; copy the folder again, or make it again"):
        check_files(tmp_path, files)
    with pytest.raises(ValueError, match="copy the folder again, or make it again"):
        check_files(tmp_path, {"a" * 5000: "0" * 64})
