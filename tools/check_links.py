"""Checks the links of the documentation: files that are not there, and anchors that no heading of a page has.

Only links within the repository are followed; other hosts are not asked. Anchors are those that GitHub makes of headings.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent
_EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")


def faults(page: Path, root: Path) -> Iterator[str]:
    """One sentence for each link of a page that leads nowhere."""
    for line, target in links(page):
        if _EXTERNAL.match(target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / unquote(path)).resolve() if path else page
        where = f"{page.relative_to(root)}:{line}"
        if not found.is_relative_to(root) or not found.exists():
            yield f"{where}: {target}: there is no such file in the repository"
        elif anchor and (found.suffix != ".md" or unquote(anchor) not in anchors(found)):
            yield f"{where}: {target}: {found.relative_to(root)} has no heading of that name"


def links(page: Path) -> Iterator[tuple[int, str]]:
    """The line of the block and the target of each link and image."""
    for token in _tokens(page):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target is not None:
                yield (token.map or [0])[0] + 1, str(target)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings; the second of two equal ones has a number."""
    seen: Counter[str] = Counter()
    found = set()
    tokens = _tokens(page)
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            anchor = _anchor("".join(child.content for child in token.children or ()))
            found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
            seen[anchor] += 1
    return found


def _anchor(heading: str) -> str:
    return _NOT_IN_ANCHORS.sub("", heading.strip().lower()).replace(" ", "-")


def _tokens(page: Path) -> list[Token]:
    # Tables as well: most links of the index stand in one.
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def pages() -> list[Path]:
    """The pages at the top and those of ``docs``."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> int:
    """Prints the faults; 1 when there are any."""
    found = [fault for page in pages() for fault in faults(page, ROOT)]
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:
        print("all links within the repository lead somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
