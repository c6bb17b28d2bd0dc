"""The table of the settings of ``headgate serve``: name, type, help and default of each, in the order of its help.

How they are merged and what is made of them is in settings.py. Next: that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headgate.documents import parse_duration, parse_size
from headgate.gateway import logs, units


@dataclass(frozen=True)
class Setting:
    """One setting in every place it can be written: ``--max-body``, ``HEADGATE_MAX_BODY``, ``max-body:``."""

    name: str
    """The long option without dashes; also the key in a configuration file."""
    metavar: str
    parse: Callable[[str], Any]
    help: str
    default: str
    """What holds when nobody writes it, in words."""
    many: bool = False
    """May be given several times; in an environment variable the values are separated by commas."""
    flag: bool = False
    """An option without a value; elsewhere ``on`` or ``off``."""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "HEADGATE_" + self.key.upper()

    @property
    def key(self) -> str:
        """The attribute of :class:`ValidatedSettings` and :class:`Settings`."""
        return self.name.replace("-", "_")


def parse_path(text: str) -> Path:
    """A folder or file; ``~`` is the home folder."""
    if not text:
        raise ValueError("an empty path; write a folder or file")
    return Path(text).expanduser()


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "models", "DIR", parse_path, "Serve every NAME/VERSION/model.onnx below this folder.", "no folder"
    ),
    Setting(
        "state",
        "DIR",
        parse_path,
        "Where revisions, artifacts and tokens are kept; one gateway per folder.",
        "$XDG_STATE_HOME/headgate, else ~/.local/state/headgate",
    ),
    Setting(
        "keep-revisions",
        "N",
        units.parse_count,
        "How many of the newest revisions of an endpoint are kept whatever their age.",
        "1000",
    ),
    Setting(
        "keep-history",
        "TIME",
        parse_duration,
        "How long revisions are kept at least. What is served, what a rollback goes to, and blocked versions stay longer.",
        "90d",
    ),
    Setting(
        "keep-audit",
        "TIME",
        parse_duration,
        "How long the audit is kept at least; the newest 100000 entries stay longer.",
        "400d",
    ),
    Setting(
        "root",
        "DIR",
        parse_path,
        "What `file:` paths in documents resolve below.",
        "each document's own folder",
    ),
    Setting(
        "http",
        "ADDR",
        units.parse_address,
        "Where inference requests are taken (HTTP/1.1, HTTP/2 and gRPC).",
        "127.0.0.1:8000",
    ),
    Setting(
        "grpc",
        "ADDR",
        units.parse_address,
        "A second data port, where gRPC's clients look first; both speak everything.",
        "127.0.0.1:8001",
    ),
    Setting(
        "observe",
        "ADDR",
        units.parse_address,
        "Where /metrics, /healthz and /readyz are read.",
        "127.0.0.1:8002",
    ),
    Setting(
        "admin",
        "ADDR",
        units.parse_address,
        "Where the admin API is; a bearer token is always needed.",
        "127.0.0.1:8003",
    ),
    Setting(
        "admin-host",
        "NAME",
        units.parse_host_name,
        "A further name the admin API may be called by.",
        "loopback names only",
        many=True,
    ),
    Setting(
        "io-threads", "N", units.parse_count, "Threads that take requests.", "the cores given to the process"
    ),
    Setting(
        "memory-budget",
        "SIZE",
        parse_size,
        "The most memory for models; those unused longest leave it, and come back when they are asked for.",
        "no bound",
    ),
    Setting(
        "request-memory",
        "SIZE",
        parse_size,
        "The most memory for requests in progress: bodies, tensors and answers. Beyond it they are refused (503).",
        "a quarter of the memory given to the process",
    ),
    Setting(
        "load-wait",
        "TIME",
        parse_duration,
        "How long a request waits for a model that has left memory, before it is told to come back (503).",
        "5s",
    ),
    Setting(
        "load-timeout",
        "TIME",
        parse_duration,
        "How long loading and warming the versions of one endpoint may take before it is cancelled.",
        "5m",
    ),
    Setting(
        "drain-delay",
        "TIME",
        parse_duration,
        "How long to go on serving after readiness turns false, so that balancers look away first.",
        "0s",
    ),
    Setting(
        "drain-grace",
        "TIME",
        parse_duration,
        "How long requests in flight may take to finish before they are cut off.",
        "30s",
    ),
    Setting(
        "drain-idle",
        "TIME",
        parse_duration,
        "How long an idle connection may go on when the gateway stops, for a request that is on its way.",
        "2s",
    ),
    Setting(
        "max-body", "SIZE", parse_size, "The largest request body, decompressed, and gRPC message.", "64MiB"
    ),
    Setting(
        "allow-repository-control",
        "on|off",
        units.parse_switch,
        "Let clients load and unload endpoints over the protocol: memory only, never traffic.",
        "off",
        flag=True,
    ),
    Setting(
        "private-webhooks",
        "on|off",
        units.parse_switch,
        "Let webhooks of documents (notify) be at addresses that are not public, and take messages over http.",
        "off",
        flag=True,
    ),
    Setting(
        "gzip-above",
        "SIZE",
        parse_size,
        "Answers larger than this are sent in gzip to clients that ask for it.",
        "16KiB",
    ),
    Setting("access-log", "FILE", parse_path, "Append a JSON line for each sampled request here.", "no log"),
    Setting(
        "access-log-share",
        "SHARE",
        units.parse_share,
        "The share of requests that the access log takes.",
        "100%",
    ),
    Setting(
        "log-format",
        "FORM",
        units.one_of(*logs.FORMS),
        "How the log on stderr is written: json, text, or auto: text on a terminal, JSON elsewhere.",
        "auto",
    ),
    Setting(
        "log-level",
        "LEVEL",
        units.one_of(*logs.LEVELS),
        "The least that is logged: debug, info, warning or error.",
        "info",
    ),
    Setting(
        "metrics-age",
        "TIME",
        parse_duration,
        "How long a page of /metrics is served before the next one is made.",
        "1s",
    ),
    Setting(
        "triton-metrics",
        "on|off",
        units.parse_switch,
        "Show Triton's metric names (nv_inference_...) on /metrics as well.",
        "off",
        flag=True,
    ),
    Setting(
        "sketches", "on|off", units.parse_switch, "Whether inputs and outputs are sketched for drift.", "on"
    ),
    Setting(
        "supervise",
        "on|off",
        units.parse_switch,
        "Begin a new process at once when the gateway dies; the ports stay open meanwhile.",
        "off",
        flag=True,
    ),
    Setting(
        "shadow-cpu",
        "SHARE",
        units.parse_share,
        "The share of the cores that shadows may take together.",
        "25%",
    ),
    Setting(
        "shadow-memory",
        "SIZE",
        parse_size,
        "The most memory for copies of requests that wait for shadows.",
        "256MiB",
    ),
    Setting("sketch-memory", "SIZE", parse_size, "The most memory for drift sketches, all told.", "256MiB"),
    Setting(
        "capture-size",
        "SIZE",
        parse_size,
        "The most disk space for captured requests, over all endpoints; the oldest files go first.",
        "16GiB",
    ),
)

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}
