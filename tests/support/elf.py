"""Shared libraries that hold nothing but the names of those that they need."""

from __future__ import annotations

import struct
from pathlib import Path

_BASE = 0x1000
"""Where the file lies in memory: an address is not an offset."""


def library_that_needs(path: Path, *names: str) -> Path:
    """Writes an ELF file of 64 bits with these names as ``DT_NEEDED``, as elf(5) has it."""
    strings, entries = b"\0", []
    for name in names:
        entries.append((1, len(strings)))
        strings += name.encode() + b"\0"
    dynamic_at = 64 + 2 * 56
    strings_at = dynamic_at + 16 * (len(entries) + 2)
    entries += [(5, _BASE + strings_at), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    end = strings_at + len(strings)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    loaded = struct.pack("<IIQQQQQQ", 1, 4, 0, _BASE, _BASE, end, end, 0x1000)
    own = len(dynamic)
    segment = struct.pack("<IIQQQQQQ", 2, 4, dynamic_at, _BASE + dynamic_at, _BASE + dynamic_at, own, own, 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + loaded + segment + dynamic + strings)
    return path
