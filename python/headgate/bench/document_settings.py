"""The document whose ``run:`` settings a sweep changes: which version, its settings now, its text with others, and how it is written.

A text with other settings is parsed before it is used, and must say the same as before in everything else: a document is never left
broken, and no other setting is changed. Not here: which settings are tried (``run_settings``). Next: run_settings.py.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from headgate.bench.report.files import write_file
from headgate.bench.run_settings import Choice, choice_of
from headgate.documents import Endpoint, Version
from headgate.documents.faults import did_you_mean
from headgate.documents.model import Run
from headgate.documents.parsing import Kinds, parse_each
from headgate.documents.reading import MAX_BYTES
from headgate.errors import Conflict, InvalidArgument, PolicyInvalid, StorageFailed
from headgate.regular_files import read_regular

_WIDE = 4096
"""The width of a line that the writer does not break."""

_BOM = "\ufeff"
_LIST_ITEM = re.compile(r"- ")
_OPENED = re.compile(r"\S.*:(\s*[&!]\S+)*\s*(#.*)?\Z")
"""A line behind whose key a block follows."""

_WRITTEN = ("placement", "instances", "threads", "max_batch", "max_delay")
"""The settings of ``run:`` that a choice decides; all others stay."""


@dataclass(frozen=True)
class DocumentSettings:
    """One version of an endpoint in a file. ``text`` is the whole file as it was read."""

    path: Path
    text: str
    endpoint: Endpoint
    version: str

    @property
    def present(self) -> Choice:
        """The settings as the document has them."""
        return choice_of(self.endpoint.versions[self.version].run)

    def with_choice(self, choice: Choice) -> str:
        """The text with these settings, comments and order kept; :class:`InvalidArgument` if the file cannot be rewritten so."""
        try:
            after = patched(self.text, self.endpoint.name, self.version, choice)
            endpoint = _endpoint(after, self.path, self.endpoint.name)
        except PolicyInvalid as error:
            raise InvalidArgument(
                f"{self.path} cannot have the settings {choice}: {error.message}; write them by hand"
            ) from None
        if _without_choice(endpoint, self.version) != _without_choice(self.endpoint, self.version) or (
            choice_of(endpoint.versions[self.version].run) != choice
        ):
            raise InvalidArgument(
                f"{self.path} cannot be rewritten so that only the settings of version {self.version} change; write them by hand: {choice}"
            )
        return after

    def patch(self, choice: Choice) -> str:
        """The difference that the settings make, as ``patch -p0`` takes it; an empty text if there is none."""
        return difference(self.text, self.with_choice(choice), str(self.path))

    def write(self, choice: Choice) -> None:
        """Puts the text with these settings into the place of the file, in one step.

        :class:`Conflict` if the file says something else by now, :class:`StorageFailed` if it cannot be written.
        """
        place = self.path.resolve()
        after = self.with_choice(choice)
        if _read(place) != self.text:
            raise Conflict(
                f"{self.path} was changed meanwhile and stays as it is; the patch is in the result"
            )
        try:
            before = place.stat()
        except OSError as error:
            raise StorageFailed(f"{self.path} could not be written: {error.strerror or error}") from error
        write_file(place, after, mode=stat.S_IMODE(before.st_mode))
        # The file of another user stays theirs, if this user may give it back.
        with contextlib.suppress(OSError):
            os.chown(place, before.st_uid, before.st_gid)


def read_settings(path: Path, endpoint: str, version: str | None) -> DocumentSettings:
    """The version of the endpoint in the document at ``path``, the champion if none is named.

    :class:`InvalidArgument` if there is none whose settings a sweep could change, :class:`PolicyInvalid` for a document with faults.
    """
    text = _read(path)
    found = _endpoint(text, path, endpoint)
    named = version or found.traffic.champion
    if named not in found.versions:
        hint = did_you_mean(named, list(found.versions))
        raise InvalidArgument(f"{path}: the endpoint {endpoint} has no version {named}; {hint}")
    _check_runs(found.versions[named], f"{path}: version {named} of {endpoint}")
    return DocumentSettings(path, text, found, named)


def _check_runs(version: Version, what: str) -> None:
    if version.model is None:
        raise InvalidArgument(f"{what} is a constant answer, and has no settings of a run")
    devices = (version.run or Run.model_validate({})).device
    if devices != ("cpu",):
        raise InvalidArgument(
            f"{what} runs on {', '.join(devices)}: settings are simulated for processors only"
        )


def _read(path: Path) -> str:
    try:
        return read_regular(path, MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path} is not UTF-8 at byte {error.start}") from None


def _endpoint(text: str, path: Path, name: str) -> Endpoint:
    """The endpoint of that name in a file without faults."""
    parsed = parse_each(text.encode("utf-8"), source=str(path), root=path.absolute().parent, kinds=Kinds.ALL)
    if parsed.refused is not None:
        raise parsed.refused
    names = [one.name for one in parsed.documents]
    found = next((one.endpoint for one in parsed.documents if one.name == name), None)
    if found is None:
        hint = did_you_mean(name, names) if names else "it has no endpoint"
        raise InvalidArgument(f"{path} has no endpoint {name}; {hint}")
    return found


def _without_choice(endpoint: Endpoint, version: str) -> Any:
    """All that an endpoint says but the settings that a choice decides; buckets follow from the batch."""
    said = endpoint.model_dump(mode="python")
    run = said["versions"][version].get("run")
    if run is not None:
        left = {name: value for name, value in run.items() if name not in (*_WRITTEN, "buckets")}
        said["versions"][version]["run"] = left
    else:
        unwritten = Run.model_validate({}).model_dump(mode="python")
        said["versions"][version]["run"] = {
            name: value for name, value in unwritten.items() if name not in (*_WRITTEN, "buckets")
        }
    return said


# === the text ===


def patched(document: str, endpoint: str, version: str, choice: Choice) -> str:
    """The text of the document with these settings, comments and order kept.

    :class:`InvalidArgument` if it has no such endpoint or version, or cannot be rewritten.
    """
    bom = _BOM if document.startswith(_BOM) else ""
    windows = "\r\n" in document
    text = document.removeprefix(_BOM).replace("\r\n", "\n")
    after = _patched_json(text, endpoint, version, choice)
    if after is None:
        after = _patched_yaml(text, endpoint, version, choice)
    return bom + (after.replace("\n", "\r\n") if windows else after)


def _patched_json(text: str, endpoint: str, version: str, choice: Choice) -> str | None:
    """A document in JSON stays JSON; None if it is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    _change([document], endpoint, version, choice)
    second = text.splitlines()[1] if "\n" in text.strip() else ""
    indent = len(second) - len(second.lstrip(" ")) or None
    return json.dumps(document, indent=indent, ensure_ascii=False) + ("\n" if text.endswith("\n") else "")


