"""The folder of ``--out``: the result, its tables, and the scenario that repeats it. No payload of a request is in it.

Not here: the page and the histograms' files (``report``). Next: ``results``.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from headgate.bench.live import PHASES
from headgate.bench.results import Answer, Result
from headgate.errors import StorageFailed

_QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_ANSWER_COLUMNS = (
    ["offered_per_second", "good_per_second", "due", "sent", "good", "shed", "failed", "timed_out", "unsent"]
    + [f"p{quantile * 100:g}_{end}" for quantile in _QUANTILES for end in ("ns", "low_ns", "high_ns")]
    + ["p99_censored", "service_p50_ns", "service_p99_ns", "lateness_p99_ns"]
    + [f"{phase}_mean_ns" for phase in (*PHASES, "total", "outside")]
)


def prepare(folder: Path) -> None:
    """Makes the folder; :class:`StorageFailed` if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise _failed(folder, error) from None


def keep(result: Result, folder: Path) -> None:
    """Writes all files; :class:`StorageFailed` if the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result.as_json(), indent=1, ensure_ascii=False)
        (folder / "result.json").write_text(text + "\n", encoding="utf-8")
        (folder / "scenario.yaml").write_text(_yaml(result.scenario), encoding="utf-8")
        (folder / "windows.csv").write_text(_table(_windows(result)), encoding="utf-8")
        (folder / "probes.csv").write_text(_table(_probes(result)), encoding="utf-8")
        if importlib.util.find_spec("headgate.bench.report") is not None:
            report = importlib.import_module("headgate.bench.report")
            report.write_all(result, folder)
    except OSError as error:
        raise _failed(folder, error) from None


def _failed(folder: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"the result could not be kept in {folder}: {error.strerror or error}")


def _yaml(scenario: object) -> str:
    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.allow_unicode = True
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    written = io.StringIO()
    writer.dump(scenario, written)
    return written.getvalue()


def _table(rows: Iterable[list[object]]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(
        ["" if cell is None else cell for cell in row] for row in rows
    )
    return written.getvalue()


def _windows(result: Result) -> Iterator[list[object]]:
    yield ["name", "rate", "clients", "for_ns", *_ANSWER_COLUMNS]
    for one in result.windows:
        yield [one.name, one.rate, one.clients, one.for_ns, *_cells(one.answer)]


def _probes(result: Result) -> Iterator[list[object]]:
    yield ["rate", "verdict", "confirming", "from_ns", *_ANSWER_COLUMNS]
    for one in result.probes:
        yield [one.rate, one.verdict, one.confirming, one.from_ns, *_cells(one.answer)]


def _cells(answer: Answer) -> Iterator[object]:
    counts = answer.counts
    yield from (answer.offered_per_second, answer.good_per_second)
    yield from (
        counts.due,
        counts.sent,
        counts.good,
        counts.shed,
        counts.failed,
        counts.timed_out,
        counts.unsent,
    )
    for quantile in _QUANTILES:
        found = answer.response.quantile(quantile)
        yield from (None, None, None) if found is None else (found.value_ns, found.low_ns, found.high_ns)
    p99 = answer.response.quantile(0.99)
    yield None if p99 is None else p99.censored
    for quantile in (0.5, 0.99):
        found = answer.service.quantile(quantile)
        yield None if found is None else found.value_ns
    yield answer.lateness.p99_ns
    for phase in (*PHASES, "total", "outside"):
        yield getattr(answer.phases, phase).mean_ns
