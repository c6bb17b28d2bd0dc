"""The rules of a document beyond single fields: known keys, required keys, and what fields say of each other.

Every rule reports and goes on, so that one pass finds every fault. Next: ``parsing``.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from headgate.documents import rollout_rules, traffic_rules
from headgate.documents.defaults import Defaults
from headgate.documents.faults import MAX_FAULTS, Path, did_you_mean, nearest, quoted
from headgate.documents.model import API_VERSION, Endpoint, Version
from headgate.documents.nodes import Report, WrittenInt, describe
from headgate.documents.part import FORMS, Part
from headgate.documents.rollout import RolloutPlan
from headgate.documents.values import SLOTS, format_weight, parse_weight

MODELS: dict[str, type[Endpoint] | type[RolloutPlan] | type[Defaults]] = {
    "Endpoint": Endpoint,
    "RolloutPlan": RolloutPlan,
    "Defaults": Defaults,
}
"""The model of each kind."""

_MAX_HINTS = 10
"""Hints on names that are not versions, in each document."""

_REQUIRED: dict[tuple[str, Path], str] = {
    ("Endpoint", ("name",)): "is required: the name that clients call",
    ("Endpoint", ("versions",)): 'is required: at least one version, such as {v1: "file:models/digits/1"}',
    ("Endpoint", ("traffic",)): "is required: {champion: <version>}",
    (
        "Endpoint",
        ("traffic", "champion"),
    ): "is required: the version that takes all traffic not given away; it is never guessed",
    ("RolloutPlan", ("name",)): "is required: what rollout: of an endpoint, and --plan, call it",
    (
        "RolloutPlan",
        ("steps",),
    ): "is required: such as [{shadow: 10%, for: 1h}, {weight: 5%, for: 1h}, promote]",
}


def kinds() -> list[str]:
    """The kinds of documents."""
    return list(MODELS)


def kind_of(data: Mapping[str, Any], report: Report) -> str | None:
    """The kind of a document, ``Endpoint`` if it forgot to say; None after it was reported as one that is not read."""
    kind = data.get("kind", "Endpoint")
    if not isinstance(kind, str):
        report(("kind",), f"must be a string, not {describe(kind)}")
    elif kind not in MODELS:
        report(("kind",), f"kind {quoted(kind)} is not known; {did_you_mean(kind, kinds())}")
    else:
        return str(kind)
    return None


def validate(kind: str, data: dict[str, Any], report: Report) -> Endpoint | RolloutPlan | Defaults | None:
    """What ``data`` (plain values) of that kind describes, or None after every fault was reported."""
    faults = 0

    def count(path: Path, message: str) -> None:
        nonlocal faults
        faults += 1
        report(path, message)

    model = MODELS[kind]
    known = known_only(model, data, _HOMES if kind == "Endpoint" else {}, count)
    if kind == "RolloutPlan":
        rollout_rules.check_plan(known, count)
    else:
        _rules_between(known, data, count)
    try:
        found = model.model_validate(known)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            count(*_worded_of(detail, kind))
        return None
    return found if faults == 0 else None


# === known keys ===


def known_only(
    model: type[Part], data: dict[str, Any], homes: Mapping[str, str], report: Report
) -> dict[str, Any]:
    """``data`` without the keys that ``model`` does not have, each of them reported; for documents of any kind. ``homes`` says where
    fields that are not at the top live (:func:`homes`).
    """
    return _KnownKeys(homes, report).of(model, data, ())


class _KnownKeys:
    """Walks values and models side by side."""

    def __init__(self, homes: Mapping[str, str], report: Report) -> None:
        self._homes = homes
        self._report = report

    def of(self, model: type[Part], data: dict[str, Any], path: Path) -> dict[str, Any]:
        fields = {
            info.alias or name: info.annotation
            for name, info in model.model_fields.items()
            if name not in model.not_yet
        }
        out: dict[str, Any] = {}
        unknown = 0
        for key, value in data.items():
            here = (*path, key)
            if key in model.not_yet:
                self._report(here, "is not supported yet; remove it")
            elif key not in fields:
                unknown += 1
                # A hint costs a search; beyond what is listed nobody would read it.
                hint = unknown <= MAX_FAULTS
                message = _unknown(key, list(fields), self._homes) if hint else "is not known here"
                self._report(here, message)
            else:
                out[key] = self._inner(fields[key], value, here)
        return out

    def _inner(self, annotation: Any, value: Any, path: Path) -> Any:
        if isinstance(value, list | tuple):
            part = _item_of(annotation)
            if part is None:
                return value
            return tuple(self._inner(part, item, (*path, at)) for at, item in enumerate(value))
        if not isinstance(value, dict):
            return value
        part = _part_of(annotation)
        if part is not None:
            return self.of(part, value, path)
        each = _each_of(annotation)
        if each is not None:
            return {k: self._inner(each, v, (*path, k)) for k, v in value.items()}
        return value


def _unwrapped(annotation: Any) -> Any:
    """The annotation without ``Annotated`` and ``| None``."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(a for a in get_args(annotation) if a is not type(None))
        else:
            return annotation


