"""A measurement in words: the answer in a sentence, the numbers, where the time went, what limits what they say. Next: bench_measure.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headgate.bench.live import PHASES, shown_quantile
from headgate.bench.rates import format_quantile, shown_rate
from headgate.bench.results import Answer, Capacity, Phases, Result, SloFacts
from headgate.bench.unanswered import unanswered_words
from headgate.cli.output import Lines, Table
from headgate.cli.text import escape
from headgate.readable import duration, number, percent

_OUTCOMES = {
    "pass": "The objective is met",
    "fail": "The objective is missed",
    "undecided": "Undecided",
    "measured": "Measured",
    "client_limited": "The client was the limit",
    "interrupted": "Interrupted",
    "unreachable": "The server is gone",
}


def result_view(result: Result) -> Lines:
    """What a person reads."""
    if result.sweep is not None:
        return [sweep_sentence(result), "", *_sweep(result.sweep), *_caveats(result)]
    return [*_answer(result), "", *_body(result), *_caveats(result)]


def selftest_view(answer: Answer, rate: float) -> Lines:
    """What a self-test says of a load to come."""
    if answer.client.limited:
        why = "; ".join(answer.client.reasons) or "it fell behind its schedule"
        first = f"This machine cannot send {shown_rate(rate)}: {why}."
    else:
        first = f"This machine can send {shown_rate(rate)}: {_rate(answer.good_per_second)} came back from an echo."
    return [first, "", *_latency(answer)]


# === the answer ===


def _answer(result: Result) -> Iterator[str]:
    window = result.windows[-1].answer if result.windows else Answer()
    said = None if result.probes else unanswered_words(window)
    if said is not None:
        said = f"{escape(said)}."
        has_outcome = result.verdict in ("fail", "interrupted", "unreachable")
        yield f"{_OUTCOMES[result.verdict]}: {said}" if has_outcome else said[0].upper() + said[1:]
        return
    if result.capacity is not None:
        yield capacity_sentence(result)
        return
    p99 = window.response.quantile(0.99)
    told = "" if p99 is None else f"p99 {shown_quantile(p99)}"
    rates = f"{_rate(window.offered_per_second)} offered, {_rate(window.good_per_second)} answered well"
    yield f"{_OUTCOMES[result.verdict]}: {rates}, {told or 'no latency is known'}."


def capacity_sentence(result: Result) -> str:
    """The answer of a search, in a sentence."""
    found = result.capacity or Capacity(alpha=1.0)
    name = escape(result.name)
    objective = slo_words(found.slo)
    if found.passed is None:
        if found.failed is None:
            return f"{_OUTCOMES[result.verdict]}: no rate of {name} was decided for {objective}."
        return f"{name} holds less than {shown_rate(found.failed)} within {objective}."
    if found.at_least:
        return (
            f"{name} holds at least {shown_rate(found.passed)} within {objective}; no higher rate was tried."
        )
    if found.failed is None and result.client.limited and result.verdict in ("pass", "client_limited"):
        rate = shown_rate(found.passed)
        return f"{name} holds at least {rate} within {objective}; above that, the client was the limit."
    border = "" if found.failed is None else f", and fails at {shown_rate(found.failed)}"
    sure = f"confirmed at {shown_rate(found.confirmed_rate)}" if found.confirmed_rate else "not confirmed"
    return f"{name} holds {shown_rate(found.passed)} within {objective}{border} ({sure}; wrong in at most {percent(found.alpha)})."


def slo_words(slo: SloFacts) -> str:
    """``p99 <= 15 ms and 0.1 % errors``."""
    parts = [f"{name} <= {duration(limit / 1e3)}" for name, limit in slo.quantiles.items()]
    if slo.errors is not None:
        parts.append(f"{percent(slo.errors)} errors")
    return " and ".join(parts) or "no objective"


def _rate(value: float | None) -> str:
    return "-" if value is None else shown_rate(value)


# === the numbers ===


def _body(result: Result) -> Iterator[str]:
    if result.probes:
        yield from _probes(result)
        yield ""
    shown = _shown_answer(result)
    if shown is None:
        return
    yield from _latency(shown)
    yield ""
    yield from _blame(shown)
    if len(shown.groups) > 1:
        yield ""
        yield from _groups(shown)
    if shown.errors:
        yield ""
        yield from _errors(shown)


def _shown_answer(result: Result) -> Answer | None:
    """The load that the answer stands on: the confirming run, else the last probe that passed, else the last."""
    if not result.probes:
        return result.windows[-1].answer if result.windows else None
    confirming = [one for one in result.probes if one.confirming]
    passed = [one for one in result.probes if one.verdict == "pass"]
    return (confirming or passed or list(result.probes))[-1].answer


def _probes(result: Result) -> Lines:
    """The rates of a search, and those that were measured besides."""
    loads: list[tuple[float, str, str, Answer]] = [
        (one.rate, one.verdict, "confirming run" if one.confirming else "", one.answer)
        for one in result.probes
    ]
    loads += [(one.rate, "", one.name, one.answer) for one in result.windows if one.rate is not None]
    made = Table("RATE", "VERDICT", "P50", "P99", "REQUESTS", "TIME", "")
    for rate, verdict, what, answer in loads:
        p50, p99 = answer.response.quantile(0.5), answer.response.quantile(0.99)
        made.row(
            shown_rate(rate),
            verdict,
            p50 and shown_quantile(p50.model_copy(update={"low_ns": None})),
            p99 and shown_quantile(p99),
            number(answer.counts.due),
            f"{answer.elapsed_ns / 1e9:.0f} s",
            what,
        )
    return made.lines()


def _latency(answer: Answer) -> Iterator[str]:
    made = Table("", *(format_quantile(one.quantile) for one in answer.response.quantiles), "MAX")
    for name, latency in (("response", answer.response), ("service", answer.service)):
        cells = [shown_quantile(one.model_copy(update={"low_ns": None})) for one in latency.quantiles]
        longest = None if latency.max_ns is None else duration(latency.max_ns / 1e3)
        made.row(name, *cells, longest)
    yield from made.lines()
    late = answer.lateness
    told = [
        f"{name} {duration(value / 1e3)}"
        for name, value in (("p50", late.p50_ns), ("p99", late.p99_ns), ("max", late.max_ns))
        if value is not None
    ]
    yield f"lateness of the client: {', '.join(told) or 'not known'}"
    counts = answer.counts
    yield f"requests: {number(counts.due)} due, {number(counts.good)} good, {number(counts.not_good)} not"


def _blame(answer: Answer) -> Iterator[str]:
    """Where the mean response time went. Client and wire are what is left over, not measured."""
    mean, service = answer.response.mean_ns, answer.service.mean_ns
    if mean is None or service is None or mean <= 0:
        return
    made = Table("PHASE", "MEAN", "P99", "SHARE")
    made.row(
        "client", duration(max(0.0, mean - service) / 1e3), None, percent(max(0.0, mean - service) / mean)
    )
    phases = answer.phases
    if not phases.sampled:
        made.row("server", duration(service / 1e3), None, percent(service / mean))
        yield from made.lines()
        yield "the server's answers do not tell where their time went: server is the wire and all of its phases"
        return
    yield from _phases(made, phases, mean)
    yield f"phases: from {number(phases.sampled)} answers; client and wire are inferred"


def _phases(made: Table, phases: Phases, mean: float) -> Lines:
    for name, found in (("wire", phases.outside), *((name, getattr(phases, name)) for name in PHASES)):
        if found.mean_ns is not None:
            p99 = None if found.p99_ns is None else duration(found.p99_ns / 1e3)
            made.row(name, duration(found.mean_ns / 1e3), p99, percent(min(1.0, found.mean_ns / mean)))
    return made.lines()


def _groups(answer: Answer) -> Lines:
    made = Table("ENDPOINT", "REQUESTS", "GOOD", "P50", "P99")
    for one in answer.groups:
        by = {found.quantile: shown_quantile(found) for found in one.quantiles}
        made.row(
            escape(one.group), number(one.counts.due), number(one.counts.good), by.get(0.5), by.get(0.99)
        )
    return made.lines()


def _errors(answer: Answer) -> Lines:
    made = Table("COUNT", "NOT GOOD", "EXAMPLE")
    for one in answer.errors:
        made.row(number(one.count), escape(one.what), escape(one.example or ""))
    return made.lines()


# === settings ===


def sweep_sentence(result: Result) -> str:
    """The answer of a sweep, in a sentence."""
    found = result.sweep or {}
    name = escape(f"{found['endpoint']} {found['version']}")
    if result.verdict != "pass":
        return f"{_OUTCOMES[result.verdict]}: the settings of {name} stay as they are."
    if not found["changed"]:
        return f"The settings of {name} stay as they are: no other is known to hold more."
    return f"{name} holds more with {escape(_settings(found['chosen']))}: {found['reason']}."


def _settings(run: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in run.items()) or "nothing written"


def _sweep(found: Mapping[str, Any]) -> Iterator[str]:
    if found["measured"]:
        yield from _measured_settings(found)
        yield ""
    for one in found["calibrations"]:
        run, row = duration(one["base_ns"] / 1e3), duration(one["row_ns"] / 1e3)
        around = duration(one["around_base_ns"] / 1e3)
        threads = f"{one['threads']} thread{'s' * (one['threads'] != 1)}"
        yield f"a run with {threads} takes {run} and {row} a row; what is around it takes {around}"
    if found["simulated"]:
        yield f"settings that were simulated: {len(found['simulated'])}"
    if found["patch"]:
        yield ""
        yield from (escape(line) for line in found["patch"].splitlines())
        yield ""
        yield (
            "written to the document"
            if found["applied"]
            else "not written: --apply writes it, or `patch -p0`"
        )


def _measured_settings(found: Mapping[str, Any]) -> Lines:
    made = Table("SETTINGS", "SIMULATED", "HOLDS", "TOO MUCH", "")
    for one in found["measured"]:
        present = "present" if one["present"] else ""
        chosen = "chosen" if one["run"] == found["chosen"] and found["changed"] else ""
        made.row(
            escape(_settings(one["run"])),
            _rate(one["simulated"]),
            _rate(one["pass"]),
            _rate(one["fail"]),
            "not served" if one["refused"] else present or chosen,
        )
    return made.lines()


# === what limits it ===


def _caveats(result: Result) -> Iterator[str]:
    found = list(result.reasons)
    if result.client.shares_cpus:
        found.append("client and server share this machine's processors: each takes time from the other")
    if found:
        yield ""
    for one in dict.fromkeys(found):
        yield f"note: {escape(one)}"
