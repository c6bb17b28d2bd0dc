"""Rebuilds the samples behind ``drift.json`` and writes them next to it as ``drift/<case>.<ref|cur>.f64``.

The expected values were computed by scipy 1.17 and numpy 2.4; most samples come from numpy's PCG64, which
Rust cannot replay, so they are kept as little-endian float64 files. Every sample is checked against the
SHA-256 written in ``drift.json`` before it is stored: a numpy whose streams differ is refused, not accepted.

Not here: the expected values themselves (``drift.json``) and the tests (``rust/sketch/tests/vectors.rs``).
Run: ``python tests/vectors/make_drift_samples.py`` (needs numpy).
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Sample = NDArray[np.float64]
Pair = tuple[Sample, Sample]
HERE = Path(__file__).resolve().parent


def golden(n: int, offset: float = 0.0) -> Sample:
    """The additive recurrence of the golden ratio in [0, 1): ``frac((i + 1 + offset) * 0.618...)``."""
    return np.asarray(((np.arange(n) + 1 + offset) * 0.6180339887498949) % 1.0, dtype=np.float64)


def logistic(u: Sample) -> Sample:
    """The standard logistic quantile function; by ``math``, as numpy's own logarithm differs by CPU."""
    return np.array([math.log(x / (1 - x)) for x in u])


def expo(u: Sample) -> Sample:
    """The standard exponential quantile function; by ``math`` for the same reason."""
    return np.array([-math.log1p(-x) for x in u])


def missing() -> Pair:
    """5 % against 20 % missing values."""
    r = np.random.default_rng(1010)
    ref = r.normal(0, 1, 4000)
    ref[::20] = np.nan
    cur = r.normal(0, 1, 4000)
    cur[::5] = np.nan
    return ref, cur


def draw(seed: int, recipe: Callable[[np.random.Generator], tuple[object, object]]) -> Pair:
    """Both samples of a recipe, drawn from one generator in the order reference, current."""
    ref, cur = recipe(np.random.default_rng(seed))
    return np.asarray(ref, dtype="<f8"), np.asarray(cur, dtype="<f8")


RECIPES: dict[str, Callable[[], Pair]] = {
    "n01_normal_shift": lambda: draw(1001, lambda r: (r.normal(0, 1, 10000), r.normal(0.3, 1.1, 5000))),
    "n02_normal_same": lambda: draw(1002, lambda r: (r.normal(0, 1, 10000), r.normal(0, 1, 5000))),
    "n03_lognormal_scale": lambda: draw(
        1003, lambda r: (r.lognormal(0, 1, 20000), r.lognormal(0.2, 1.1, 10000))
    ),
    "n04_tight_offset": lambda: draw(1004, lambda r: (r.normal(1000, 1, 10000), r.normal(1000.5, 1, 10000))),
    "n05_poisson_ties": lambda: draw(1005, lambda r: (r.poisson(3.0, 5000), r.poisson(3.5, 3000))),
    "n06_beta_scores": lambda: draw(1006, lambda r: (r.beta(2, 5, 8000), r.beta(2.5, 4.5, 8000))),
    "n07_small_window": lambda: draw(1007, lambda r: (r.normal(0, 1, 10000), r.normal(0, 1, 50))),
    "n10_missing_5pct_vs_20pct": missing,
    "n11_binary_01": lambda: draw(
        1011, lambda r: ((r.random(5000) < 0.30) * 1.0, (r.random(2000) < 0.36) * 1.0)
    ),
    "p01_logistic_shift": lambda: (logistic(golden(4000)), 0.25 + 1.1 * logistic(golden(2500, 0.5))),
    "p03_expo_scale": lambda: (expo(golden(3000)), 1.3 * expo(golden(3000, 0.25))),
    "p04_uniform_grid": lambda: (np.floor(10 * golden(1000)), np.floor(10 * golden(700, 0.3) ** 1.2)),
    "p06_tiny": lambda: (np.arange(1.0, 11.0), np.arange(3.0, 13.0)),
    "p07_constant_same": lambda: (np.full(100, 2.5), np.full(60, 2.5)),
}


def main() -> int:
    """Writes every sample of ``drift.json``; 1 when one does not have the SHA-256 it should have."""
    cases = json.loads((HERE / "drift.json").read_text())["cases"]
    folder = HERE / "drift"
    folder.mkdir(exist_ok=True)
    faults = 0
    for name, case in cases.items():
        if case["kind"] != "numeric":
            continue
        for side, sample in zip(("ref", "cur"), RECIPES[name](), strict=True):
            data = np.ascontiguousarray(sample, dtype="<f8").tobytes()
            found, wanted = hashlib.sha256(data).hexdigest(), case["expected"][f"sha256_{side}"]
            if found != wanted:
                print(f"{name}.{side}: sha256 {found}, expected {wanted}: not written", file=sys.stderr)
                faults += 1
                continue
            (folder / f"{name}.{side}.f64").write_bytes(data)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