def _part_of(annotation: Any) -> type[Part] | None:
    inner = _unwrapped(annotation)
    return inner if isinstance(inner, type) and issubclass(inner, Part) else None


def _each_of(annotation: Any) -> type[Part] | None:
    inner = _unwrapped(annotation)
    return _part_of(get_args(inner)[1]) if get_origin(inner) is dict else None


def _item_of(annotation: Any) -> type[Part] | None:
    inner = _unwrapped(annotation)
    return _part_of(get_args(inner)[0]) if get_origin(inner) is tuple else None


def _unknown(key: str, known: list[str], homes: Mapping[str, str]) -> str:
    # Fields that are not built are never named: who wrote one of them then would be told to remove it.
    if nearest(key, known) is None:
        elsewhere = homes.get(key)
        if elsewhere is not None:
            return f"is not known here; {quoted(key)} belongs under {elsewhere}"
    return f"is not known here; {did_you_mean(key, known)}"


def homes(model: type[BaseModel], path: str = "") -> dict[str, str]:
    """Where each field that is not at the top lives, for the hint on a misplaced key."""
    out: dict[str, str] = {}
    for name, info in model.model_fields.items():
        part = _part_of(info.annotation)
        if part is not None:
            here = f"{path}.{name}" if path else name
            out |= dict.fromkeys(part.model_fields, here) | homes(part, here)
    return out


_HOMES = homes(Endpoint)


# === what fields say of each other ===


def _rules_between(known: dict[str, Any], data: dict[str, Any], report: Report) -> None:
    """Works on plain values, whatever else is wrong with them."""
    limits = known.get("limits")
    if isinstance(limits, dict) and isinstance(limits.get("priority"), dict):
        _priority(limits["priority"], report)
    versions = known.get("versions")
    names = _Names(list(versions) if isinstance(versions, dict) else [])
    if isinstance(versions, dict):
        for name in versions:
            _one_source(name, versions[name], data["versions"][name], report)
    traffic_rules.check_redacted(known, report)
    traffic = known.get("traffic")
    if not isinstance(traffic, dict):
        return
    champion = traffic.get("champion")
    if isinstance(champion, WrittenInt):
        champion = champion.text
    if isinstance(champion, str) and (missing := names.missing(champion)):
        report(("traffic", "champion"), missing)
    fallback = traffic.get("fallback")
    if isinstance(fallback, dict) and isinstance(fallback.get("to"), list | tuple):
        _fallback(fallback["to"], names, report)
    weights = traffic.get("weights")
    if isinstance(weights, dict):
        _weights(weights, names, champion, report)
    traffic_rules.check_rules(traffic, names.missing, report)
    traffic_rules.check_shadows(traffic, champion, names.missing, report)


def _one_source(name: str, version: Any, written: Any, report: Report) -> None:
    """A version is a model or a constant, not both and not neither; a constant is not run."""
    if not isinstance(version, dict):
        return
    path = ("versions", name)
    present = sorted(version.keys() & {"model", "constant"})
    if len(present) > 1:
        report(path, f"has {' and '.join(present)}; keep one")
    elif not present and not written.keys() & Version.not_yet:
        report(
            path,
            'names no model and no constant: write "file:<path>" or {constant: {<output>: <value>}}',
        )
    run = version.get("run")
    if run is not None and present == ["constant"]:
        report((*path, "run"), "is for models; a constant is never run")
    if "compatible" in version and present == ["constant"]:
        report((*path, "compatible"), "is for models; a constant has the champion's signature")
    if isinstance(run, dict):
        _run(run, (*path, "run"), report)


def _run(run: dict[str, Any], path: Path, report: Report) -> None:
    """What belongs to batches needs batches, what belongs to devices needs one."""
    devices = run.get("device", "cpu")
    on_device = any(
        device != "cpu" for device in (devices if isinstance(devices, list | tuple) else [devices])
    )
    if on_device and run.get("placement") == "inline":
        report((*path, "placement"), "is inline, and a device has threads of its own; remove it or device")
    if not on_device and "device_memory" in run:
        report((*path, "device_memory"), "is about devices: write device as well")
    max_batch = run.get("max_batch", 1)
    if not isinstance(max_batch, int):
        return
    if max_batch == 1:
        for key in sorted(run.keys() & {"max_delay", "buckets"}):
            report((*path, key), "is about batches: write max_batch as well")
    elif run.get("placement") == "inline":
        report((*path, "placement"), "is inline, where nothing is batched; remove it or max_batch")
    buckets = run.get("buckets")
    if isinstance(buckets, list | tuple) and buckets and max_batch > 1 and buckets[-1] != max_batch:
        report((*path, "buckets"), f"must end with max_batch, which is {int(max_batch)}")


