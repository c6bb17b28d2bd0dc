"""The check of the rooms inside the crates sees what goes up and what goes round."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_rooms


def crate(folder: Path, files: dict[str, str]) -> dict[str, set[str]]:
    """The graph of a crate with these files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return check_rooms.graph_of(folder)


def test_the_crates_are_as_the_table_says() -> None:
    assert list(check_rooms.faults()) == []


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("use crate::top::thing::{Other, self};", {"top::thing"}),
        ("use crate::{\n    low,\n    top::{self, thing::Name as Else},\n};", {"low", "top", "top::thing"}),
        ("use super::super::top;", {"top"}),
        ("use super::other::Name;", {"mid::other"}),
        ("use self::child::Name;", {"mid::file::child"}),
        ("mod child;\npub use child::Name;", {"mid::file::child"}),
        ("mod child;\nfn f() { child::call(crate::low::child::NAME) }", {"mid::file::child", "low"}),
        ("fn f() { crate::top::thing::call(super::other::CONSTANT) }", {"top::thing", "mid::other"}),
        ("pub(crate) use crate::low::Name;", {"low"}),
        ("// use crate::top::Name;\nmod child;", set()),
        ("use std::top; use http::low::Name;", set()),
        ("#[cfg(test)]\nmod tests {\n    use crate::top::Name;\n}", set()),
        ("#[cfg(test)]\nmod tests;\nuse crate::low::Name;", {"low"}),
    ],
)
def test_an_import_is_seen_however_it_is_written(tmp_path: Path, text: str, seen: set[str]) -> None:
    names = ["lib", "low", "top/mod", "top/thing", "mid/mod", "mid/other", "mid/file/child"]
    graph = crate(tmp_path, {**{f"{name}.rs": "" for name in names}, "mid/file.rs": text})
    assert graph["mid::file"] == seen


def test_an_import_that_goes_up_is_a_fault(tmp_path: Path) -> None:
    graph = crate(tmp_path, {"low.rs": "use crate::top::Name;", "top.rs": "use crate::low::Name;"})
    faults = list(check_rooms.room_faults("c", graph, [{"low"}, {"top"}]))
    assert faults == ["c: low imports top, and 'top' is not below 'low'"]
    assert "no room" in next(check_rooms.room_faults("c", graph, [{"top"}]))


def test_a_circle_is_found_through_parents_and_children(tmp_path: Path) -> None:
    files = {
        "one.rs": "mod child;\nuse self::child::Name;",
        "one/child.rs": "use crate::two;",
        "two.rs": "use crate::one::Name;",
        "alone.rs": "use crate::one::Name;",
    }
    assert list(check_rooms.circles(crate(tmp_path, files))) == [["one", "one::child", "two"]]


def test_a_name_that_the_root_exports_belongs_to_its_file(tmp_path: Path) -> None:
    files = {
        "lib.rs": "mod one;\nmod two;\npub use one::{Name, Other as Else};\npub use crate::two::call;",
        "one.rs": "use crate::call;",
        "two.rs": "use crate::Name;",
    }
    assert list(check_rooms.circles(crate(tmp_path, files))) == [["one", "two"]]
