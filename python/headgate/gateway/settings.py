"""The settings of ``headgate serve`` in their three shapes: as written, validated, resolved.

``Layer`` is what one source wrote (command line, environment, file), ``ValidatedSettings`` the merged values with
their types, ``Settings`` the same with nothing left open. Validation touches no file but the configuration
file and the machine is only asked in :func:`resolve`. Documents of endpoints are something else: see
headgate/documents. Next: process.py, which runs a gateway with ``Settings``.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from headgate.errors import InvalidArgument
from headgate.gateway import addresses, units
from headgate.gateway.settings_table import BY_NAME, SETTINGS, Setting, parse_path
from headgate.gateway.units import Address, default_state
from headgate.private_files import state_place


@dataclass(frozen=True)
class Layer:
    """What one source wrote, as text, by setting name; ``origin`` is how a message names the source of a
    value.
    """

    origin: Callable[[Setting], str]
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ValidatedSettings:
    """Every value with its type; ``None`` where nobody wrote one."""

    models: Path | None = None
    state: Path | None = None
    keep_revisions: int | None = None
    keep_history: int | None = None
    keep_audit: int | None = None
    root: Path | None = None
    http: Address | None = None
    grpc: Address | None = None
    observe: Address | None = None
    admin: Address | None = None
    admin_host: tuple[str, ...] = ()
    io_threads: int | None = None
    memory_budget: int | None = None
    request_memory: int | None = None
    load_wait: int | None = None
    load_timeout: int | None = None
    drain_delay: int | None = None
    drain_grace: int | None = None
    drain_idle: int | None = None
    max_body: int | None = None
    allow_repository_control: bool | None = None
    private_webhooks: bool | None = None
    gzip_above: int | None = None
    access_log: Path | None = None
    access_log_share: float | None = None
    log_format: str | None = None
    log_level: str | None = None
    metrics_age: int | None = None
    triton_metrics: bool | None = None
    sketches: bool | None = None
    supervise: bool | None = None
    shadow_cpu: float | None = None
    shadow_memory: int | None = None
    sketch_memory: int | None = None
    capture_size: int | None = None


@dataclass(frozen=True)
class Settings:
    """What one gateway runs with; only the folders and the file that a person may leave out are optional."""

    documents: tuple[Path, ...]
    models: Path | None
    state: Path
    keep_revisions: int
    keep_history_ms: int
    keep_audit_ms: int
    root: Path | None
    http: Address
    grpc: Address
    observe: Address
    admin: Address
    admin_hosts: tuple[str, ...]
    io_threads: int
    pool_threads: int
    memory_budget_bytes: int | None
    request_memory_bytes: int
    load_wait_ms: int
    load_timeout_ms: int
    drain_delay_ms: int
    drain_grace_ms: int
    drain_idle_ms: int
    max_body_bytes: int
    allow_repository_control: bool
    private_webhooks: bool
    gzip_above_bytes: int
    access_log: Path | None
    access_log_share: float
    log_format: str
    log_level: str
    metrics_age_ms: int
    triton_metrics: bool
    sketches: bool
    supervise: bool
    shadow_cpu: float
    shadow_memory_bytes: int
    sketch_memory_bytes: int
    capture_bytes: int

    @property
    def kept(self) -> dict[str, int]:
        """How much of the past is kept, as the control plane takes it."""
        return {
            "revisions": self.keep_revisions,
            "revision_seconds": self.keep_history_ms // 1000,
            "audit_seconds": self.keep_audit_ms // 1000,
        }


def command_line(given: Mapping[str, str | Sequence[str] | None]) -> Layer:
    """The layer of the command line: setting names to what was written, ``None`` or empty where nothing was."""
    values = {
        name: (value,) if isinstance(value, str) else tuple(value) for name, value in given.items() if value
    }
    return Layer(lambda setting: f"--{setting.name}", values)


def environment(variables: Mapping[str, str]) -> Layer:
    """The layer of ``HEADGATE_*``. An empty variable counts as not set, as it does for most shells' users."""
    values: dict[str, Sequence[str]] = {}
    for setting in SETTINGS:
        text = variables.get(setting.variable, "")
        if text:
            values[setting.name] = [part.strip() for part in text.split(",")] if setting.many else [text]
    return Layer(lambda setting: setting.variable, values)


def configuration_file(path: Path) -> Layer:
    """The layer of a YAML file of ``setting: value`` lines; unknown and duplicate keys are refused.

    Relative paths in it are below the file's own folder, so that it means the same from everywhere.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(f"--config {path}: cannot be read: {error.strerror}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"--config {path}: is not YAML: {error}") from error
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise InvalidArgument(
            f"--config {path}: must be lines of `setting: value`, not a {type(raw).__name__}"
        )
    values = {str(name): _texts(path, str(name), value) for name, value in raw.items()}
    return Layer(lambda setting: f"{path}: {setting.name}", values)


def _texts(path: Path, name: str, value: object) -> list[str]:
    setting = BY_NAME.get(name)
    if setting is None:
        near = difflib.get_close_matches(name, BY_NAME, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(BY_NAME)}"
        raise InvalidArgument(f"{path}: no setting is called {name!r}; {hint}")
    if isinstance(value, list) and not setting.many:
        raise InvalidArgument(f"{path}: {name} takes one value, not a list")
    given = value if isinstance(value, list) else [value]
    texts = []
    for one in given:
        if isinstance(one, bool) and setting.parse is units.parse_switch:
            texts.append("on" if one else "off")
        elif isinstance(one, str | int) and not isinstance(one, bool):
            texts.append(str(one))
        else:
            raise InvalidArgument(
                f"{path}: {name}: {one!r} is not what {setting.metavar} means; {setting.help}"
            )
    if setting.parse is parse_path:
        return [str(path.parent / Path(text).expanduser()) for text in texts]
    return texts


def validate(layers: Sequence[Layer]) -> ValidatedSettings:
    """Merges the layers, the first that writes a setting wins, and types every value.

    Raises :class:`InvalidArgument` that lists every bad value with the place it was written at.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for setting in SETTINGS:
        layer = next((layer for layer in layers if layer.values.get(setting.name)), None)
        if layer is None:
            continue
        try:
            parsed = [setting.parse(text) for text in layer.values[setting.name]]
        except ValueError as error:
            faults.append(f"{layer.origin(setting)}: {error}")
            continue
        values[setting.key] = tuple(parsed) if setting.many else parsed[0]
    if faults:
        raise InvalidArgument("; ".join(faults), detail={"faults": faults})
    return ValidatedSettings(**values)


