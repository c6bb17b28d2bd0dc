"""What fields of a scenario say of each other, and the forms of its values. Next: ``scenario``."""

from __future__ import annotations

import re
from typing import Any

from headgate.bench import slo
from headgate.documents.faults import quoted
from headgate.documents.nodes import Report, WrittenFloat, WrittenInt, describe
from headgate.documents.values import SLOTS, format_weight, parse_weight

MOST_INCREASE = 10.0
_PLAIN_NUMBER = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,9})? ?\Z")

FILE_SUFFIXES = (".json", ".jsonl", ".ndjson", ".npy", ".npz", ".parquet")
"""Files that requests are read from."""


def data_source(text: str) -> str:
    """``synthetic``, ``file:PATH``, ``capture`` or ``capture:FOLDER``; ``ValueError`` otherwise."""
    kind, colon, path = text.partition(":")
    if text in ("synthetic", "capture"):
        return text
    if kind == "capture" and path:
        return text
    if kind == "file" and path:
        if not path.lower().endswith(FILE_SUFFIXES):
            raise ValueError(
                f"{quoted(path)} is no file of requests: it must end in {', '.join(FILE_SUFFIXES)}"
            )
        return text
    if colon or not path:
        raise ValueError(
            f"{quoted(text)} is not known: write synthetic, file:PATH, capture or capture:FOLDER"
        )
    return text


def fraction(text: str) -> float:
    """A share such as ``5%`` as a number; ``ValueError`` without the percent sign."""
    if text.strip() in ("0", "0%"):
        return 0.0
    return slo.parse_error_share(text)


def increase(text: str) -> float:
    """How much more, such as ``20%`` or ``150%``, as a number; ``ValueError`` without the percent sign, and beyond 1000 %."""
    number, sign, rest = text.strip().partition("%")
    if not sign and number.strip() == "0":
        return 0.0
    if not sign or rest:
        raise ValueError(f'{quoted(text)} needs a percent sign, such as "20%"')
    if not _PLAIN_NUMBER.match(number):
        raise ValueError(f'{quoted(text)} is not a share such as "20%": write 0% to 1000%')
    share = float(number) / 100
    if share > MOST_INCREASE:
        raise ValueError(f"{quoted(text)} is not in range: write 0% to 1000%")
    return share


def rows_of(value: Any, most: int) -> dict[int, int]:
    """``{"1": "90%", "16": "10%"}`` as counts and slots; ``ValueError`` that says which entry is wrong."""
    if not isinstance(value, dict) or not value:
        raise ValueError(f"must be a mapping such as {{1: 90%, 16: 10%}}, not {describe(value)}")
    found: dict[int, int] = {}
    for key, share in value.items():
        if not str(key).isdigit() or not 1 <= int(key) <= most:
            raise ValueError(f"{quoted(str(key))} is no number of rows: write 1 to {most}")
        found[int(key)] = _slots(share, f"the share of {key} rows")
    total = sum(found.values())
    if total != SLOTS:
        raise ValueError(f"the shares add up to {_percent(total)}; they must make 100%")
    return found


def check(known: dict[str, Any], report: Report) -> dict[str, Any]:
    """Reports what fields say against each other; the values, without what was reported here."""
    known = dict(known)
    _mix(known.get("mix"), report)
    if isinstance(known.get("slo"), dict):
        known["slo"] = _objective(known["slo"], report)
        if not known["slo"]:
            del known["slo"]
    if isinstance(known.get("load"), dict):
        _load(known["load"], report)
    if known.get("protocol", "http") != "http" and "tensors" in known:
        report(("tensors",), "is about HTTP; gRPC carries tensors raw. Remove it, or protocol")
    return known


def _objective(written: dict[str, Any], report: Report) -> dict[str, Any]:
    kept = {}
    for key, value in written.items():
        fault = slo.key_fault(key)
        if fault is None:
            kept[key] = value
        else:
            report(("slo", key), fault)
    return kept


def _mix(mix: Any, report: Report) -> None:
    if not isinstance(mix, list | tuple):
        return
    entries = [(at, entry) for at, entry in enumerate(mix) if isinstance(entry, dict)]
    total, whole = 0, True
    for at, entry in entries:
        if "share" not in entry:
            if len(mix) > 1:
                report(("mix", at, "share"), "is required when several endpoints are asked, such as 20%")
            whole = False
            continue
        try:
            total += _slots(entry["share"], "share")
        except ValueError:
            whole = False  # reported with its path when the field itself is validated
    if entries and whole and total != SLOTS:
        report(("mix",), f"the shares add up to {_percent(total)}; they must make 100%")


def _load(load: dict[str, Any], report: Report) -> None:
    if "clients" in load:
        for key in ("stages", "arrivals", "cv"):
            if key in load:
                report(("load", key), "is about an open loop; remove it, or clients")
        if "for" not in load:
            report(("load", "for"), "is required with clients: how long they ask, such as 30s")
    elif "for" in load:
        report(("load", "for"), "is about clients; a stage has a time of its own")
    arrivals = load.get("arrivals", "poisson")
    if "cv" in load and arrivals != "gamma":
        report(("load", "cv"), "is for arrivals: gamma")
    if arrivals == "gamma" and "cv" not in load:
        report(("load", "cv"), "is required for arrivals: gamma, such as 2.0")
    if "speed" in load and arrivals != "trace":
        report(("load", "speed"), "is for arrivals: trace")
    if arrivals == "trace" and "stages" in load:
        report(("load", "stages"), "are given by the captured times; remove them, or arrivals")
    stages = load.get("stages")
    for at, stage in enumerate(stages if isinstance(stages, list | tuple) else ()):
        if isinstance(stage, dict) and len(stage.keys() & {"rate", "ramp"}) != 1:
            report(("load", "stages", at), "must have either a rate that is held or a ramp to a rate")


def _slots(share: Any, what: str) -> int:
    if isinstance(share, WrittenInt | WrittenFloat):
        return parse_weight(share.text)
    if not isinstance(share, str):
        raise ValueError(f"{what} must be a share such as 90%, not {describe(share)}")
    return parse_weight(share)


def _percent(slots: int) -> str:
    return format_weight(slots) if slots <= SLOTS else f"{slots / 100:g}%"