class _Names:
    """The names of the versions; none are known when the versions themselves are wrong."""

    def __init__(self, names: list[str]) -> None:
        self._listed = names
        self._known = frozenset(names)
        self._hints = 0

    def missing(self, name: str) -> str | None:
        """What is wrong with a name that is not among them. The first few get a hint: each costs a search."""
        if not self._known or name in self._known:
            return None
        self._hints += 1
        hint = f"; {did_you_mean(name, self._listed)}" if self._hints <= _MAX_HINTS else ""
        return f"{quoted(name)} is not among the versions{hint}"


def _fallback(to: Any, names: _Names, report: Report) -> None:
    seen = set()
    for at, name in enumerate(to):
        written = name.text if isinstance(name, WrittenInt) else name
        if isinstance(written, str) and (missing := names.missing(written)):
            report(("traffic", "fallback", "to", at), missing)
        if repr(name) in seen:
            report(("traffic", "fallback", "to", at), "is there twice")
        seen.add(repr(name))


def _priority(priority: dict[str, Any], report: Report) -> None:
    classes, unnamed = priority.get("classes"), priority.get("unnamed")
    if not isinstance(classes, list | tuple):
        return
    seen = set()
    for at, name in enumerate(classes):
        if repr(name) in seen:
            report(("limits", "priority", "classes", at), "is there twice")
        seen.add(repr(name))
    if isinstance(unnamed, str) and unnamed not in classes:
        report(("limits", "priority", "unnamed"), f"{quoted(unnamed)} is not among the classes")


def _weights(weights: dict[str, Any], names: _Names, champion: Any, report: Report) -> None:
    total = 0
    for name, weight in weights.items():
        path = ("traffic", "weights", name)
        if missing := names.missing(name):
            report(path, missing)
        if name == champion:
            report(path, "is the champion, which takes what is not given away; remove its weight")
        try:
            total += parse_weight(weight) if isinstance(weight, str) else 0
        except ValueError:
            continue  # reported with its path when the field itself is validated
    if total > SLOTS:
        whole, part = divmod(total, 100)
        excess = format_weight(total - SLOTS) if total <= 2 * SLOTS else "more than 100%"
        report(
            ("traffic", "weights"),
            f"add up to {whole}.{part:02d}%, {excess} too much; at most 100% can be given away",
        )


# === pydantic's findings in our words ===

_NO_SEGMENTS = frozenset({"[key]", *FORMS})


def _worded_of(detail: ErrorDetails, kind: str) -> tuple[Path, str]:
    """As :func:`worded`, with what is particular to a kind."""
    path, message = worded(detail, {where: said for (of, where), said in _REQUIRED.items() if of == kind})
    if detail["type"] == "missing" and path in (("apiVersion",), ("kind",)):
        return path, f'is required: write "{path[0]}: {API_VERSION if path[0] == "apiVersion" else kind}"'
    if detail["type"] in ("greater_than_equal", "less_than_equal") and kind == "RolloutPlan":
        said = detail["msg"].removeprefix("Input should be ")
        return path, f"must be {said}, not {describe(detail.get('input'))}"
    return path, message


def worded(detail: ErrorDetails, required: Mapping[Path, str]) -> tuple[Path, str]:
    """The path and message of one of pydantic's findings; ``required`` says more of fields that are missing."""
    path: Path = tuple(segment for segment in detail["loc"] if segment not in _NO_SEGMENTS)
    value = detail.get("input")
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return path, required.get(path, "is required")
        case "value_error":
            return path, str(context["error"])
        case "literal_error" if path == ("traffic", "fallback"):
            return path, f'must be "none" or a mapping with "to", not {describe(value)}'
        case "literal_error":
            expected = str(context["expected"]).replace("'", '"')
            return path, f"must be {expected}, not {describe(value)}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return path, f"must be a mapping, not {describe(value)}"
        case "tuple_type":
            return path, f"must be a list, not {describe(value)}"
        case "int_type":
            return path, f"must be a whole number, not {describe(value)}"
        case "too_short":
            return path, "is empty; give it at least one entry"
        case "too_long":
            return path, f"has too many entries; at most {context['max_length']} are allowed"
        case _:
            message = detail["msg"]
            return path, message[:1].lower() + message[1:]
