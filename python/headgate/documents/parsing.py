"""Documents from bytes: syntax, rules and files, with every fault of every document at once.

Next: ``locating``, the files that they refer to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from headgate.documents import checks, faults, files, nodes, reading, traffic_rules
from headgate.documents.defaults import Defaults
from headgate.documents.faults import Fault, format_path, policy_invalid
from headgate.documents.model import Endpoint
from headgate.documents.nodes import Node, describe
from headgate.documents.rollout import RolloutPlan
from headgate.documents.values import is_name
from headgate.errors import PolicyInvalid


@dataclass(frozen=True, slots=True)
class Document:
    """One validated document and where it came from.

    ``raw`` are its exact bytes (of a file with several documents: its part), which parse alone to the same
    endpoint; ``digest`` is ``sha256:`` and the hex digest of ``raw``; ``source`` is a name for messages;
    ``file:`` references resolve below ``root``.
    """

    endpoint: Endpoint
    raw: bytes
    digest: str
    source: str
    root: Path

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.endpoint.name

    @property
    def warnings(self) -> list[Fault]:
        """What is allowed and probably not meant."""
        return traffic_rules.unreachable(self.endpoint.traffic.rules)


@dataclass(frozen=True, slots=True)
class OtherDocument:
    """One validated document that describes no endpoint; the fields as for :class:`Document`."""

    content: RolloutPlan | Defaults
    raw: bytes
    digest: str
    source: str

    @property
    def kind(self) -> str:
        """``RolloutPlan`` or ``Defaults``."""
        return self.content.kind

    @property
    def name(self) -> str:
        """The plan's name; empty for ``Defaults``, of which there is one."""
        return self.content.name if isinstance(self.content, RolloutPlan) else ""


class Kinds(Enum):
    """Which documents are expected."""

    ENDPOINTS = "endpoints"
    """Every other kind is a fault: its reader would lose it."""

    ALL = "all"


class Files(Enum):
    """Whether ``file:`` references are followed while parsing."""

    FOLLOWED = "followed"
    """They must lead below the root, symbolic links included."""

    IGNORED = "ignored"
    """Their syntax alone counts: the document was accepted before, and its artifacts are in the store."""


def parse(data: bytes, *, source: str, root: Path, follow: Files = Files.FOLLOWED) -> list[Document]:
    """Every document of ``data`` (YAML 1.2 or JSON, UTF-8), in order.

    ``source`` names the data in messages; ``file:`` references resolve below ``root`` and need not exist yet.
    Raises ``PolicyInvalid`` with ``detail["faults"]``, a list of ``{"path", "line", "message"}`` of all
    documents.
    """
    parsed = parse_each(data, source=source, root=root, follow=follow)
    if parsed.refused is not None:
        raise parsed.refused
    return parsed.documents


@dataclass(frozen=True)
class Parsed:
    """What came of the documents of one file."""

    documents: list[Document]
    """Those without a fault, in order."""
    refused: PolicyInvalid | None
    """The faults of the others, as :func:`parse` raises them."""
    refused_names: tuple[str, ...] = ()
    """The endpoints of the others, as far as they have a name."""
    others: tuple[OtherDocument, ...] = ()
    """Those without a fault that describe no endpoint, in order."""


def parse_each(
    data: bytes,
    *,
    source: str,
    root: Path,
    follow: Files = Files.FOLLOWED,
    kinds: Kinds = Kinds.ENDPOINTS,
) -> Parsed:
    """As :func:`parse`, with the documents that are sound beside those that are not.

    Raises ``PolicyInvalid`` for what is no YAML: nothing tells where its next document begins.
    """
    found: list[Fault] = []
    documents: list[Document] = []
    others: list[OtherDocument] = []
    names: list[str] = []
    pieces = reading.read(data, source)
    seen: dict[tuple[str, str], int | None] = {}
    for piece in pieces:
        collector = Collector(piece.root, data)
        content = _content(piece.root, root, follow, kinds, collector)
        if content is not None:
            _once(content, piece.root, seen, collector)
        faulty = list(collector.faults())
        if content is not None and not faulty:
            digest = "sha256:" + hashlib.sha256(piece.raw).hexdigest()
            if isinstance(content, Endpoint):
                documents.append(Document(content, piece.raw, digest, source, root))
            else:
                others.append(OtherDocument(content, piece.raw, digest, source))
        found.extend(faulty)
        if faulty and (name := _name_of(piece.root)) is not None:
            names.append(name)
    refused = policy_invalid(source, found) if found else None
    return Parsed(documents, refused, tuple(names), tuple(others))


