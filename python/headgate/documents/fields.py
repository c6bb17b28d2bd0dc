"""The types of single fields: each reads what is written, with its unit, and holds it as the program wants it.

Not here: which field is where (``model``), checks between fields (``checks``). Next: ``model``.
"""

from __future__ import annotations

import datetime
import itertools
import math
import re
import sys
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)

from headgate.documents import files, values
from headgate.documents.faults import quoted
from headgate.documents.nodes import WrittenFloat, WrittenInt, describe

MAX_TIMEOUT_MS = 86_400_000
MAX_VERSIONS = 128
MAX_BATCH = 4096
MAX_DELAY_US = 1_000_000
MIN_RETENTION_MS = 3_600_000
MAX_RETENTION_MS = 400 * MAX_TIMEOUT_MS
MAX_RULE_VALUE = 256
MAX_REDACTED = 256
MAX_THREADS = 1024
MAX_COLUMNS = 4096
MAX_TENSORS = 256
_DEVICE = re.compile(r"^(cpu|cuda:(0|[1-9][0-9]{0,2}))$")
_DEVICE_SCHEMA = {"type": "string", "pattern": _DEVICE.pattern}
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1

ConstantValue = bool | int | float | str | tuple[bool | int | float | str, ...]
"""What a constant answers for one tensor: one value, or the values of one row in row-major order."""


def _text(value: Any) -> str:
    """A name as text: an integer as it was written; a fraction is refused, its text would not survive."""
    if isinstance(value, WrittenInt):
        return value.text
    if isinstance(value, WrittenFloat):
        raise ValueError(f'is read as a number with a fraction; quote it: "{value.text}"')
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {describe(value)}")
    return value


def _endpoint_name(value: Any) -> str:
    return values.check_name("endpoint", _text(value))


def _version_name(value: Any) -> str:
    return values.check_name("version", _text(value))


def _label(value: Any) -> str:
    text = values.refuse_secret(_text(value))
    if not 0 < len(text) <= 256 or not text.isprintable():
        raise ValueError("must be 1 to 256 printable characters")
    return text


def _weight(value: Any) -> int:
    if isinstance(value, WrittenInt | WrittenFloat):
        return values.parse_weight(value.text)
    return values.parse_weight(_text(value))


def _timeout(value: Any) -> int:
    if isinstance(value, WrittenInt | WrittenFloat):
        raise ValueError(f'{value.text} needs a unit, such as "{value.text}s" or "{value.text}ms"')
    milliseconds = values.parse_duration(_text(value))
    if not 1 <= milliseconds <= MAX_TIMEOUT_MS:
        raise ValueError(f"must be 1ms to {values.format_duration(MAX_TIMEOUT_MS)}, not {value}")
    return milliseconds


def _retention(value: Any) -> int:
    if isinstance(value, WrittenInt | WrittenFloat):
        raise ValueError(f'{value.text} needs a unit, such as "{value.text}d"')
    milliseconds = values.parse_duration(_text(value))
    if not MIN_RETENTION_MS <= milliseconds <= MAX_RETENTION_MS:
        least, most = values.format_duration(MIN_RETENTION_MS), values.format_duration(MAX_RETENTION_MS)
        raise ValueError(f"must be {least} to {most}, not {value}")
    return milliseconds


def _share(value: Any) -> int:
    share = _weight(value)
    if share == 0:
        raise ValueError("must be at least 0.01%; to copy nothing, remove the whole part")
    return share


def _tolerance(value: Any) -> dict[str, float]:
    """``{"absolute": 0.02}`` or, for a share, ``{"relative": 0.01}``."""
    if isinstance(value, str) and value.endswith("%"):
        return {"relative": values.parse_weight(value) / values.SLOTS}
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'must be a number or a share such as "1%", not {describe(value)}')
    if not 0 <= value < math.inf:
        raise ValueError(f"must be a number of 0 or more, not {describe(value)}")
    try:
        return {"absolute": float(value)}
    except OverflowError:
        raise ValueError(
            f"must be a number of at most {sys.float_info.max:g}, and this one has more digits"
        ) from None


def _written_tolerance(tolerance: dict[str, float]) -> float | str:
    if "relative" in tolerance:
        return values.format_weight(round(tolerance["relative"] * values.SLOTS))
    return tolerance["absolute"]


