"""Paths that lead nowhere and methods that a path does not take. Read next: ``cases_http``."""

from __future__ import annotations

from conformance.cases import GOOD, Case

LONG = "n" * 129


def nowhere() -> list[Case]:
    """Paths without anything behind them."""
    paths = [
        "/", "/v2x", "/v1", "/V2", "/v2/health", "/v2/health/", "/v2/health/dead", "/v2/models/pair/infer/",
        "/v2/models/pair/predict", "/v2/models/pair/versions", "/v2/models/pair/versions/1/infer/more",
        "/v2/models//infer", "/v2/nothing", "//v2",
    ]  # fmt: skip
    return [Case(f"path-{path}", path=path, method="GET", status=404, code="not_found") for path in paths]


def unknown() -> list[Case]:
    """Endpoints and versions that do not exist, on every route that names one."""
    cases = []
    for name in ("none", "Pair", LONG):
        path = f"/v2/models/{name}"
        cases += [
            Case(f"{name[:8]}-infer", GOOD, f"{path}/infer", status=404, code="model_not_found"),
            Case(f"{name[:8]}-meta", path=path, method="GET", status=404, code="model_not_found"),
            Case(f"{name[:8]}-ready", path=f"{path}/ready", method="GET", status=404, code="model_not_found"),
        ]
    path = "/v2/models/pair/versions/99"
    return [
        *cases,
        Case("version-infer", GOOD, f"{path}/infer", status=404, code="version_not_found"),
        Case("version-meta", path=path, method="GET", status=404, code="version_not_found"),
        Case("version-ready", path=f"{path}/ready", method="GET", status=404, code="version_not_found"),
    ]


def methods() -> list[Case]:
    """Methods that the path does not take."""
    wrong = [
        ("GET", "/v2/models/pair/infer"),
        ("PUT", "/v2/models/pair/infer"),
        ("DELETE", "/v2/models/pair"),
        ("POST", "/v2/models/pair"),
        ("POST", "/v2"),
        ("POST", "/v2/health/live"),
        ("PATCH", "/v2/health/ready"),
        ("get", "/v2"),
        ("BREW", "/v2"),
    ]
    return [
        Case(f"method-{method}-{path}", path=path, method=method, status=405, code="unsupported")
        for method, path in wrong
    ]


CASES = [*nowhere(), *unknown(), *methods()]