def resolve(
    given: ValidatedSettings,
    documents: Sequence[Path],
    variables: Mapping[str, str],
    cores: Callable[[], units.Cores],
    memory: Callable[[], int],
) -> Settings:
    """Fills in what nobody wrote; ``variables`` is the environment, ``cores`` and ``memory`` ask the machine
    for what is given to the process.
    """
    usable = cores().usable
    ports = {
        "http": given.http or Address("127.0.0.1", 8000),
        "grpc": given.grpc or Address("127.0.0.1", 8001),
        "observe": given.observe or Address("127.0.0.1", 8002),
        "admin": given.admin or Address("127.0.0.1", 8003),
    }
    _check_distinct(ports)
    max_body = 64 << 20 if given.max_body is None else given.max_body
    return Settings(
        documents=tuple(documents),
        models=given.models,
        state=state_place((given.state or default_state(variables)).absolute()),
        keep_revisions=given.keep_revisions or 1_000,
        keep_history_ms=90 * _DAY_MS if given.keep_history is None else given.keep_history,
        keep_audit_ms=400 * _DAY_MS if given.keep_audit is None else given.keep_audit,
        # Absolute: it is stored with revisions, and the next start may be made from another folder.
        root=None if given.root is None else given.root.absolute(),
        http=ports["http"],
        grpc=ports["grpc"],
        observe=ports["observe"],
        admin=ports["admin"],
        admin_hosts=given.admin_host,
        io_threads=given.io_threads or usable,
        pool_threads=usable,
        memory_budget_bytes=given.memory_budget,
        request_memory_bytes=_request_memory(given.request_memory, max_body, memory),
        load_wait_ms=5_000 if given.load_wait is None else given.load_wait,
        load_timeout_ms=300_000 if given.load_timeout is None else given.load_timeout,
        drain_delay_ms=given.drain_delay or 0,
        drain_grace_ms=30_000 if given.drain_grace is None else given.drain_grace,
        drain_idle_ms=2_000 if given.drain_idle is None else given.drain_idle,
        max_body_bytes=max_body,
        allow_repository_control=bool(given.allow_repository_control),
        private_webhooks=bool(given.private_webhooks),
        gzip_above_bytes=16 << 10 if given.gzip_above is None else given.gzip_above,
        access_log=None if given.access_log is None else given.access_log.absolute(),
        access_log_share=1.0 if given.access_log_share is None else given.access_log_share,
        log_format=given.log_format or "auto",
        log_level=given.log_level or "info",
        metrics_age_ms=1_000 if given.metrics_age is None else given.metrics_age,
        triton_metrics=bool(given.triton_metrics),
        sketches=True if given.sketches is None else given.sketches,
        supervise=bool(given.supervise),
        shadow_cpu=0.25 if given.shadow_cpu is None else given.shadow_cpu,
        shadow_memory_bytes=256 << 20 if given.shadow_memory is None else given.shadow_memory,
        sketch_memory_bytes=256 << 20 if given.sketch_memory is None else given.sketch_memory,
        capture_bytes=16 << 30 if given.capture_size is None else given.capture_size,
    )


_DAY_MS = 86_400_000
#: Of the memory for requests in progress, the part that is kept for small ones.
SMALL_PART = 8
#: The part of the machine's memory that requests in progress may take.
_PART_OF_MEMORY = 4


def _request_memory(given: int | None, max_body: int, memory: Callable[[], int]) -> int:
    """What was written, or a part of the machine. The largest body fits in any case: a request takes its body twice, as it came
    and as tensors.
    """
    least = -(-2 * max_body * SMALL_PART // (SMALL_PART - 1))
    if given is None:
        return max(memory() // _PART_OF_MEMORY, least)
    if given < least:
        raise InvalidArgument(
            f"--request-memory {given} bytes has no room for one body of --max-body ({max_body} bytes) and its tensors; "
            f"give at least {least} bytes, or a smaller --max-body"
        )
    return given


def _check_distinct(given: Mapping[str, Address]) -> None:
    """Raises :class:`InvalidArgument` for two ports of ours at one place: the system would say so only when both listen."""
    for (name, one), (other, two) in itertools.combinations(given.items(), 2):
        if one.port == two.port != 0 and addresses.meet(one.host, two.host):
            raise InvalidArgument(
                f"--{name} {one} and --{other} {two} are one place; give each a port of its own"
            )
