"""Scanning a model tree: what is found, what is passed over, in which order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import StorageFailed
from headgate.registry import by_endpoint, scan, survey
from headgate.registry import tree as trees


def model(root: Path, *parts: str) -> Path:
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True)
    (folder / "model.onnx").touch()
    return folder


def test_versions_come_in_natural_order(tmp_path: Path) -> None:
    for endpoint, version in (("b", "2"), ("b", "10"), ("b", "9"), ("a", "v1"), ("a", "v10"), ("a", "v2")):
        model(tmp_path, endpoint, version)
    found = scan(tmp_path)
    assert [(f.endpoint, f.version) for f in found] == [
        ("a", "v1"), ("a", "v2"), ("a", "v10"), ("b", "2"), ("b", "9"), ("b", "10"),
    ]  # fmt: skip
    assert list(by_endpoint(found)) == ["a", "b"]
    assert by_endpoint(found)["b"]["10"] == (tmp_path / "b" / "10").resolve()


def test_hidden_partial_and_misnamed_folders_are_passed_over(tmp_path: Path) -> None:
    root = tmp_path / "root"
    model(root, "a", "1")
    model(root, ".git", "1")
    model(root, "a", ".tmp-2")
    model(root, "a", "b c")
    model(root, "-x", "1")
    (root / "a" / "3").mkdir()
    (root / "a" / "notes.txt").touch()
    (root / "README").touch()
    model(tmp_path, "outside", "1")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "inner").symlink_to(root / "a")
    taken = survey(root)
    assert [(f.endpoint, f.version) for f in taken.found] == [("a", "1"), ("inner", "1")]
    reasons = {
        str(s.folder.relative_to(root.resolve())): s.reason for s in taken.skipped if root in s.folder.parents
    }
    assert "name is not valid" in reasons["-x"]
    assert "name is not valid" in reasons["a/b c"]
    assert "holds no model.onnx" in reasons["a/3"]
    assert "leaves" in reasons["link"]
    assert not any(name.startswith(".") or "/." in name for name in reasons)


def test_folders_that_cannot_be_read_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path, "a", "1")
    model(tmp_path, "a", "shut")
    model(tmp_path, "closed", "1")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    scandir, is_file = os.scandir, Path.is_file

    def scan_but_one(path: Path) -> Any:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    def look_but_one(path: Path) -> bool:
        if path.parent.name == "shut":
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(trees.os, "scandir", scan_but_one)
    monkeypatch.setattr(Path, "is_file", look_but_one)
    taken = survey(tmp_path)
    assert [(f.endpoint, f.version) for f in taken.found] == [("a", "1")]
    assert sorted((s.folder.name, s.reason) for s in taken.skipped) == [
        ("closed", "cannot be read: Permission denied"),
        ("loop", "is a link to nothing"),
        ("shut", "cannot be read: Permission denied"),
    ]


def test_a_tree_that_is_not_there_or_too_large_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageFailed, match="does not exist"):
        scan(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="cannot be read"):
        scan(tmp_path / "file")
    monkeypatch.setattr(trees, "MAX_ENTRIES", 3)
    for version in "123":
        model(tmp_path, "a", version)
    with pytest.raises(StorageFailed, match="more than 3 entries"):
        scan(tmp_path)
