"""What the link check finds, and what it leaves alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.models import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import check_links

OTHER = """\
# A page
## Whose failure it is
## `:predict`
## Twice
## Twice
## What `--models` makes, and why: 1.10.0?
```
## no heading
```
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "other.md").write_text(OTHER)
    (tmp_path / "LICENSE").touch()
    return tmp_path


def faults(root: Path, text: str) -> list[str]:
    page = root / "docs" / "page.md"
    page.write_text(text)
    return list(check_links.faults(page, root))


@pytest.mark.parametrize(
    "target",
    ["other.md", "other.md#a-page", "other.md#whose-failure-it-is", "other.md#predict", "other.md#twice", "other.md#twice-1",
     "other.md#what---models-makes-and-why-1100", "../LICENSE", "../docs", "#here", "https://example.org/none.md#x", "mailto:a@b"],
)  # fmt: skip
def test_what_is_there_is_found(root: Path, target: str) -> None:
    assert faults(root, f"# Here\n\nsee [it]({target})\n") == []


@pytest.mark.parametrize(
    "target",
    ["none.md", "other.md#none", "other.md#no-heading", "other.md#twice-2", "#none", "../../secret.md", "../LICENSE#x", "/etc/passwd",
     "other.md#A-page"],
)  # fmt: skip
@pytest.mark.parametrize(
    "form",
    [
        "see [it]({})",
        "| a |\n|---|\n| [it]({}) |",
        "- [it]({})",
        "[it][1]\n\n[1]: {}",
        "![it]({})",
        "> **[it]({})**",
    ],
)
def test_what_leads_nowhere_is_named_with_its_line(root: Path, target: str, form: str) -> None:
    found = faults(root, "# Here\n\n" + form.format(target) + "\n")
    assert len(found) == 1
    assert found[0].startswith("docs/page.md:")
    assert target in found[0]


def test_code_is_no_link(root: Path) -> None:
    assert faults(root, "`[it](none.md)`\n\n```\n[it](none.md)\n```\n") == []


def test_the_pages_of_this_repository_are_looked_at() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in check_links.pages()}
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "docs/guides/first-hour.md"} <= names
