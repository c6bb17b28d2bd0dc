"""The command ``headgate doctor``: what on this machine would keep a gateway from serving well.

The checks are gateway/checks.py and gpu_checks.py; this file prints them. Next: those two.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import click

from headgate import runtime_library
from headgate.cli import gpu_checks, output
from headgate.cli import session as cli
from headgate.cli.exits import EXIT_NO, failures
from headgate.cli.gpu_checks import Gpus
from headgate.cli.output import Format, Lines
from headgate.cli.serve import read_settings, setting_options
from headgate.errors import HeadgateError, Unsupported
from headgate.gateway import checks, native_module, units
from headgate.gateway.checks import Finding, Machine
from headgate.gateway.settings import Settings

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@setting_options
@cli.output_options
@click.pass_context
def doctor(context: click.Context, /, form: Format, **given: Any) -> None:
    """Check this machine.

    ONNX Runtime, GPUs, telemetry, cores, limits, ports, state folder; takes the settings of serve. Exits 1
    when a check fails; warnings do not count.

    \b
    Example:
      headgate doctor
      headgate doctor --state S --http 127.0.0.1:18000 --json
    """
    environment = cli.environment_of(context)
    with failures():
        settings = read_settings(given, (), environment.variables)
    findings = examine(settings, environment.machine or this_machine(), gpu_checks.this_machine())
    found = {"findings": [finding.as_json() for finding in findings]}
    output.show(
        form,
        found,
        lambda data: _lines(data["findings"]),
        lambda data: [one["check"] for one in data["findings"]],
    )
    if any(finding.status == "fail" for finding in findings):
        sys.exit(EXIT_NO)


def examine(settings: Settings, machine: Machine, gpus: Gpus) -> list[Finding]:
    """All findings, those about GPUs last."""
    findings = checks.examine(settings, machine)
    with contextlib.suppress(HeadgateError):  # has been found already
        findings += gpu_checks.examine(machine.find(), gpus)
    return gpu_checks.for_installed_wheel(findings, gpus.wheels())


def this_machine() -> Machine:
    """The checks' view of where this runs."""
    return Machine(runtime_library.find, _library_info(), units.cores, checks.is_locked)


def _library_info() -> Callable[[str], bytes] | None:
    try:
        found: Callable[[str], bytes] = native_module.load().library_info
    except Unsupported:
        return None
    return found


def _lines(findings: list[dict[str, Any]]) -> Lines:
    width = max(len(one["check"]) for one in findings)
    lines = []
    for one in findings:
        mark = click.style(f"{one['status']:<4}", fg=_COLOURS[one["status"]])
        lines.append(f"{mark}  {one['check']:<{width}}  {one['message']}")
        if one["remedy"]:
            lines.append(f"{'':<4}  {'':<{width}}  -> {one['remedy']}")
    return lines
