"""``sweep``: which settings of a document hold more, with the patch of the document, which may be applied.

Not here: the gateways (``sweep_bench``), which settings are tried and which one is chosen (``sweep``). Next: sweep_bench.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.bench import machine
from headgate.bench.document_settings import DocumentSettings, read_settings
from headgate.bench.predictors import SIMULATED_QUANTILES, Simulate
from headgate.bench.preparing import Asked
from headgate.bench.rates import format_ns, format_quantile
from headgate.bench.results import Outcome, Result
from headgate.bench.run import Measurement, Tools
from headgate.bench.run_settings import Choice
from headgate.bench.scenario import Scenario
from headgate.bench.slo import Slo
from headgate.bench.sweep import Plan, Sweep, Tried
from headgate.bench.sweep_bench import Budget, SpawnedWorkbench, SweepEndedError
from headgate.bench.sweep_simulation import CALIBRATED_ROWS, Wanted
from headgate.errors import HeadgateError, InvalidArgument
from headgate.private_files import temporary_folder

_CALIBRATION_NS = 2_000_000_000
_CALIBRATION_SHARE = 0.2
_SHORTEST_CALIBRATION_NS = 100_000_000
_SHORTEST_FIND_NS = 5_000_000_000


@dataclass(frozen=True)
class Wishes:
    """How much is measured, and whether the document is rewritten if another setting holds more."""

    plan: Plan = field(default_factory=Plan)
    apply: bool = False


def sweep(asked: Asked, scenario: Scenario, tools: Tools, simulate: Simulate, wishes: Wishes) -> Result:
    """Which settings of the document of ``asked`` hold more; the budget of ``scenario`` is that of all loads together."""
    document, slo = _document(asked, scenario), _objective(scenario)
    apart = machine.split_cpus(machine.available_cpus(), asked.settings.threads)
    cores = len(machine.available_cpus() if apart is None else apart[0])
    quantile, limit, notes = _simulated(slo)
    budget = _budget(scenario.search.budget, wishes.plan, document.present, cores)
    with temporary_folder(prefix="headgate-sweep-") as folder, tools.interruption.listening():
        bench = SpawnedWorkbench(asked, scenario, tools, document, slo, folder, budget, notes=notes)

        def interruptible(question: Mapping[str, Any]) -> Mapping[str, Any]:
            bench.check_interrupted()
            return simulate(question)

        # A gateway takes requests with as many threads as it has cores.
        wanted = Wanted(quantile, limit / 1e9, cores=cores, io_threads=cores)
        found = Sweep(document.present, wanted, bench, interruptible, wishes.plan)
        ended = None
        try:
            found.run()
        except SweepEndedError as error:
            ended = error
        finally:
            bench.close()
            tools.view.close()
    return _result(bench, found, ended, apply=wishes.apply)


# === what is asked ===


def _document(asked: Asked, scenario: Scenario) -> DocumentSettings:
    if asked.document is None:
        raise InvalidArgument(
            "sweep needs the document of the endpoint: --spawn DOCUMENT. It serves it with each setting in turn; the settings of a server "
            "that runs cannot be changed from here"
        )
    if asked.url is not None or asked.grpc is not None:
        raise InvalidArgument("--spawn starts the server itself: give it without --url and --grpc")
    if asked.as_traffic:
        raise InvalidArgument("sweep measures one version of the document: remove --as-traffic")
    if len(scenario.mix) != 1:
        raise InvalidArgument(
            f"sweep changes the settings of one endpoint, and the scenario asks {len(scenario.mix)}"
        )
    if scenario.load.clients is not None or scenario.load.arrivals == "trace":
        raise InvalidArgument(
            "sweep sends at rates of its own: remove clients, or arrivals: trace, from the load"
        )
    entry = scenario.mix[0]
    return read_settings(asked.document, entry.endpoint, entry.version)


def _objective(scenario: Scenario) -> Slo:
    if scenario.slo is None or not scenario.slo.quantiles:
        raise InvalidArgument("sweep needs an objective of the response time: --slo p99=15ms")
    return scenario.slo


def _simulated(slo: Slo) -> tuple[float, int, list[str]]:
    """The quantile that candidates are simulated at, with its limit: the highest of the objective that simulations tell."""
    told = [one for one in slo.quantiles if one[0] in SIMULATED_QUANTILES]
    if told:
        return (*told[-1], [])
    quantile, limit = slo.quantiles[-1]
    nearest = min(SIMULATED_QUANTILES, key=lambda one: abs(one - quantile))
    note = (
        f"settings were simulated at {format_quantile(nearest)}, which stands for {format_quantile(quantile)}"
    )
    return nearest, limit, [note]


def _budget(total: int, plan: Plan, present: Choice, cores: int) -> Budget:
    """The length of each load; :class:`InvalidArgument` if the budget has no room for all of them."""
    calibrations = len({1, present.threads or cores, cores}) * len(CALIBRATED_ROWS)
    calibration = min(_CALIBRATION_NS, int(total * _CALIBRATION_SHARE / calibrations))
    # One more, to test whether the present setting holds what the best one does.
    finds = (plan.measured + 1) * plan.rounds + 1
    find = (total - calibrations * calibration) // finds
    if find < _SHORTEST_FIND_NS or calibration < _SHORTEST_CALIBRATION_NS:
        needed = max(
            finds * _SHORTEST_FIND_NS / (1 - _CALIBRATION_SHARE),
            calibrations * _SHORTEST_CALIBRATION_NS / _CALIBRATION_SHARE,
        )
        raise InvalidArgument(
            f"--budget {format_ns(total)} is too short for {calibrations} calibrations and {finds} searches: give it "
            f"{math.ceil(needed / 1e9)}s at least, or measure less (--measured, --rounds)"
        )
    return Budget(calibration, find)


# === what was found ===


def _result(bench: SpawnedWorkbench, sweep: Sweep, ended: SweepEndedError | None, *, apply: bool) -> Result:
    document = bench.document
    chosen, reason = sweep.choose() if ended is None else (document.present, str(ended))
    verdict = _verdict(bench, sweep, chosen) if ended is None else ended.outcome
    patch = document.patch(chosen) if chosen != document.present else ""
    applied, failure = False, None
    if apply and patch and verdict == "pass":
        try:
            document.write(chosen)
            applied = True
        except HeadgateError as error:
            # The measurement is worth more than the file: the patch is still there.
            failure = error.message
    facts = {
        "document": str(document.path),
        "endpoint": document.endpoint.name,
        "version": document.version,
        **sweep.as_json(),
        "chosen": chosen.written,
        "changed": chosen != document.present,
        "reason": reason,
        "patch": patch,
        "applied": applied,
        "not_applied": failure,
    }
    _tell_rounds(facts["measured"], sweep.tried, bench)
    if bench.tested is not None:
        facts["measured"][0]["tested"] = _probes(bench.tested)
    shown = _standing_for(bench.found.get(chosen, []))
    limited = [one for found in bench.found.values() for one in found if one.client.limited]
    base = shown or _measured_nothing(bench)
    return base.model_copy(
        update={
            "command": "sweep",
            "scenario": bench.scenario.as_written(),
            "seed": bench.scenario.seed,
            "windows": (*bench.calibrations, *base.windows),
            "client": base.client.model_copy(update={"limited": bool(limited)}),
            "verdict": verdict,
            "sweep": facts,
            "reasons": tuple(dict.fromkeys(_reasons(bench, sweep, [reason, failure]))),
        }
    )


def _reasons(bench: SpawnedWorkbench, sweep: Sweep, first: list[str | None]) -> list[str]:
    refused = [f"{one.choice} is not served: {one.refused}" for one in sweep.tried if one.refused]
    searches = [one for found in bench.found.values() for one in found]
    limited = [one for one in searches if one.client.limited]
    limits = []
    if limited:
        many = f"{len(limited)} of {len(searches)} searches"
        limits.append(f"the client was the limit in {many}: {limited[0].client.reasons[-1]}")
    unknown = [] if limited else list(_why_unknown(bench, sweep))
    notes = () if bench.place is None else bench.place.notes
    return [*(one for one in first if one), *refused, *limits, *unknown, *bench.notes, *notes]


def _why_unknown(bench: SpawnedWorkbench, sweep: Sweep) -> Iterator[str]:
    """What the last search of a setting said, of those that are not known to hold any rate."""
    for one in sweep.tried:
        for result in bench.found.get(one.choice, [])[-1:]:
            if not one.low and result.reasons:
                yield f"{one.choice}: {result.reasons[0]}"


def _verdict(bench: SpawnedWorkbench, sweep: Sweep, chosen: Choice) -> Outcome:
    if any(one.choice == chosen and one.low for one in sweep.tried):
        return "pass"
    results = [one for found in bench.found.values() for one in found]
    if results and all(one.verdict == "fail" for one in results):
        return "fail"
    return "client_limited" if any(one.verdict == "client_limited" for one in results) else "undecided"


def _standing_for(results: list[Result]) -> Result | None:
    """The round whose rate counts: the lowest that was held."""
    held = [one for one in results if one.capacity is not None and one.capacity.confirmed]
    if not held:
        return results[-1] if results else None
    return min(held, key=lambda one: (one.capacity and one.capacity.passed) or 0.0)


def _measured_nothing(bench: SpawnedWorkbench) -> Result:
    if bench.place is None:
        # Ctrl-C before the first gateway was ready: there is nothing to tell.
        raise KeyboardInterrupt
    return Measurement.at(bench.place, bench.scenario, bench.tools).result("sweep")


def _tell_rounds(measured: list[dict[str, Any]], tried: list[Tried], bench: SpawnedWorkbench) -> None:
    """Adds what each search said: its verdict, why, and its rates."""
    for facts, one in zip(measured, tried, strict=True):
        for told, result in zip(facts["rounds"], bench.found.get(one.choice, []), strict=False):
            told["verdict"] = result.verdict
            told["reasons"] = list(result.reasons)
            told["probes"] = _probes(result)


def _probes(result: Result) -> list[dict[str, Any]]:
    return [
        {"rate": one.rate, "verdict": one.verdict, "confirming": one.confirming, "why": one.why}
        for one in result.probes
    ]