def _rule_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = _text(value)
    if len(text) > MAX_RULE_VALUE or not text.isprintable():
        raise ValueError(f"must be at most {MAX_RULE_VALUE} printable characters")
    return text


def _delay(value: Any) -> int:
    if isinstance(value, WrittenInt | WrittenFloat):
        raise ValueError(f'{value.text} needs a unit, such as "{value.text}ms" or "{value.text}us"')
    microseconds = values.parse_delay(_text(value))
    if microseconds > MAX_DELAY_US:
        raise ValueError(f"must be at most {values.format_delay(MAX_DELAY_US)}, not {value}")
    return microseconds


def _threads(value: Any) -> int:
    if value == "auto":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_THREADS:
        raise ValueError(f"must be auto or a whole number from 1 to {MAX_THREADS}, not {describe(value)}")
    return int(value)


def _buckets(value: tuple[int, ...]) -> tuple[int, ...]:
    if any(later <= earlier for earlier, later in itertools.pairwise(value)):
        raise ValueError("must grow from one to the next, such as [1, 4, 16]")
    return value


def _devices(value: Any) -> tuple[str, ...]:
    devices = (value,) if isinstance(value, str) else value
    if not isinstance(devices, list | tuple) or not devices:
        raise ValueError(f"must be a device or a list of them, not {describe(value)}")
    for device in devices:
        if not isinstance(device, str):
            raise ValueError(f"holds {describe(device)}; a device is a string")
        if _DEVICE.match(device) is None:
            raise ValueError(
                f"{quoted(device)} is no device: write cpu, or cuda:0 for the first NVIDIA device"
            )
    if len(set(devices)) < len(devices):
        raise ValueError("names a device twice")
    return tuple(devices)


def _size(value: Any) -> int:
    if isinstance(value, WrittenInt | WrittenFloat):
        raise ValueError(f'{value.text} needs a unit, such as "{value.text}GiB" or "{value.text}MiB"')
    return values.parse_size(_text(value))


def _date(value: Any) -> datetime.date:
    try:
        return datetime.date.fromisoformat(_text(value))
    except ValueError:
        raise ValueError(f"must be a date such as 2027-03-01, not {describe(value)}") from None


def _baseline(value: Any) -> str:
    text = _text(value)
    if text in ("artifact", "live"):
        raise ValueError(
            f'baseline "{text}" is not supported yet; write "file:<path>" of an .npz, .npy or .csv'
        )
    files.check_reference(text)
    suffix = text[text.rfind(".") :].lower()
    if suffix == ".parquet":
        raise ValueError("baselines in .parquet are not supported yet; write an .npz, .npy or .csv")
    if suffix not in (".npz", ".npy", ".csv"):
        raise ValueError(f"{quoted(text)} is not a baseline: it must end in .npz, .npy or .csv")
    return text


def _constant(value: Any) -> ConstantValue:
    if not isinstance(value, tuple | list):
        return _constant_scalar(value)
    if not 0 < len(value) <= MAX_COLUMNS:
        raise ValueError(f"must list 1 to {MAX_COLUMNS} values, not {len(value)}")
    row = tuple(_constant_scalar(item) for item in value)
    kinds = {"bool" if isinstance(v, bool) else "string" if isinstance(v, str) else "number" for v in row}
    if len(kinds) > 1:
        raise ValueError(f"mixes {' and '.join(sorted(kinds))}; a tensor has one kind of value")
    return row


def _constant_scalar(value: Any) -> bool | int | float | str:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise ValueError(f"{describe(value)} fits no 64-bit integer")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{describe(value)} is not finite; JSON answers could not carry it")
        return float(value)
    raise ValueError(f"must be a number, true, false, a string or a flat list of them, not {describe(value)}")


_NAME_SCHEMA = {"type": ["string", "integer"], "pattern": r"^(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"}
_SCALAR_SCHEMA = {"type": ["number", "boolean", "string"]}

