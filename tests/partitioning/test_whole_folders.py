"""Folders that appear whole."""

import os
from pathlib import Path

import pytest

from partitioning import appears_whole


def fill(folder: Path, text: str, *, replace: bool = False, fail: bool = False) -> None:
    with appears_whole(folder, replace=replace) as partial:
        (partial / "note").write_text(text)
        assert not (folder / "note").is_file() or (folder / "note").read_text() != text
        if fail:
            raise RuntimeError("half way")


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        fill(tmp_path / "above" / "x", "a", fail=True)
    assert not list((tmp_path / "above").iterdir())
    fill(tmp_path / "above" / "x", "a")
    for replace in (False, True):
        with pytest.raises((RuntimeError, FileExistsError), match=r"half way|is there already"):
            fill(tmp_path / "above" / "x", "b", replace=replace, fail=True)
    assert (tmp_path / "above" / "x" / "note").read_text() == "a"
    fill(tmp_path / "above" / "x", "b", replace=True)
    assert (tmp_path / "above" / "x" / "note").read_text() == "b"
    assert [path.name for path in (tmp_path / "above").iterdir()] == ["x"]


def test_what_cannot_be_put_in_place_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "x", "a")
    moved = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == "x" and not str(source).endswith(".before"):
            raise OSError("no more")
        moved(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no more"):
        fill(tmp_path / "x", "b", replace=True)
    assert (tmp_path / "x" / "note").read_text() == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_places_where_there_is_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name, message in (("file", "is there already"), ("link", "is a link")):
        with pytest.raises(FileExistsError, match=message):
            fill(tmp_path / name, "a", replace=True)
    fill(tmp_path / "empty", "a")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fill(Path(), "a")
    assert (tmp_path / "here" / "note").read_text() == "a"
