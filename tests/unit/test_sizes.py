"""The check of sizes counts what a reader sees."""

from __future__ import annotations

import pytest

from tools import check_sizes


def test_the_sources_are_short_enough() -> None:
    assert list(check_sizes.faults()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("fn one() {}", [("one", 1, 1)]),
        (
            "// fn none() {}\npub async fn two<'a>(\n    a: &'a [u8; 2],\n) -> u8 {\n    a[0]\n}",
            [("two", 2, 5)],
        ),
        ("trait T {\n    fn declared(&self) -> [u8; 4];\n    fn given(&self) {\n    }\n}", [("given", 3, 2)]),
        ('fn text() {\n    let (a, b) = ("}", \'}\');\n    let c = r#"}"#; // }\n}', [("text", 1, 4)]),
        ("fn outer() {\n    fn inner() {\n    }\n    inner();\n}", [("outer", 1, 5), ("inner", 2, 2)]),
    ],
)
def test_a_function_ends_at_its_own_brace(text: str, found: list[tuple[str, int, int]]) -> None:
    assert list(check_sizes.functions_of(text)) == found


def test_what_is_too_long_is_named() -> None:
    text = "fn long() {\n" + "    call();\n" * 59 + "}\n"
    assert list(check_sizes.function_faults("a.rs", text)) == [
        "a.rs:1: long has 61 lines; a function has at most 60"
    ]
    assert list(check_sizes.function_faults("a.rs", text.replace("    call();\n", "", 1))) == []
    assert list(check_sizes.file_faults("a.rs", "\n" * 450)) == []
    assert list(check_sizes.file_faults("a.rs", "\n" * 451)) == ["a.rs: 451 lines; a file has at most 450"]