EndpointName = Annotated[str, BeforeValidator(_endpoint_name), WithJsonSchema(_NAME_SCHEMA)]
VersionName = Annotated[str, BeforeValidator(_version_name), WithJsonSchema(_NAME_SCHEMA)]
Label = Annotated[
    str, BeforeValidator(_label), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 256})
]
Weight = Annotated[
    int,
    BeforeValidator(_weight),
    PlainSerializer(values.format_weight, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]+)? ?%$", "examples": ["2.5%"]}),
]
Share = Annotated[
    int,
    BeforeValidator(_share),
    PlainSerializer(values.format_weight, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]+)? ?%$", "examples": ["10%"]}),
]
Retention = Annotated[
    int,
    BeforeValidator(_retention),
    PlainSerializer(values.format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(s|m|h|d)$", "examples": ["7d"]}),
]
Tolerance = Annotated[
    dict[str, float],
    BeforeValidator(_tolerance),
    PlainSerializer(_written_tolerance, when_used="json"),
    WithJsonSchema({"type": ["number", "string"], "minimum": 0, "pattern": r"^[0-9]{1,3}(\.[0-9]+)? ?%$"}),
]
Redacted = Annotated[tuple[Label, ...], Field(min_length=1, max_length=MAX_REDACTED)]
"""Names of tensors, and of their columns as ``tensor.column``."""
Timeout = Annotated[
    int,
    BeforeValidator(_timeout),
    PlainSerializer(values.format_duration, when_used="json"),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$", "examples": ["200ms", "30s"]}
    ),
]
Delay = Annotated[
    int,
    BeforeValidator(_delay),
    PlainSerializer(values.format_delay, when_used="json"),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(us|ms|s)$", "examples": ["500us", "2ms"]}
    ),
]
Threads = Annotated[
    int,
    BeforeValidator(_threads),
    PlainSerializer(lambda threads: threads or "auto", when_used="json"),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MAX_THREADS}]}),
]
Instances = Annotated[int, Field(ge=1, le=MAX_THREADS)]
BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH)]
Buckets = Annotated[tuple[BatchSize, ...], AfterValidator(_buckets), Field(min_length=1, max_length=32)]
Devices = Annotated[
    tuple[str, ...],
    BeforeValidator(_devices),
    PlainSerializer(lambda devices: devices[0] if len(devices) == 1 else list(devices), when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [_DEVICE_SCHEMA, {"type": "array", "minItems": 1, "items": _DEVICE_SCHEMA}],
            "examples": ["cuda:0", ["cuda:0", "cpu"]],
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(values.format_size, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?[kKMGT]i?B$", "examples": ["4GiB"]}),
]
Date = Annotated[datetime.date, BeforeValidator(_date), WithJsonSchema({"type": "string", "format": "date"})]
Reference = Annotated[
    str,
    BeforeValidator(lambda value: files.check_reference(_text(value))),
    WithJsonSchema({"type": "string", "pattern": "^file:.+", "examples": ["file:models/digits/1"]}),
]
Baseline = Annotated[
    str,
    BeforeValidator(_baseline),
    WithJsonSchema({"type": "string", "pattern": r"^file:.+\.([nN][pP][zZyY]|[cC][sS][vV])$"}),
]
Header = Annotated[
    str,
    BeforeValidator(lambda value: values.parse_header(_text(value))),
    WithJsonSchema({"type": "string", "pattern": r"^header\..+", "examples": ["header.x-user-id"]}),
]
Subject = Annotated[
    str,
    BeforeValidator(lambda value: values.parse_subject(_text(value))),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(header|parameter)\..+",
            "examples": ["header.x-tester", "parameter.tier"],
        }
    ),
]
RuleValue = Annotated[
    str,
    BeforeValidator(_rule_value),
    WithJsonSchema({"type": ["string", "integer", "boolean"], "maxLength": MAX_RULE_VALUE}),
]
Constant = Annotated[
    Any,  # a ConstantValue; the union would make pydantic try each member when it serialises
    PlainValidator(_constant),
    WithJsonSchema({"anyOf": [_SCALAR_SCHEMA, {"type": "array", "minItems": 1, "items": _SCALAR_SCHEMA}]}),
]


Names = Annotated[
    dict[Label, Annotated[tuple[Label, ...], Field(min_length=1, max_length=MAX_COLUMNS)]],
    Field(max_length=MAX_TENSORS),
]
