"""The grammar of single values: names, weights, durations, sizes, headers, secrets. Pure functions.

Every function raises ``ValueError`` with a sentence that says what would be right; the caller knows the path.
Next: ``model``, which uses them as field types.
"""

from __future__ import annotations

import re
from decimal import Decimal

from headgate.documents.faults import quoted

MAX_NAME = 128
"""The longest name, in bytes; the same as in ``rust/core/src/id.rs``."""

SLOTS = 10_000
"""Slots of 0.01 % each that make 100 %."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_WEIGHT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,20})?) ?%\Z")
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)\Z")
_DELAY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(us|ms|s)\Z")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\Z")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_SECRET = re.compile(r"\$\{env:[A-Za-z_][A-Za-z0-9_]*\}\Z")
_DIGITS = re.compile(r"([0-9]+)")
_OWN_PARAMETERS = frozenset({"binary_data_output", "timeout", "priority"})
"""Parameters that the protocol gives a meaning; the same as in ``rust/protocol/src/envelope/values.rs``."""
_RESERVED_PARAMETERS = ("triton_", "sequence_")

_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_US = {"us": 1, "ms": 1000, "s": 1_000_000}
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def is_name(name: str) -> bool:
    """Whether ``name`` fits the grammar of endpoint and version names."""
    return _NAME.match(name) is not None and ".." not in name


def check_name(what: str, name: str) -> str:
    """``name`` itself, or ``ValueError`` naming ``what`` ("endpoint", "version") and the grammar."""
    if not is_name(name):
        raise ValueError(
            f"{what} name {quoted(name)} is not valid: use 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ -, "
            'the first of them no . or -, and no ".."'
        )
    return name


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that reads digits as numbers: ``v9`` before ``v10``, and every text before its extensions."""
    parts = _DIGITS.split(text)
    return tuple((1, int(p), p) if i % 2 else (0, 0, p) for i, p in enumerate(parts))


def parse_weight(text: str) -> int:
    """A share such as ``2.5%`` in slots of 0.01 %, 0 to 10 000, exactly."""
    match = _WEIGHT.match(text)
    if match is None:
        hint = f': write "{text}%"' if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,2})?", text) else ' such as "2.5%"'
        if "%" in text:
            raise ValueError(f'{quoted(text)} is not a share of 0% to 100% such as "2.5%"')
        raise ValueError(f"{quoted(text)} needs a percent sign{hint}")
    slots = Decimal(match[1]) * 100
    if slots > SLOTS:
        raise ValueError(f"{quoted(text)} is more than 100%")
    if slots != int(slots):
        raise ValueError(f"{quoted(text)} is finer than the steps of 0.01% that a weight has")
    return int(slots)


def format_weight(slots: int) -> str:
    """``250`` as ``2.5%``: the shortest text that :func:`parse_weight` reads back; slots 0 to 10 000."""
    if not 0 <= slots <= SLOTS:
        raise ValueError(f"{slots} slots are not 0 to {SLOTS}")
    whole, part = divmod(slots, 100)
    return f"{whole}.{part:02d}".rstrip("0").rstrip(".") + "%"


def parse_duration(text: str) -> int:
    """A duration such as ``200ms``, ``1.5s``, ``5m``, ``24h``, ``7d`` in milliseconds, exactly."""
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(
            f'{quoted(text)} is not a duration: write a number and a unit, such as "200ms", "30s", "5m", "24h", "7d"'
        )
    return _scaled(text, match, _MS, "a millisecond")


def format_duration(milliseconds: int) -> str:
    """``30000`` as ``30s``: the largest unit that divides it; ``parse_duration`` reads it back."""
    if milliseconds < 0:
        raise ValueError(f"{milliseconds} ms is negative")
    unit = next(u for u in ("d", "h", "m", "s", "ms") if milliseconds % _MS[u] == 0) if milliseconds else "ms"
    return f"{milliseconds // _MS[unit]}{unit}"


def parse_delay(text: str) -> int:
    """A short duration such as ``500us``, ``2ms``, ``0.1s`` in microseconds, exactly."""
    match = _DELAY.match(text)
    if match is None:
        raise ValueError(
            f'{quoted(text)} is not a delay: write a number and a unit, such as "500us" or "2ms"'
        )
    return _scaled(text, match, _US, "a microsecond")


def format_delay(microseconds: int) -> str:
    """``2000`` as ``2ms``; ``parse_delay`` reads it back."""
    unit = next(u for u in ("s", "ms", "us") if microseconds % _US[u] == 0) if microseconds else "us"
    return f"{microseconds // _US[unit]}{unit}"


def parse_size(text: str) -> int:
    """A size such as ``64MiB``, ``2GiB``, ``500kB`` in bytes, exactly."""
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(
            f'{quoted(text)} is not a size: write a number and a unit, such as "64MiB", "2GiB", "500kB"'
        )
    return _scaled(text, match, _BYTES, "a byte")


def format_size(size: int) -> str:
    """``4294967296`` as ``4GiB``: the largest binary unit that divides it; :func:`parse_size` reads it back."""
    unit = next(unit for unit in ("TiB", "GiB", "MiB", "KiB", "B") if size % _BYTES[unit] == 0)
    return f"{size // _BYTES[unit]}{unit}"


def parse_header(text: str) -> str:
    """``header.<name>`` with the name in lower case; anything else is refused."""
    prefix, dot, name = text.partition(".")
    if prefix != "header" or not dot:
        raise ValueError(f'{quoted(text)} names no header: write "header.<name>", such as "header.x-user-id"')
    if _HEADER.match(name) is None:
        raise ValueError(f"{quoted(name)} is not a header name: use 1 to 128 letters, digits and - _ .")
    return f"header.{name.lower()}"


def parse_subject(text: str) -> str:
    """``header.<name>`` in lower case or ``parameter.<name>`` as written; anything else is refused."""
    prefix, _, name = text.partition(".")
    if prefix == "header":
        return parse_header(text)
    if prefix != "parameter" or not name:
        raise ValueError(
            f'{quoted(text)} names no header and no parameter: write "header.<name>" or "parameter.<name>"'
        )
    if len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"{quoted(name)} is not a parameter name: use 1 to {MAX_NAME} printable characters")
    if name in _OWN_PARAMETERS or name.startswith(_RESERVED_PARAMETERS):
        raise ValueError(f"{quoted(name)} has a meaning of its own in the protocol; no rule sees it")
    return text


def refuse_secret(text: str) -> str:
    """``text`` itself, or ``ValueError`` when it holds ``${``: only secrets are taken from elsewhere."""
    if "${" not in text:
        return text
    if _SECRET.match(text):
        raise ValueError(f"{text} stands for a secret, and this field takes none: write the value")
    raise ValueError(
        f"{quoted(text)} is not expanded: only a secret may be taken from elsewhere, as ${{env:NAME}}"
    )


def _scaled(text: str, match: re.Match[str], units: dict[str, int], smallest: str) -> int:
    value = Decimal(match[1]) * units[match[2]]
    if value != int(value):
        raise ValueError(f"{quoted(text)} is finer than {smallest}")
    return int(value)
