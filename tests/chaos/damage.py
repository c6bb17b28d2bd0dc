"""Damage to the files of a gateway that does not run: a byte with other bits, a file that is gone.

Not here: what must follow from it (``suite``).
"""

from __future__ import annotations

from pathlib import Path

_FILES = {
    "database": "headgate.db",
    "wal": "headgate.db-wal",
    "applied": "applied.json",
    "artifact": "artifacts/*/model.onnx",
    "baseline": "baselines/*",
}
NEEDS_KILL = ("wal", "wal lost")
"""A gateway that was stopped leaves no write-ahead log."""


def damage(state: Path, kind: str, place: float, bits: int) -> str:
    """Damages one file; what was done, empty when there is none of that kind."""
    if kind.endswith(" lost"):
        path = state / _FILES[kind.removesuffix(" lost")]
        if not path.exists():
            return ""
        path.unlink()
        return f"{path.name} removed"
    found = sorted(path for path in state.glob(_FILES[kind]) if path.is_file() and path.stat().st_size)
    if not found:
        return ""
    path = found[int(place * len(found))]
    data = bytearray(path.read_bytes())
    # Another digit of the same draw, so that the place in the file does not depend on how many files there are.
    at = int(place * 7919 % 1 * len(data))
    data[at] ^= bits
    path.chmod(0o600)
    path.write_bytes(data)
    return f"byte {at} of {len(data)} of {path.relative_to(state)} xor {bits:#04x}"
