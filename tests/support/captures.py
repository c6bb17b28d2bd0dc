"""Files of captured requests as a gateway writes them, with the columns that a replay reads: one input X, FP32 [-1, 2].

Not here: the writer itself (``rust/capture``), whose files ``tests/e2e/test_capture.py`` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

_BEGIN_US = 1_800_000_000_000_000
SECOND_US = 1_000_000


def row(at_us: int, value: float = 1.0, *, took_ns: int = 1_000_000, code: str = "ok") -> dict[str, Any]:
    """A request of one row, whose response was out ``at_us`` after the begin."""
    return {
        "time": _BEGIN_US + at_us,
        "code": code,
        "total_ns": took_ns,
        "input_shape.X": [1, 2],
        "input.X": [value, value],
    }


def write(
    path: Path, batches: Sequence[Sequence[dict[str, Any]]], *, datatype: str = "FP32", redacted: bool = False
) -> None:
    """A file as the gateway writes it, with the columns that are read."""
    metadata = {"headgate.datatype": datatype, **({"headgate.redacted": "*"} if redacted else {})}
    schema = pa.schema(
        [
            pa.field("time", pa.timestamp("us", "UTC")),
            pa.field("code", pa.utf8()),
            pa.field("total_ns", pa.uint64()),
            pa.field("input_shape.X", pa.list_(pa.int64())),
            pa.field("input.X", pa.list_(pa.float32()), metadata=metadata),
        ]
    )
    with path.open("wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for batch in batches:
            stream.write_batch(pa.RecordBatch.from_pylist(list(batch), schema))
