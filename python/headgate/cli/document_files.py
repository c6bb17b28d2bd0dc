"""The documents that a command was given: files, several to each, or stdin. Next: documents.py, the commands."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from headgate.documents import Document, Kinds, OtherDocument, Parsed, parse_each
from headgate.errors import InvalidArgument

_STDIN = Path("-")


@dataclass(frozen=True)
class ReadDocument:
    """One document and the file it came from."""

    path: Path
    document: Document

    @property
    def source(self) -> dict[str, str]:
        """The path as the query of a write; only of a document with files: others may come from anywhere."""
        return (
            {"source": str(self.path.absolute())} if self.path != _STDIN and _has_files(self.document) else {}
        )


def file_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``FILE...`` and ``-f FILE``; the command gets both as ``files``. ``-`` is stdin."""
    path = click.Path(path_type=Path, dir_okay=False, allow_dash=True)

    @click.argument("files", nargs=-1, metavar="[FILE]...", type=path)
    @click.option(
        "-f", "--file", "more", multiple=True, metavar="FILE", type=path, help="The same as FILE; - is stdin."
    )
    def wrapped(*given: Any, files: tuple[Path, ...], more: tuple[Path, ...], **rest: Any) -> Any:
        return command(*given, files=(*files, *more), **rest)

    made = functools.update_wrapper(wrapped, command, updated=())
    made.__click_params__ = [*getattr(command, "__click_params__", []), *made.__click_params__]  # type: ignore[attr-defined]
    return made


@dataclass(frozen=True)
class ReadFiles:
    """The documents of several files: those of endpoints in order, and the others, plans before the defaults that may name one."""

    endpoints: list[ReadDocument]
    others: list[OtherDocument]

    def dry(self, other: OtherDocument | None = None) -> dict[str, str]:
        """The query of a dry run of ``other``, or of an endpoint. It takes it that the plans of the same files are stored: what may name
        one finds it, and a plan is refused if there is no room for all of them.
        """
        plans = [one.name for one in self.others if one.kind == "RolloutPlan" and one is not other]
        return {"dry_run": "true"} | ({"with_plans": ",".join(plans)} if plans else {})


def read_all(files: Sequence[Path], root: Path | None) -> ReadFiles:
    """Every document of every file, all parsed before the first is used: a fault in the last one changes nothing."""
    if not files:
        raise click.UsageError("name at least one file; - is stdin")
    parsed = [(path, parse_file(path, root)) for path in files]
    _check_once(parsed)
    others = [other for _, file in parsed for other in file.others]
    return ReadFiles(
        [ReadDocument(path, document) for path, file in parsed for document in file.documents],
        sorted(others, key=lambda other: other.kind != "RolloutPlan"),
    )


def _check_once(parsed: Sequence[tuple[Path, Parsed]]) -> None:
    """:class:`InvalidArgument` for a name in two files: which of them is wanted cannot be told."""
    known: dict[tuple[str, str], Path] = {}
    for path, file in parsed:
        named = [("Endpoint", one.name) for one in file.documents] + [
            (one.kind, one.name) for one in file.others
        ]
        for kind, name in named:
            before = known.setdefault((kind, name), path)
            if before is not path:
                said = (
                    "the same file is named twice" if before == path else f"it is in {before} and in {path}"
                )
                raise InvalidArgument(f"{f'{kind} {name}'.rstrip()}: {said}; name it once")


def parse_file(path: Path, root: Path | None) -> Parsed:
    """The documents of one file; :class:`~headgate.errors.PolicyInvalid` lists every fault."""
    if path == _STDIN:
        return _parsed(sys.stdin.buffer.read(), "stdin", root or Path.cwd())
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
    return _parsed(data, str(path), root or path.absolute().parent)


def _parsed(data: bytes, source: str, root: Path) -> Parsed:
    parsed = parse_each(data, source=source, root=root, kinds=Kinds.ALL)
    if parsed.refused is not None:
        raise parsed.refused
    return parsed


def _has_files(document: Document) -> bool:
    endpoint = document.endpoint
    models = any(version.model is not None for version in endpoint.versions.values())
    return models or (endpoint.drift is not None and endpoint.drift.baseline is not None)
