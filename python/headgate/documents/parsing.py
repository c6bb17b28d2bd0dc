"""Documents from bytes: syntax, rules and files, with every fault of every document at once.

Next: ``locating``, the files that they refer to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from headgate.documents import checks, faults, files, nodes, reading, traffic_rules
from headgate.documents.faults import Fault, format_path, policy_invalid
from headgate.documents.model import Endpoint
from headgate.documents.nodes import Node, describe
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


def parse_each(data: bytes, *, source: str, root: Path, follow: Files = Files.FOLLOWED) -> Parsed:
    """As :func:`parse`, with the documents that are sound beside those that are not.

    Raises ``PolicyInvalid`` for what is no YAML: nothing tells where its next document begins.
    """
    found: list[Fault] = []
    documents: list[Document] = []
    names: list[str] = []
    pieces = reading.read(data, source)
    seen: dict[str, int | None] = {}
    for piece in pieces:
        collector = Collector(piece.root, data)
        endpoint = _endpoint(piece.root, root, follow, collector)
        if endpoint is not None:
            if endpoint.name in seen:
                line = seen[endpoint.name]
                collector.report(
                    ("name",),
                    f"{faults.quoted(endpoint.name)} is described twice in this file; "
                    f"the first is at line {line}",
                )
            seen.setdefault(endpoint.name, nodes.line_of(piece.root, ("name",)))
        faulty = list(collector.faults())
        if endpoint is not None and not faulty:
            digest = "sha256:" + hashlib.sha256(piece.raw).hexdigest()
            documents.append(Document(endpoint, piece.raw, digest, source, root))
        found.extend(faulty)
        if faulty and (name := _name_of(piece.root)) is not None:
            names.append(name)
    return Parsed(documents, policy_invalid(source, found) if found else None, tuple(names))


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


def _endpoint(root_node: Node, root: Path, follow: Files, collector: Collector) -> Endpoint | None:
    if not isinstance(root_node, nodes.Mapping):
        value = root_node.value if isinstance(root_node, nodes.Scalar) else ()
        collector.report(
            (), f"a document must be a mapping with apiVersion, kind and name, not {describe(value)}"
        )
        return None
    data = nodes.plain(root_node, (), collector.report)
    if not checks.is_endpoint(data, collector.report):
        return None
    endpoint = checks.validate(data, collector.report)
    if follow is Files.FOLLOWED:
        for path, reference in _references(data):
            try:
                files.check_reference(reference)
            except ValueError:
                continue  # reported with its path as a fault of the field itself
            try:
                files.locate(reference, root)
            except ValueError as error:
                collector.report(path, str(error))
    return endpoint


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
