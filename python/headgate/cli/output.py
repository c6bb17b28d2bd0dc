"""How a command prints what it found: a table for a person, JSON or YAML for a program, names for a loop of the shell.

Everything that goes to a terminal passes here, and is escaped here. Not here: what a table shows (the commands). Next: text.py.
"""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, Literal

import click

from headgate.cli import text

Format = Literal["table", "json", "yaml", "name"]
FORMATS: tuple[Format, ...] = ("table", "json", "yaml", "name")
Lines = list[str]
View = Callable[[Any], Lines]
"""Draws an answer; every text in the answer is escaped already."""
Names = Callable[[Any], Iterable[object]]
"""The names in an answer, for ``-o name``."""


def show(form: Format, data: Any, view: View, names: Names) -> None:
    """Prints ``data`` in the form that was asked for."""
    if form == "json":
        click.echo(to_json(data))
    elif form == "yaml":
        click.echo(to_yaml(data), nl=False)
    elif form == "name":
        for name in names(data):
            click.echo(text.escape(str(name)))
    else:
        for line in view(text.printable(data)):
            click.echo(line)


def show_next(form: Format, data: Any, view: View, names: Names) -> None:
    """Prints one of several answers that follow each other: JSON in one line each, YAML as a document each."""
    if form == "json":
        click.echo(to_json(data, indent=None))
    elif form == "yaml":
        click.echo("---\n" + to_yaml(data), nl=False)
    else:
        show(form, data, view, names)


def to_json(data: Any, indent: int | None = 2) -> str:
    """JSON as a person reads it, without characters that steer a terminal."""
    return text.escape_json(json.dumps(data, indent=indent, ensure_ascii=False))


def to_yaml(data: Any) -> str:
    """The same data as YAML."""
    # Imported here: only a command that prints YAML waits for its writer.
    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.allow_unicode = text.is_plain(json.dumps(data, ensure_ascii=False))
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    written = io.StringIO()
    writer.dump(data, written)
    return written.getvalue()


def echo_document(document: str) -> None:
    """A document byte for byte; escaped when a terminal shows it."""
    click.echo(text.escape_lines(document) if sys.stdout.isatty() else document, nl=False)


def words(sentence: str) -> None:
    """A sentence for the person, on stderr."""
    click.echo(text.escape_lines(sentence), err=True)


class Table:
    """Rows under headings without lines, in the way of ``ps``."""

    def __init__(self, *columns: str) -> None:
        self._rows: list[tuple[str, ...]] = [columns]

    def row(self, *cells: object) -> None:
        """Adds a row; ``None`` and an empty text are shown as a dash."""
        self._rows.append(tuple("-" if cell is None or cell == "" else str(cell) for cell in cells))

    def lines(self) -> Lines:
        """The headings and the rows, in columns that are as wide as their widest cell."""
        widths = [max(_width(row[at]) for row in self._rows) for at in range(len(self._rows[0]))]
        drawn = [
            "  ".join(_filled(cell, to) for cell, to in zip(row, widths, strict=True)) for row in self._rows
        ]
        return [click.style(drawn[0].rstrip(), bold=True), *(line.rstrip() for line in drawn[1:])]


def _filled(cell: str, width: int) -> str:
    return cell + " " * (width - _width(cell))


def _width(cell: str) -> int:
    """The columns a terminal needs for it."""
    if cell.isascii():
        return len(cell)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in cell)
    return len(cell) + wide - sum(unicodedata.combining(letter) != 0 for letter in cell)
