"""Commands that look: get, explain, history, drift, models. They change nothing; changes.py does.

Next: session.py for how they print and exit.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Group, RenderableType

from headgate.cli import session as cli
from headgate.cli.client import AdminClient, segment
from headgate.cli.session import Session

#: The optional inputs of a version that are named.
OPTIONAL_SHOWN = 8


@click.command()
@click.argument("endpoint", required=False)
@click.option("--document", "as_document", is_flag=True, help="Print the endpoint's document, byte for byte.")
@cli.client_options
def get(session: Session, endpoint: str | None, as_document: bool) -> None:
    """Show all endpoints, or one in full.

    \b
    Example:
      headgate get
      headgate get digits
      headgate get digits --document > digits.yaml
    """
    if endpoint is None and as_document:
        raise click.UsageError("--document needs an ENDPOINT")
    with session.client() as client:
        if endpoint is None:
            found = client.get("/endpoints").body
            session.show(found, lambda: _endpoints(found["endpoints"]))
            return
        one = client.get(f"/endpoints/{segment(endpoint)}").body
    if as_document:
        click.echo(one["document"], nl=False)
        return
    session.show(one, lambda: _endpoint(one))


@click.command()
@click.argument("endpoint")
@click.option("--key", metavar="KEY", help="A sticky key's value.")
@click.option(
    "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A request header; may be repeated."
)
@cli.client_options
def explain(session: Session, endpoint: str, key: str | None, headers: tuple[str, ...]) -> None:
    """Say which version answers a caller, and why.

    \b
    Example:
      headgate explain digits --key user-42
      headgate explain digits --header 'x-user-id: user-42'
    """
    if key is not None and headers:
        raise click.UsageError("--key and --header exclude each other")
    given = dict(_header(text) for text in headers)
    body = {"headers": given} if headers else {"key": key}
    with session.client() as client:
        answer = client.post(f"/endpoints/{segment(endpoint)}:explain", body).body
    session.show(answer, lambda: _explanation(answer))


@click.command()
@click.argument("endpoint")
@click.argument("revision", required=False, type=click.IntRange(min=1))
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 500), help="How many, newest first."
)
@cli.client_options
def history(session: Session, endpoint: str, revision: int | None, limit: int) -> None:
    """List the revisions of an endpoint, or show one with its differences.

    \b
    Example:
      headgate history digits
      headgate history digits 41
    """
    with session.client() as client:
        base = f"/endpoints/{segment(endpoint)}/revisions"
        if revision is not None:
            one = client.get(f"{base}/{revision}").body
            session.show(one, lambda: _revision(one))
            return
        found = client.get(base, {"limit": limit}).body
    session.show(found, lambda: _revisions(found["revisions"]))


@click.command()
@click.argument("endpoint")
@click.option(
    "--window", metavar="TIME", help="The newest stretch of time, such as 1h. [default: the document's]"
)
@click.option("--check", is_flag=True, help="Exit 1 when any feature's verdict is fail.")
@cli.client_options
def drift(session: Session, endpoint: str, window: str | None, check: bool) -> None:
    """Compare live inputs and outputs with the baseline.

    \b
    Example:
      headgate drift digits --window 1h
      headgate drift digits --check
    """
    with session.client() as client:
        report = client.get(f"/endpoints/{segment(endpoint)}/drift", {"window": window}).body
    session.show(report, lambda: _drift(report))
    if check and any(feature.get("verdict") == "fail" for feature in report["features"]):
        sys.exit(cli.EXIT_NO)


@click.command()
@click.option("--check", is_flag=True, help="Exit 1 when any model is refused.")
@cli.client_options
def models(session: Session, check: bool) -> None:
    """List models, and what was refused.

    \b
    Example:
      headgate models
    """
    with session.client() as client:
        found = client.get("/models").body
    session.show(found, lambda: _models(found))
    for refusal in [] if session.as_json else found["refusals"]:
        cli.words(
            f"refused: {refusal['endpoint']} {refusal['version']}: {refusal['message']} (found {refusal['found']})"
        )
    if check and found["refusals"]:
        sys.exit(cli.EXIT_NO)


def revision_of(client: AdminClient, endpoint: str) -> int | None:
    """The revision that a write is based on."""
    return client.get(f"/endpoints/{segment(endpoint)}/traffic").revision


def traffic_words(champion: str, weights: Mapping[str, str]) -> str:
    """``v1, 10% to v2``: the champion, then what is given away."""
    return ", ".join([champion, *(f"{share} to {version}" for version, share in weights.items())])


def traffic_view(traffic: Mapping[str, Any]) -> RenderableType:
    """The live traffic of one endpoint beside what its document says."""
    made = cli.table("VERSION", "ROLE", "WEIGHT", "OF KEYS", "OF REQUESTS")
    requests = traffic["share"]["requests"] or {}
    versions = [traffic["champion"], *(name for name in traffic["weights"] if name != traffic["champion"])]
    for version in versions:
        champion = version == traffic["champion"]
        cli.row(
            made,
            version,
            "champion" if champion else "challenger",
            None if champion else traffic["weights"][version],
            traffic["share"]["keys"].get(version),
            requests.get(version),
        )
    return Group(made, *traffic["notes"])


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"--header {text!r}: write it as 'NAME: VALUE'")
    return name.strip().lower(), value.strip()


def _endpoints(endpoints: list[dict[str, Any]]) -> RenderableType:
    made = cli.table("ENDPOINT", "REVISION", "STATE", "TRAFFIC", "SINCE", "NOTES")
    for one in endpoints:
        flags = ["frozen"] if one["frozen"] else []
        flags += [f"{one['blocked']} blocked"] if one["blocked"] else []
        cli.row(
            made,
            one["name"],
            one["revision"],
            one["state"],
            traffic_words(one["champion"], one["weights"]),
            one["since"],
            "; ".join([*flags, *one["alarms"], *one["notes"]]),
        )
    return made


def _endpoint(one: dict[str, Any]) -> RenderableType:
    head = f"{one['name']}  revision {one['revision']}  {one['state']}"
    if one["frozen"]:
        head += (
            f"\nfrozen since {one['frozen']['since']} by {one['frozen']['who']}: {one['frozen']['reason']}"
        )
    made = cli.table(
        "VERSION", "ROLE", "STATE", "PLACED", "RUN p50/p99", "MEMORY", "REQUESTS", "DIGEST", "MESSAGE"
    )
    for name, version in one["versions"].items():
        cli.row(
            made,
            name,
            version["role"],
            version["state"],
            _placed(version),
            _run_times(version["run_us"]),
            _memory(version["memory"]),
            version["requests"],
            version["digest"][:19],
            version["message"],
        )
    blocks = [
        f"blocked since {b['since']}: {b['version'] or b['digest']} ({b['reason']})" for b in one["blocks"]
    ]
    alarms = [f"alarm: {text}" for text in one["alarms"]]
    placed = [line for name, version in one["versions"].items() if (line := _why(name, version))]
    optional = [line for name, version in one["versions"].items() if (line := _optional(name, version))]
    tables = (traffic_view(one["traffic"]), "", made)
    return Group(head, *alarms, *one["notes"], "", *tables, *placed, *optional, *blocks)


def _optional(name: str, version: Mapping[str, Any]) -> str | None:
    """The inputs of a version that a request may leave out; an exporter may have listed all weights there."""
    names = [one["name"] for one in (version["signature"] or {}).get("optional_inputs", [])]
    if not names:
        return None
    more = f" and {len(names) - OPTIONAL_SHOWN} more" if len(names) > OPTIONAL_SHOWN else ""
    return f"{name} takes optional inputs: {', '.join(names[:OPTIONAL_SHOWN])}{more}"


def _why(name: str, version: Mapping[str, Any]) -> str | None:
    """Why a version is where it is, with the numbers behind it."""
    by = version["placed_by"]
    if by is None:
        return None
    numbers = f"the newest {by['runs']} runs: p99 {by['p99_us']:.3g} us"
    if by["busy"] and version["placement"] == "inline":
        numbers += f", {by['busy']:.0%} of the IO threads"
    if by["batch_rows"]:
        numbers += f", {by['batch_rows']:.3g} rows a batch"
    cost = (version["batches"] or {}).get("cost_us")
    if cost:
        numbers += f", {cost['fixed']:.3g} us a run and {cost['row']:.3g} us a row"
    return f"{name} is {version['placement']}: {by['why']} ({numbers})"


def _placed(version: Mapping[str, Any]) -> str | None:
    """Where it runs; whether that was written; how many rows its batches had."""
    placed: str | None = version["placement"]
    if placed is None:
        return None
    if version["device"] not in (None, "cpu"):
        placed += f" on {version['device']}"
    if version["placement_fixed"]:
        placed += " (written)"
    batches = version["batches"]
    if batches and batches["count"]:
        placed += f", {batches['rows'] / batches['count']:.3g} rows a run"
    if version["shedding"]:
        placed += ", shedding"
    if version["breaker"] and version["breaker"]["open"]:
        placed += ", left alone (breaker)"
        if version["breaker"].get("answered_by"):
            placed += f", {version['breaker']['answered_by']} answers"
    if version["runs"] and version["runs"]["stuck"]:
        placed += f", {version['runs']['stuck']} runs stuck"
    return placed


def _memory(memory: Mapping[str, Any] | None) -> str | None:
    """Where it is, how much it takes, whether it stays."""
    if memory is None:
        return None
    words = [memory["state"]]
    if memory["bytes"]:
        words.append(f"{memory['bytes'] / 2**20:.3g} MiB")
    if memory["pinned"]:
        words.append("pinned")
    return ", ".join(words)


def _run_times(run: Mapping[str, float | None] | None) -> str | None:
    """Empty until the version has run often enough to say."""
    if run is None or run["p50"] is None or run["p99"] is None:
        return None
    return f"{run['p50']:.3g}/{run['p99']:.3g} us"


def _explanation(answer: dict[str, Any]) -> RenderableType:
    if answer["version"] is None:
        shares = ", ".join(f"{share} {name}" for name, share in answer["shares"].items())
        return f"each request draws its own version: {shares}\n{answer['why']}"
    slot = "" if answer["slot"] is None else f" (slot {answer['slot']})"
    return f"{answer['version']} by {answer['by']}{slot}\n{answer['why']}"


def _revisions(revisions: list[dict[str, Any]]) -> RenderableType:
    made = cli.table("REVISION", "KIND", "STATUS", "TRAFFIC", "WHEN", "WHO", "REASON")
    for one in revisions:
        cli.row(
            made,
            one["revision"],
            one["kind"],
            one["status"],
            traffic_words(one["champion"], one["weights"]),
            one["when"],
            one["who"],
            one["message"] or one["reason"],
        )
    return made


def _revision(one: dict[str, Any]) -> RenderableType:
    lines = [
        f"revision {one['revision']}  {one['kind']}  {one['status']}  {one['when']}  {one['who']}",
        f"traffic: {traffic_words(one['champion'], one['weights'])}",
    ]
    lines += [f"reason: {one['reason']}"] if one["reason"] else []
    lines += [one["message"]] if one["message"] else []
    lines += [f"{pair}: {slots} slots" for pair, slots in one["moves"].items()]
    return Group(*lines, *(["", one["diff"]] if one["diff"] else []))


def _drift(report: dict[str, Any]) -> RenderableType:
    made = cli.table(
        "VERSION",
        "SIDE",
        "FEATURE",
        "SEEN",
        "SKETCHED",
        "EFFECTIVE",
        "PSI",
        "JS nats",
        "KS",
        "WASSERSTEIN",
        "VERDICT",
    )
    for feature in report["features"]:
        name = _feature_name(feature["tensor"], feature.get("column"))
        cli.row(
            made,
            feature["version"],
            feature["direction"],
            name,
            feature["offered"],
            feature["observed"],
            round(feature["effective"]),
            _number(feature.get("psi")),
            _number(feature.get("js_distance_nats")),
            _bracket(feature.get("ks")),
            _bracket(feature.get("wasserstein")),
            feature["verdict"],
        )
    baseline = report["baseline"] or "none: live sketches only, every verdict is undecided"
    return Group(f"{report['endpoint']}  last {report['window']['seconds']} s  baseline {baseline}", made)


def _feature_name(tensor: str, column: str | None) -> str:
    """``X.age`` for a named column, ``X[3]`` for one without a name, which the data plane names so itself."""
    if column is None:
        return tensor
    return column if column.startswith(f"{tensor}[") else f"{tensor}.{column}"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _bracket(value: Mapping[str, float] | None) -> str | None:
    return None if value is None else f"{value['lower']:.4f}..{value['upper']:.4f}"


def _models(found: dict[str, Any]) -> RenderableType:
    made = cli.table("ENDPOINT", "VERSION", "IN USE", "SIZE", "PINNED", "DIGEST")
    for one in found["models"]:
        cli.row(
            made,
            one["endpoint"],
            one["version"],
            "yes" if one["in_use"] else "no",
            one["size"],
            one["pinned"],
            one["digest"],
        )
    return made