def _patched_yaml(text: str, endpoint: str, version: str, choice: Choice) -> str:
    writer = _yaml(text)
    try:
        parts: list[Any] = list(writer.load_all(text))
        _change(parts, endpoint, version, choice)
        out = io.StringIO()
        writer.dump_all(parts, out)
    except YAMLError as error:
        raise InvalidArgument(f"the document cannot be rewritten: {error}") from None
    return out.getvalue()


def _change(parts: list[Any], endpoint: str, version: str, choice: Choice) -> None:
    found = [part for part in parts if isinstance(part, dict) and str(part.get("name")) == endpoint]
    found = [part for part in found if part.get("kind") == "Endpoint"]
    if len(found) != 1 or not isinstance(found[0].get("versions"), dict):
        raise InvalidArgument(f"the document has no endpoint {endpoint} whose settings could be changed")
    versions = found[0]["versions"]
    key = next((key for key in versions if str(key) == version), None)
    if key is None:
        raise InvalidArgument(f"the endpoint {endpoint} of the document has no version {version}")
    if not isinstance(versions[key], dict):
        versions[key] = _mapping({"model": versions[key]})
    elif _shared(versions[key]):
        versions[key] = _mapping(versions[key])
    _set_run(versions[key], choice)


def _set_run(version: dict[str, Any], choice: Choice) -> None:
    run = version.get("run")
    if not isinstance(run, dict) or _shared(run):
        run = _mapping(run if isinstance(run, dict) else {})
    for name in _WRITTEN:
        run.pop(name, None)
    if run.get("buckets") is not None and (choice.max_batch == 1 or run["buckets"][-1] != choice.max_batch):
        run.pop("buckets")
    run.update(choice.written)
    if run:
        version["run"] = run
    else:
        version.pop("run", None)


def _shared(value: Any) -> bool:
    """Whether another place of the document may name it, so that a change here would be one there."""
    return isinstance(value, CommentedMap) and value.anchor.value is not None


def _mapping(values: dict[str, Any]) -> CommentedMap:
    """One that stands in its line: settings are short."""
    made = CommentedMap(values)
    made.fa.set_flow_style()
    return made


def difference(before: str, after: str, name: str) -> str:
    """A unified diff that ``patch -p0`` takes; an empty text if nothing differs."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), fromfile=name, tofile=name
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _yaml(text: str) -> YAML:
    """A writer that indents as the text does, so that no other line changes."""
    writer = YAML(typ="rt")
    writer.preserve_quotes = True
    writer.width = _WIDE
    mapping, offset = _indents(text)
    writer.indent(mapping=mapping, sequence=offset + 2, offset=offset)
    return writer


def _indents(text: str) -> tuple[int, int]:
    """How far mappings and the dashes of lists stand behind their key: the first of each counts."""
    mapping = offset = None
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line, after in itertools.pairwise(lines):
        if not _OPENED.match(line.strip()) or _LIST_ITEM.match(line.strip()):
            continue
        further = _indent(after) - _indent(line)
        if _LIST_ITEM.match(after.strip()):
            offset = max(further, 0) if offset is None else offset
        elif further > 0 and mapping is None:
            mapping = further
    return mapping or 2, offset or 0


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
