"""What `headgate get` says of a trial."""

from __future__ import annotations

from typing import Any

from headgate.cli.trial_view import trial_view


def arm(version: str, **changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(
        (
            "shed",
            "not_ready",
            "fell_back",
            "cancelled",
            "lost",
            "errors",
            "first_errors",
            "first_errors_after",
        ),
        0,
    )
    times = {"count": 90, "p50": 120.0, "p95": 250.0, "p99": 300.0}
    rest = {"slots": 5_000, "routed": 100, "ran": 100, "units": 40, "nan_answers": 0, "answers": 100}
    return {"version": version, **counts, **rest, "run_us": times, "reply_us": times, **changes}


def trial(**changes: Any) -> dict[str, Any]:
    return {
        "attempt": "digits/2/1",
        "begun": "2026-01-01T10:00:00Z",
        "unit": "sticky_key",
        "sticky": "x-user-id",
        "gaps": [],
        "dropped": {"minutes": 0, "first_errors": 0, "gaps": 0},
        "arms": [arm("v1"), arm("v2", ran=88, shed=12, errors=3, first_errors=2, nan_answers=5, answers=85)],
        **changes,
    }


def test_a_row_for_each_version_and_a_line_about_the_trial() -> None:
    lines = trial_view(trial())
    header, champion, challenger, about, blank = lines
    assert all(name in header for name in ("TRIAL", "ROUTED", "RAN", "ERRORS", "FIRST OF UNITS", "NaN"))
    assert champion.split()[:4] == ["v1", "100", "100", "0"]
    assert "88: 12 shed" in challenger
    assert "2 of 40" in challenger
    assert "5 of 85" in challenger
    assert about == "trial digits/2/1: since 2026-01-01T10:00:00Z, units are sticky keys (x-user-id)"
    assert blank == ""


def test_restarts_and_what_fell_out_are_said() -> None:
    gap = {"since": "2026-01-01T11:00:00Z", "until": "2026-01-01T11:00:07Z"}
    dropped = {"minutes": 3, "first_errors": 2, "gaps": 0}
    about = trial_view(trial(gaps=[gap], dropped=dropped, unit="request", sticky=None))[-2]
    assert "units are requests" in about
    assert (
        "1 restart, the last one: nothing is known from 2026-01-01T11:00:00Z to 2026-01-01T11:00:07Z" in about
    )
    assert about.endswith("3 minutes fell out; 2 first errors fell out")


def test_a_version_without_slots_has_no_row_and_no_trial_has_no_line() -> None:
    assert len(trial_view(trial(arms=[arm("v1"), arm("v2", slots=None)]))) == 4
    assert trial_view(None) == []
