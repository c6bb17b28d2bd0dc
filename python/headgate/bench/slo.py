"""An objective: quantiles of the response time with their limits, and the share of requests that may get no good answer.

The share is a quantile, too: with ``errors: 0.1%`` the quantile 0.999 must be a good answer, however slow. So one sequential test decides
both. Not here: the test itself (the data plane). Next: ``scenario``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from headgate.bench.rates import format_ns, format_quantile, parse_ns, parse_quantile
from headgate.bench.results import SloFacts
from headgate.documents.faults import did_you_mean, quoted
from headgate.documents.nodes import WrittenFloat, WrittenInt, describe

ANY_GOOD_ANSWER_NS = 3_600_000_000_000
"""The limit of a quantile that only has to be a good answer: the longest time that a histogram tells apart."""

_KNOWN = ("p50", "p90", "p95", "p99", "p99.9", "errors")


@dataclass(frozen=True)
class Slo:
    """``quantiles`` are pairs of a quantile (0 to 1) and its limit in ns, by quantile; ``errors`` is a share of 0 to 1."""

    quantiles: tuple[tuple[float, int], ...] = ()
    errors: float | None = None

    def objectives(self, alpha: float) -> list[dict[str, Any]]:
        """What the generator tests, each at its part of ``alpha``."""
        wanted = list(self.quantiles)
        if self.errors is not None:
            wanted.append((1 - self.errors, ANY_GOOD_ANSWER_NS))
        return [
            {"quantile": quantile, "limit_ns": limit, "alpha": alpha / len(wanted)}
            for quantile, limit in wanted
        ]

    def facts(self) -> SloFacts:
        """As a result file has it."""
        return SloFacts(
            quantiles={format_quantile(quantile): limit for quantile, limit in self.quantiles},
            errors=self.errors,
        )

    def written(self) -> dict[str, str]:
        """As a document has it."""
        found = {format_quantile(quantile): format_ns(limit) for quantile, limit in self.quantiles}
        if self.errors is not None:
            found["errors"] = format_share(self.errors)
        return found

    def requests_needed(self, alpha: float = 0.05) -> tuple[float, int]:
        """The quantile that needs most requests, and how many: fewer bound it by nothing from above, however good they are.

        The rank u of an interval exists if 1 - p^n >= 1 - alpha/2.
        """
        quantiles = [quantile for quantile, _ in self.quantiles]
        if self.errors:
            quantiles.append(1 - self.errors)
        highest = max(quantiles)
        return highest, math.ceil(math.log(alpha / 2) / math.log(highest) - 1e-9)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.written().items())


def format_share(share: float) -> str:
    """0.001 as ``0.1%``."""
    return f"{round(share * 100, 8):.8f}".rstrip("0").rstrip(".") + "%"


def parse_error_share(text: str) -> float:
    """``0.1%`` as 0.001; below 100 %."""
    number, sign, rest = text.partition("%")
    if not sign or rest.strip():
        raise ValueError(f'{quoted(text)} needs a percent sign, such as "0.1%"')
    try:
        share = float(number) / 100
    except ValueError:
        raise ValueError(f'{quoted(text)} is not a share such as "0.1%"') from None
    if not 0.000_01 <= share < 1:
        raise ValueError(f"{quoted(text)} is not in range: write 0.001% to less than 100%")
    return share


def key_fault(key: str) -> str | None:
    """What is wrong with a key of an objective; None if it is one."""
    if key == "errors":
        return None
    try:
        parse_quantile(key)
    except ValueError as error:
        if key[:1] == "p" and key[1:].replace(".", "").isdigit():
            return str(error)
        return f"is not known here; {did_you_mean(key, _KNOWN)}"
    return None


def parse_values(written: Mapping[str, Any]) -> Slo:
    """The objective of a mapping ``{"p99": "15ms", "errors": "0.1%"}``; ``ValueError`` that names the key."""
    quantiles: dict[float, int] = {}
    errors = None
    for key, given in written.items():
        value = given.text if isinstance(given, WrittenInt | WrittenFloat) else given
        if not isinstance(value, str):
            raise ValueError(f"{key}: must be a text, not {describe(value)}")
        if fault := key_fault(key):
            raise ValueError(fault if fault.startswith('"') else f"{quoted(key)} {fault}")
        try:
            if key == "errors":
                errors = parse_error_share(value)
            else:
                quantiles[parse_quantile(key)] = parse_ns(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    if not quantiles and errors is None:
        raise ValueError('is empty; write an objective, such as {p99: "15ms"}')
    return Slo(tuple(sorted(quantiles.items())), errors)


def split_words(written: Iterable[str]) -> dict[str, str]:
    """``["p99=15ms,errors=0.1%"]`` of a command line as a mapping; ``ValueError`` for a part without ``=`` or one that is there twice."""
    found: dict[str, str] = {}
    for word in ",".join(written).split(","):
        key, equals, value = word.strip().partition("=")
        if not equals or not key or not value:
            raise ValueError(f"{quoted(word)}: write it as QUANTILE=TIME, such as p99=15ms,errors=0.1%")
        if key in found:
            raise ValueError(f"{key} is there twice")
        found[key] = value
    return found
