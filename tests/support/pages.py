"""The pages of the documentation as tests read them: fenced blocks, and the commands of ``console`` blocks.

``console``: lines that begin with ``$ `` are commands, lines that begin with ``> `` go on with one, the others are its output; a
line or part of one that is ``...`` stands for anything. A second word behind the language names the file that the block is
(``yaml limited.yaml``). Not here: executing it (``guide_player``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

from support.models import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """A page as messages name it."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its fence."""

    page: str
    line: int
    language: str
    file: str | None
    text: str


@dataclass
class Command:
    """A command of a ``console`` block and the output that the page shows, if it shows any."""

    where: str
    text: str
    output: list[str] = field(default_factory=list)

    def is_answered_by(self, output: str) -> bool:
        """Whether that is the output that the page shows; a page that shows none says nothing of it."""
        if not self.output:
            return True
        shown = "\n".join(line.rstrip() for line in self.output).strip()
        pattern = ".*".join(re.escape(part) for part in re.split(r"\.\.\.|…", shown))
        got = "\n".join(line.rstrip() for line in output.splitlines()).strip()
        return re.fullmatch(pattern, got, re.DOTALL) is not None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in lists and quotes too."""
    found = []
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "fence" and token.map is not None:
            language, file = [*token.info.split(), "", ""][:2]
            found.append(Block(name_of(page), token.map[0] + 1, language, file or None, token.content))
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a ``console`` block."""
    found: list[Command] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if line.startswith("$ "):
            found.append(Command(f"{block.page}:{number}", line[2:]))
        elif not found:
            raise AssertionError(f"{block.page}:{number}: a console block begins with a command: $ ...")
        elif line.startswith("> ") and not found[-1].output:
            found[-1].text += f"\n{line[2:]}"
        else:
            found[-1].output.append(line)
    return found
