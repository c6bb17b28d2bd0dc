"""All files of a report in a folder, each written beside its place and renamed, so that none is ever half there."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from headgate.bench.report import csv_files, hlog
from headgate.bench.report.page import page
from headgate.bench.results import Result
from headgate.errors import StorageFailed

_MODE = 0o644


def write_all(result: Result, folder: Path, *, pages: bool = True, tables: bool = True) -> list[Path]:
    """``result.json``, ``report.html``, ``windows.csv``, ``probes.csv``, ``latency.hlog``, ``scenario.yaml``; the paths in that order.

    ``pages`` and ``tables`` leave the HTML and the CSV files out. The result comes first: if the disk is full, it is what is kept.
    :class:`StorageFailed` names the file that could not be written.
    """
    contents = [
        ("result.json", json.dumps(result.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    ]
    contents.append(("scenario.yaml", _yaml(result)))
    if pages:
        contents.append(("report.html", page(result)))
    if tables:
        contents += [("windows.csv", csv_files.windows(result)), ("probes.csv", csv_files.probes(result))]
    contents.append(("latency.hlog", hlog.log(result)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"the folder {folder} cannot be made: {error.strerror}") from error
    return [write_file(folder / name, content) for name, content in contents]


def write_file(path: Path, content: str, *, mode: int = _MODE) -> Path:
    """Writes beside ``path`` and renames; what was there stays if it fails, which is :class:`StorageFailed`."""
    beside = None
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except OSError as error:
        if beside is not None:
            with contextlib.suppress(OSError):
                Path(beside).unlink()
        raise StorageFailed(f"{path} could not be written: {error.strerror or error}") from error
    return path


def _yaml(result: Result) -> str:
    # Imported here: reading a result needs no writer of YAML.
    import io

    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = io.StringIO()
    writer.dump(result.scenario, out)
    return out.getvalue()
