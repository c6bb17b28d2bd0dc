"""How a report on shadows is drawn: a line for each shadow, then what is behind its numbers.

What the words mean is in docs/guides/shadow.md. Next: output.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headgate.cli import text
from headgate.cli.output import Lines, Table

EXAMPLES_SHOWN = 3
_MOVES_SHOWN = 8
_VALUES_SHOWN = 8
"""The elements of a tensor of an example that are shown."""

Report = Mapping[str, Any]


def shadows_view(report: Report, *, examples: int | None = EXAMPLES_SHOWN) -> Lines:
    """The report; at most so many ``examples`` of each shadow, all of them if None."""
    head = f"{report['endpoint']}  champion {report['champion']}"
    if not report["shadows"]:
        return [f"{head}  no shadows: write traffic.shadow in its document"]
    lines = [head, "", *_table(report["shadows"])]
    for shadow in report["shadows"]:
        lines += ["", *_shadow(shadow, examples)]
    return [*lines, "", _cost(report)]


def _table(shadows: list[Report]) -> Lines:
    made = Table(
        "SHADOW",
        "STATE",
        "COPIES",
        "PAIRS",
        "DROPPED",
        "ERRORS",
        "DISAGREEMENT",
        "NOISE FLOOR",
        "EXCESS",
    )
    for one in shadows:
        copies = (
            f"{_share(one['share'])} of the champion's {'requests' if one['by'] == 'request' else 'keys'}"
        )
        made.row(one["to"], one["state"], copies, *(_row(one) if "drawn" in one else [None] * 6))
    return made.lines()


def _row(one: Report) -> list[object]:
    undecided = " undecided" if one["disagreement"]["undecided"] else ""
    return [
        one["pairs"],
        sum(one["dropped"].values()),
        sum(one["errors"].values()),
        _with_interval(one["disagreement"]) + undecided,
        _with_interval(one["noise_floor"]),
        _with_interval(one["excess"]),
    ]


def _shadow(one: Report, examples: int | None) -> Lines:
    reason = f": {one['reason']}" if one["reason"] else ""
    head = f"{one['to']}  {one['state']}{reason}"
    if "drawn" not in one:
        return [f"{head}  nothing was counted"]
    lines = [f"{head}  since {one['since']}", f"  drawn {one['drawn']}{_lost(one)}"]
    lines += [f"  {line}" for line in [*_doubts(one), *_failures(one)]]
    for name, output in one["outputs"].items():
        lines += [f"  {line}" for line in _output(name, output)]
    for part in one["slices"]:
        lines += [f"  {line}" for line in _slice(part)]
    lines.append(f"  {_runs(one['run_seconds'])}")
    for example in one["examples"]["kept"][:examples]:
        lines += [f"  {line}" for line in _example(example)]
    more = 0 if examples is None else len(one["examples"]["kept"]) - examples
    return [*lines, f"  {more} more examples: --examples shows them"] if more > 0 else lines


def _lost(one: Report) -> str:
    """What became of the copies that are in no comparison."""
    parts = [
        _counts("dropped", one["dropped"]),
        _counts("failed on the shadow", one["errors"]),
        f"{one['champion_failed']['requests']} failed on the champion"
        if one["champion_failed"]["requests"]
        else "",
        f"{one['queue']['length'] + one['in_progress']} wait or run"
        if one["queue"]["length"] + one["in_progress"]
        else "",
    ]
    said = [part for part in parts if part]
    return "".join(f", {part}" for part in [f"{one['pairs']} compared", *said])


def _counts(what: str, counts: Mapping[str, int]) -> str:
    """``15 dropped (12 late, 3 cpu_budget)``; empty if there are none."""
    some = sorted(((count, name) for name, count in counts.items() if count), reverse=True)
    if not some:
        return ""
    return (
        f"{sum(count for count, _ in some)} {what} ({', '.join(f'{count} {name}' for count, name in some)})"
    )


def _doubts(one: Report) -> Lines:
    """What keeps the disagreement from being read as it stands."""
    found, said, floor = [], one["disagreement"], one["noise_floor"]
    if one["last_mismatch"]:
        found.append(f"last copy that did not fit: {one['last_mismatch']}")
    if said["bounds"] is not None and said["drop_share"]:
        low, high = said["bounds"]
        found.append(f"with what was dropped, the disagreement is between {_share(low)} and {_share(high)}")
    if said["undecided"]:
        found.append(
            f"undecided: {_share(said['drop_share'])} of the copies were dropped, and those differ from the others"
        )
    if floor["pairs"]:
        beside = [f"{floor[name]} {name}" for name in ("skipped", "errors") if floor[name]]
        made = "".join(f", {part}" for part in beside)
        found.append(
            f"noise floor: the champion differs from itself in {floor['differing']} of {floor['pairs']} pairs{made}"
        )
    elif one["pairs"]:
        found.append(f"no noise floor yet{': ' + floor['reason'] if floor['reason'] else ''}")
    return found


def _failures(one: Report) -> Lines:
    found, failed, nan = [], one["champion_failed"], one["nan"]
    if failed["requests"]:
        lost = f", the inputs of {failed['inputs_lost']} were gone" if failed["inputs_lost"] else ""
        found.append(
            f"of {failed['requests']} failures of the champion the shadow answered {failed['shadow_answered']} and failed on "
            f"{failed['shadow_failed']}{lost}"
        )
    if any(nan.values()):
        found.append(
            f"NaN in the answers of {nan['shadow']} pairs (the champion's: {nan['champion']}, both: {nan['both']})"
        )
    return found


def _output(name: str, output: Report) -> Lines:
    share = output["differing"] / output["pairs"] if output["pairs"] else None
    lines = [
        f"{name} ({_comparison(output['compare'])}): {output['differing']} of {output['pairs']} pairs differ"
        f"{'' if share is None else f' ({_share(share)})'}, {output['differing_rows']} of {output['rows']} rows"
    ]
    direction = output["direction"]
    if direction is None:
        return lines
    moves = direction["moves"][:_MOVES_SHOWN]
    others = direction["other_rows"] + sum(move["rows"] for move in direction["moves"][_MOVES_SHOWN:])
    said = [f"{move['from']} -> {move['to']}: {move['rows']}" for move in moves]
    said += [f"others: {others}"] if others else []
    lines += [f"  rows by champion -> shadow: {', '.join(said)}"] if said else []
    if direction["mcnemar_p"] is not None:
        lines.append(
            f"  if neither way were preferred, as uneven a result had probability {direction['mcnemar_p']:.2g}"
        )
    return lines


def _comparison(compare: Mapping[str, Any]) -> str:
    """``label``, ``within 0.1%``, ``top 3``."""
    [(form, value)] = compare.items()
    if value is True:
        return str(form)
    if isinstance(value, Mapping):
        [(kind, tolerance)] = value.items()
        return f"{form} {_share(tolerance) if kind == 'relative' else f'{tolerance:g}'}"
    return f"{form} {value:g}"


def _slice(part: Report) -> Lines:
    made = Table(part["field"], "PAIRS", "DIFFERING", "DISAGREEMENT")
    for value in part["values"]:
        name = "(absent)" if value["value"] is None else value["value"]
        made.row(name, value["pairs"], value["differing"], _with_interval(value))
    if part["other"]["pairs"]:
        made.row(
            "(others)", part["other"]["pairs"], part["other"]["differing"], _with_interval(part["other"])
        )
    return made.lines()


def _runs(run: Report) -> str:
    if run["p50"] is None or run["p95"] is None:
        return "runs: none yet"
    times = text.durations(run["p50"] * 1e6, run["p95"] * 1e6)
    said = "" if run["comparable"] else f"; not comparable: {run['note']}"
    return f"runs: {run['runs']}, p50/p95 {times}{said}"


def _example(example: Report) -> Lines:
    where = f"example {example['at']}  request {example['request_id'] or '-'}  row {example['row']}"
    lines = [f"{where}  differs in {', '.join(example['differs'])}"]
    lines += [f"  {name} = {_tensor(tensor)}" for name, tensor in example["inputs"].items()]
    for name, tensor in example["champion"].items():
        other = example["shadow"].get(name)
        lines.append(f"  {name}: champion {_tensor(tensor)}, shadow {_tensor(other) if other else '-'}")
    return lines


def _tensor(tensor: Report) -> str:
    data = tensor["data"]
    if data is None:
        return f"({tensor['left_out']})"
    shown = ", ".join(_element(value) for value in data[:_VALUES_SHOWN])
    more = f", and {len(data) - _VALUES_SHOWN} more" if len(data) > _VALUES_SHOWN else ""
    left_out = f" ({tensor['left_out']})" if tensor["left_out"] else ""
    return f"[{shown}{more}]{left_out}"


def _element(value: Any) -> str:
    """A redacted column is null."""
    if value is None:
        return "(redacted)"
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _cost(report: Report) -> str:
    """What the shadows of all endpoints take together."""
    cpu, memory = report["cpu"], report["memory"]
    stuck = f", {cpu['stuck']} stuck" if cpu["stuck"] else ""
    waits = ", waiting for its budget" if cpu["waiting"] else ""
    return (
        f"all shadows: {cpu['used_cores']:.2g} of {cpu['budget_cores']:.2g} cores on {cpu['threads']} threads{stuck}{waits}; "
        f"copies take {text.size(memory['bytes'])} of {text.size(memory['max_bytes'])}"
    )


def _share(share: float) -> str:
    """``3%``, ``0.38%``."""
    return f"{share * 100:.3g}%"


def _with_interval(part: Report) -> str:
    """``3% (2.68% to 3.35%)``."""
    if part["share"] is None:
        return "-"
    if part["interval"] is None:
        return _share(part["share"])
    low, high = part["interval"]
    return f"{_share(part['share'])} ({_share(low)} to {_share(high)})"
