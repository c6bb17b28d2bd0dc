"""Parts of charts as SVG text: scales, axes, lines, marks. Colours are classes of the page's style sheet, so that both themes fit.

Every text is escaped here. Not here: what is drawn (``charts``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape as _escape

WIDTH = 760
LEFT, RIGHT, TOP, BOTTOM = 64, 18, 34, 44
_STEPS = (1, 2, 5)


def escape(text: object) -> str:
    """Text for an element or a quoted attribute; control characters, which XML has no place for, become a question mark."""
    plain = "".join(
        "?" if (ord(one) < 32 and one not in "\n\t") or 0xD800 <= ord(one) < 0xE000 else one
        for one in str(text)
    )
    return _escape(plain, {'"': "&quot;", "'": "&#39;"})


@dataclass(frozen=True)
class Scale:
    """From values between ``low`` and ``high`` to pixels between ``start`` and ``end``; values outside are put at the edge."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return self.start + (self.end - self.start) * ((at - low) / (high - low) if high > low else 0.5)

    def ticks(self, most: int = 8) -> list[float]:
        """Round values inside of the scale, at most ``most`` or so."""
        return (
            _log_ticks(self.low, self.high, most)
            if self.logarithmic
            else _linear_ticks(self.low, self.high, most)
        )


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (*_STEPS, 10) if power * factor >= rough)
    return [step * at for at in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for steps in (_STEPS, (1, 3), (1,)):
        found = [10.0**power * step for power in range(first, last + 1) for step in steps]
        found = [one for one in found if low * 0.999 <= one <= high * 1.001]
        if len(found) <= most:
            break
    return found


@dataclass(frozen=True)
class Frame:
    """The inside of a chart: both scales and its height."""

    x: Scale
    y: Scale
    height: int

    @staticmethod
    def of(
        x: tuple[float, float],
        y: tuple[float, float],
        height: int,
        *,
        log_x: bool = False,
        log_y: bool = True,
    ) -> Frame:
        """A frame for values between these ends."""
        return Frame(
            Scale(*x, LEFT, WIDTH - RIGHT, log_x),
            Scale(*y, height - BOTTOM, TOP, log_y),
            height,
        )


def chart(name: str, title: str, described: str, height: int, parts: Iterable[str]) -> str:
    """A whole SVG element with its title and description for those who do not see it. ``name`` is unique on the page."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(described)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def text(x: float, y: float, said: object, kind: str = "", anchor: str = "start") -> str:
    """A text at a place; ``anchor`` is start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(said)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def rect(x: float, y: float, width: float, height: float, kind: str, hint: str = "") -> str:
    """A rectangle with a hint."""
    inside = f"<title>{escape(hint)}</title>" if hint else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" class="{kind}">{inside}</rect>'


def path(points: Sequence[tuple[float, float] | None], kind: str) -> str:
    """A line through points; None interrupts it."""
    words, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        words.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
        pen = "L"
    return f'<path d="{" ".join(words)}" class="{kind}"/>' if words else ""


def mark(x: float, y: float, shape: str, kind: str, hint: str) -> str:
    """A mark of a point: ``dot``, ``ring``, ``cross`` or ``up`` for a value beyond the top."""
    inside = f"<title>{escape(hint)}</title>"
    if shape in ("dot", "ring"):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="{kind} {shape}">{inside}</circle>'
    drawn = (
        f"M{x - 5:.1f} {y - 5:.1f}L{x + 5:.1f} {y + 5:.1f}M{x - 5:.1f} {y + 5:.1f}L{x + 5:.1f} {y - 5:.1f}"
        if shape == "cross"
        else f"M{x - 6:.1f} {y + 8:.1f}L{x:.1f} {y:.1f}L{x + 6:.1f} {y + 8:.1f}M{x:.1f} {y:.1f}L{x:.1f} {y + 16:.1f}"
    )
    return f'<path d="{drawn}" class="{kind} cross">{inside}</path>'


def axes(
    frame: Frame,
    x_name: str,
    y_name: str,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
) -> str:
    """Grid lines, their labels and the names of both axes."""
    bottom, right = frame.height - BOTTOM, WIDTH - RIGHT
    parts = [line(LEFT, frame.y(at), right, frame.y(at), "grid") for at, _ in y_ticks]
    parts += [text(LEFT - 8, frame.y(at) + 4, said, "tick", "end") for at, said in y_ticks]
    parts += [line(frame.x(at), bottom, frame.x(at), bottom + 5, "axis") for at, _ in x_ticks]
    parts += [text(frame.x(at), bottom + 18, said, "tick", "middle") for at, said in x_ticks]
    parts.append(line(LEFT, bottom, right, bottom, "axis"))
    parts.append(text((LEFT + right) / 2, frame.height - 6, x_name, "name", "middle"))
    parts.append(text(8, 16, y_name, "name"))
    return "".join(parts)


def legend(entries: Sequence[tuple[str, str, str]], right: float = WIDTH - RIGHT, y: float = 16) -> str:
    """Entries in a row that ends at ``right``: a sample (``line``, ``dot``, ``ring``, ``cross``, ``box``), its class, what it means."""
    parts, x = [], right
    for sample, kind, said in reversed(entries):
        x -= 6.3 * len(said)
        parts.append(text(x, y, said, "tick"))
        if sample == "line":
            parts.append(line(x - 24, y - 4, x - 6, y - 4, kind))
        elif sample == "box":
            parts.append(rect(x - 18, y - 10, 12, 12, kind))
        else:
            parts.append(mark(x - 12, y - 4, sample, kind, said))
        x -= 38
    return "".join(parts)
