"""The HTML page of a report: one file without scripts and without anything that is loaded from elsewhere.

Every text of a result is escaped. Not here: what the charts show (``charts``), what is said (``reading``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from headgate.bench.rates import format_quantile, shown_rate
from headgate.bench.report import charts, reading
from headgate.bench.report.reading import Load
from headgate.bench.report.style import SHEET
from headgate.bench.report.svg import escape as escape_xml
from headgate.bench.results import Result
from headgate.readable import size

_TITLE_CHARACTERS = 120
_NUMBER_AND_UNIT = re.compile(r"(?<=[0-9≥]) (?=(?:[0-9]|ns|us|ms|s|%)(?![A-Za-z]))")


def escape(text: object) -> str:
    """Escaped text in which no line breaks between a number and its unit."""
    return _NUMBER_AND_UNIT.sub("\u00a0", escape_xml(text))


def page(result: Result) -> str:
    """The whole page."""
    title = f"{reading.subject(result)}: capacity"[:_TITLE_CHARACTERS]
    body = "\n".join(part for part in _sections(result) if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{SHEET}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _sections(result: Result) -> Iterable[str]:
    yield _head(result)
    yield _section("Settings that were measured", _sweep(result), (result.sweep or {}).get("reason", ""))
    yield _section(
        "Rate and response time",
        charts.rate_latency(result),
        "Whiskers are 95 % intervals that allow for requests that depend on each other; one that reaches the top has no upper end yet.",
    )
    yield _section(
        "Where the time goes", charts.phases(result), reading.blame(result) or "", _phase_table(result)
    )
    yield _section(
        "Spectrum",
        charts.spectrum(result),
        "How slow the slowest share of requests is. Requests without a good answer are slower than any: a line ends where they begin.",
    )
    yield _section("Timeline", charts.timeline(result), "")
    yield _section("All loads", _loads_table(result), "")
    yield _section("Plan", _plan(result), "")
    yield _section("What to keep in mind", _list(reading.caveats(result)), "")
    yield _section("Settings", f"<pre>{escape_xml(_written(result.scenario))}</pre>", "")
    yield _section("Server, client and machine", _machine(result), "")


def _section(title: str, shown: str, words: str, more: str = "") -> str:
    """A section; nothing at all without something to show."""
    if not shown and not more:
        return ""
    said = f'<p class="quiet">{escape(words)}</p>' if words else ""
    figure = f"<figure>{shown}</figure>" if shown.startswith("<svg") else shown
    return f"<section><h2>{escape(title)}</h2>{said}{figure}{more}</section>"


def _head(result: Result) -> str:
    tone = {"pass": "good", "fail": "bad", "client_limited": "bad", "unreachable": "bad"}.get(
        result.verdict, ""
    )
    named = f"{result.name}, " if result.name else ""
    return (
        f"<header><h1>headgate bench {escape(result.command)}: {escape(reading.subject(result))}</h1>"
        f'<p class="answer {tone}">{escape(" ".join([reading.answer_sentence(result), *_planned(result)]))}</p>'
        f'<p class="when">{escape(named)}{escape(result.started_at)}, seed {result.seed}</p>{_facts(result)}</header>'
    )


def _planned(result: Result) -> Iterable[str]:
    plan = result.plan or {}
    if plan.get("replicas") is not None and plan.get("target") is not None:
        plural = "s" * (plan["replicas"] != 1)
        spare = f", {plan['spare']} of them spare" if plan.get("spare") else ""
        yield f"{shown_rate(plan['target'])} need {plan['replicas']} replica{plural}{spare}."


def _facts(result: Result) -> str:
    """The few numbers that a reader looks for first."""
    facts: list[tuple[str, str]] = []
    capacity, load = result.capacity, reading.main_load(result)
    if capacity is not None and capacity.passed is not None:
        facts.append(("highest rate that passed", shown_rate(capacity.passed)))
    if capacity is not None and capacity.failed is not None:
        facts.append(("lowest rate that failed", shown_rate(capacity.failed)))
    if capacity is not None:
        said = shown_rate(capacity.confirmed_rate) if capacity.confirmed and capacity.confirmed_rate else "no"
        facts.append(("confirmed by a long run", said))
    if load is not None:
        for quantile in (0.5, 0.99):
            estimate = load.answer.response.quantile(quantile)
            facts.append(
                (f"{format_quantile(quantile)} at {shown_rate(load.rate)}", reading.estimate_words(estimate))
            )
        facts.append(("client late by (p99)", reading.time(load.answer.lateness.p99_ns)))
    if result.plan is not None and result.plan.get("replicas") is not None:
        facts.append(
            (f"replicas for {shown_rate(result.plan.get('target', 0))}", str(result.plan["replicas"]))
        )
    boxes = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{boxes}</dl>' if boxes else ""


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]], words: Sequence[int] = ()
) -> str:
    """A table; ``words`` are the columns of text, and a cell that says pass or fail is coloured."""
    kinds = [' class="words"' if at in words else "" for at in range(len(columns))]
    head = "".join(
        f'<th scope="col"{kind}>{escape(column)}</th>' for kind, column in zip(kinds, columns, strict=True)
    )

    def cell(at: int, value: object) -> str:
        said = escape(value)
        kind = said if said in ("pass", "fail") else "words" if at in words else ""
        return f'<td class="{kind}">{said}</td>' if kind else f"<td>{said}</td>"

    body = "".join(f"<tr>{''.join(cell(at, value) for at, value in enumerate(row))}</tr>" for row in rows)
    if not body:
        return ""
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _loads_table(result: Result) -> str:
    quantiles = sorted({*reading.SHOWN_QUANTILES, *(quantile for quantile, _ in reading.objectives(result))})
    found = reading.loads(result)
    times = table(
        "Response times count from the moment a request was due; brackets are 95 % intervals, ∞ is an end that is not known yet.",
        ["load", "rate", "verdict", *(format_quantile(one) for one in quantiles)],
        (
            [
                *_named(load),
                *(reading.estimate_words(load.answer.response.quantile(one)) for one in quantiles),
            ]
            for load in found
        ),
    )
    counts = table(
        "Requests by what became of them; late is how long after its due time a request was sent.",
        [
            "load",
            "rate",
            "verdict",
            "due",
            "good",
            "shed",
            "failed",
            "timed out",
            "unsent",
            "late p99",
            "late max",
        ],
        ([*_named(load), *_counted(load)] for load in found),
    )
    return times + counts


def _sweep(result: Result) -> str:
    """The settings of a sweep by what they hold, and the patch of the document; nothing of other results."""
    found = result.sweep
    if not found:
        return ""
    rows = table(
        "Rates per second: simulated, held in every round, and known to be too much.",
        ["settings", "simulated", "holds", "too much", ""],
        (
            [
                _run(one["run"]),
                *(
                    "-" if one[name] is None else shown_rate(one[name])
                    for name in ("simulated", "pass", "fail")
                ),
                _standing(one, found),
            ]
            for one in found["measured"]
        ),
        words=(0, 4),
    )
    return rows + (f"<pre>{escape_xml(found['patch'])}</pre>" if found["patch"] else "")


def _standing(one: dict[str, Any], found: dict[str, Any]) -> str:
    """What a setting is in a sweep."""
    chosen = "chosen" if one["run"] == found["chosen"] and found["changed"] else ""
    return "not served" if one["refused"] else "present" if one["present"] else chosen


def _run(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or "nothing written"


def _named(load: Load) -> list[object]:
    return [load.name, shown_rate(load.rate) if load.rate else "-", load.verdict or "-"]


def _counted(load: Load) -> list[object]:
    counts, late = load.answer.counts, load.answer.lateness
    numbers = [counts.due, counts.good, counts.shed, counts.failed, counts.timed_out, counts.unsent]
    return [*numbers, reading.time(late.p99_ns), reading.time(late.max_ns)]


def _phase_table(result: Result) -> str:
    rows = [(load, reading.phase_means(load.answer)) for load in reading.loads(result)]
    return table(
        "Means; client is the wait until a request was sent, outside is the wire, the client's reading and requests that the server "
        "has not read yet (inferred).",
        ["rate", *reading.PHASES],
        (
            [shown_rate(load.rate), *(reading.time(means[name]) for name in reading.PHASES)]
            for load, means in rows
            if means
        ),
    )


_PLANNED = {
    "replicas": "replicas",
    "replicas_interval": "replicas by the interval",
    "target": "target",
    "headroom": "headroom",
    "spare": "spare replicas",
    "slo": "objective",
    "basis": "planned by",
    "rate_per_replica": "each gets, with the spare ones away",
    "holds_per_replica": "each holds",
    "full": "all but the spare ones hold",
    "expected": "expected at the target",
    "price_per_hour": "price of a replica in an hour",
    "cost_per_thousand": "cost of 1 000 predictions",
    "growth_per_month": "growth in a month",
    "months_until_full": "months until full",
}
_RATES = ("target", "rate_per_replica", "holds_per_replica", "full")
_BASES = {"model": "a model that held-out rates confirmed", "measured": "the measured capacity alone"}


def _plan(result: Result) -> str:
    plan = result.plan
    if not plan:
        return ""
    few, many = [*(plan.get("replicas_interval") or ()), None, None][:2]
    shown = {
        name: plan[name]
        for name in _PLANNED
        if plan.get(name) is not None and (name != "replicas_interval" or few != many)
    }
    rows = table(
        "What is planned",
        ["", "value"],
        ((_PLANNED[name], _said(name, value)) for name, value in shown.items()),
        words=(0, 1),
    )
    model = plan.get("model") or {}
    checks = table(
        f"The model{'' if model.get('holds', True) else ', which is refused'}: {model.get('queue')}; rates that were held out when it was "
        "fitted",
        ["rate", "measured", "predicted", "interval", "inside"],
        (_check_row(check) for check in model.get("holdout", ())),
    )
    return rows + checks + _list(map(str, plan.get("reasons", ())))


def _said(name: str, value: Any) -> str:
    if name == "slo" and isinstance(value, dict):
        return ", ".join(f"{quantile} within {reading.time(limit)}" for quantile, limit in value.items())
    if isinstance(value, dict):
        ends = f"[{reading.time(value.get('low_ns'))}, {reading.time(value.get('high_ns'))}]"
        return f"{reading.time(value.get('value_ns'))} {ends}"
    if isinstance(value, list):
        return " to ".join(str(one) for one in value)
    if name in _RATES:
        return shown_rate(value)
    if name in ("headroom", "growth_per_month"):
        return f"{value * 100:.3g} %"
    if name == "basis":
        return _BASES.get(str(value), str(value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _check_row(check: dict[str, Any]) -> list[object]:
    predicted = check.get("predicted") or {}
    return [
        shown_rate(check["rate"]),
        reading.time(check["measured_ns"]),
        reading.time(predicted.get("value_ns")),
        f"[{reading.time(predicted.get('low_ns'))}, {reading.time(predicted.get('high_ns'))}]",
        "yes" if check.get("inside") else "no",
    ]


def _list(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in dict.fromkeys(sentences))
    return f"<ul>{items}</ul>" if items else ""


def _machine(result: Result) -> str:
    groups = [("server", result.target), ("client", result.client), ("machine", result.machine)]
    rows: list[tuple[str, str]] = []
    for group, facts in groups:
        values = facts.model_dump(mode="json", by_alias=True, exclude={"selftest", "models", "reasons"})
        rows += [
            (_label(group, name), _fact(name, value)) for name, value in values.items() if value is not None
        ]
    for model in result.target.models:
        said = [f"version {model.version}", f"revision {model.revision}", model.digest]
        rows.append(
            (
                f"model {model.endpoint}",
                ", ".join(part for part in said if part and not part.endswith("None")),
            )
        )
    return table("What ran where", ["", "value"], rows, words=(0, 1))


def _label(group: str, name: str) -> str:
    said = name.removesuffix("_bytes").replace("_", " ")
    return said if said.startswith(group) else f"{group} {said}"


def _fact(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _written(scenario: dict[str, Any]) -> str:
    return json.dumps(scenario, indent=2, ensure_ascii=False)
