"""What is captured of an endpoint, as the data plane says it, and whether that needs an operator.

Not here: which requests are captured (``documents``), the files (``rust/capture``). Next: ``endpoints``.
"""

from __future__ import annotations

from headgate.control.reads.views import CaptureStatus
from headgate.control.writes.data_plane import Status
from headgate.documents.values import format_weight


def capture(status: Status) -> CaptureStatus | None:
    """None if nothing is captured and nothing was."""
    said = status.get("capture")
    if said is None:
        return None
    return CaptureStatus(**{**said, "share": None if said["share"] is None else format_weight(said["share"])})  # type: ignore[typeddict-item]


def alarms(status: Status) -> list[str]:
    """What keeps requests from being captured."""
    failure = (status.get("capture") or {}).get("failure")
    if failure is None:
        return []
    return [f"nothing is captured since {failure['since']}: {failure['reason']}"]