def _once(
    content: Endpoint | RolloutPlan | Defaults,
    root: Node,
    seen: dict[tuple[str, str], int | None],
    collector: Collector,
) -> None:
    """A name is described once in a file, for each kind."""
    name = "" if isinstance(content, Defaults) else content.name
    path = ("kind",) if isinstance(content, Defaults) else ("name",)
    key = (content.kind, name)
    if key in seen:
        what = faults.quoted(name) if name else "kind Defaults"
        said = f"{what} is described twice in this file; the first is at line {seen[key]}"
        collector.report(path, said)
    seen.setdefault(key, nodes.line_of(root, path))


def parse_one(data: bytes, *, source: str, root: Path, follow: Files = Files.FOLLOWED) -> Document:
    """The only document of ``data``; ``PolicyInvalid`` when it holds several, and as :func:`parse` otherwise."""
    documents = parse(data, source=source, root=root, follow=follow)
    if len(documents) > 1:
        names = ", ".join(document.name for document in documents[:10])
        fault = Fault("", None, f"holds {len(documents)} documents ({names}); one is expected here")
        raise policy_invalid(source, [fault])
    return documents[0]


class Collector:
    """Gathers the faults of one document and finds their lines at the end."""

    def __init__(self, root: Node, data: bytes) -> None:
        """``data`` are the bytes that ``root`` was read from."""
        self._root = root
        self._data = data
        self._found: list[tuple[faults.Path, str]] = []

    def report(self, path: faults.Path, message: str) -> None:
        """Adds a fault, once."""
        if (path, message) not in self._found and len(self._found) <= faults.MAX_FAULTS:
            self._found.append((path, message))

    def faults(self) -> list[Fault]:
        """What was reported, by line."""
        if not self._found:
            return []
        root: Node | None = self._root
        if self._root.line is None:
            root = reading.lines_of(self._data)
        located = [
            Fault(format_path(path), nodes.line_of(root, path) if root is not None else None, message)
            for path, message in self._found
        ]
        return sorted(located, key=lambda fault: fault.line or 0)


def _name_of(root: Node) -> str | None:
    """The name that a document gives its endpoint, whatever else is wrong with it."""
    for key, value in root.entries if isinstance(root, nodes.Mapping) else ():
        if isinstance(key, nodes.Scalar) and key.value == "name" and isinstance(value, nodes.Scalar):
            return value.value if isinstance(value.value, str) and is_name(value.value) else None
    return None


def _content(
    root_node: Node, root: Path, follow: Files, kinds: Kinds, collector: Collector
) -> Endpoint | RolloutPlan | Defaults | None:
    if not isinstance(root_node, nodes.Mapping):
        value = root_node.value if isinstance(root_node, nodes.Scalar) else ()
        collector.report(
            (), f"a document must be a mapping with apiVersion, kind and name, not {describe(value)}"
        )
        return None
    data = nodes.plain(root_node, (), collector.report)
    kind = checks.kind_of(data, collector.report)
    if kind is None:
        return None
    if kind != "Endpoint" and kinds is Kinds.ENDPOINTS:
        collector.report(("kind",), f"a document of kind Endpoint is expected here, not {kind}")
        return None
    content = checks.validate(kind, data, collector.report)
    if kind == "Endpoint" and follow is Files.FOLLOWED:
        for path, reference in _references(data):
            try:
                files.check_reference(reference)
            except ValueError:
                continue  # reported with its path as a fault of the field itself
            try:
                files.locate(reference, root)
            except ValueError as error:
                collector.report(path, str(error))
    return content


def _references(data: dict[str, object]) -> list[tuple[faults.Path, str]]:
    """Every ``file:`` reference of a document whose other parts may be wrong."""
    out: list[tuple[faults.Path, str]] = []
    versions, drift = data.get("versions"), data.get("drift")
    for name, version in versions.items() if isinstance(versions, dict) else ():
        model = version.get("model") if isinstance(version, dict) else version
        if isinstance(model, str):
            out.append((("versions", name, "model"), model))
    baseline = drift.get("baseline") if isinstance(drift, dict) else None
    if isinstance(baseline, str):
        out.append((("drift", "baseline"), baseline))
    return out
