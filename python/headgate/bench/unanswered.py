"""What is said of a load of which no request got a good answer, before anything else is. Next: ``run``."""

from __future__ import annotations

from headgate.bench.results import Answer


def unanswered_words(answer: Answer) -> str | None:
    """``nothing was answered well: 50 requests, first error: 503 overloaded``; None if something was, or nothing was sent.

    The error is the most frequent one.
    """
    counts = answer.counts
    if not counts.due or counts.good:
        return None
    if counts.unsent == counts.due:
        return f"nothing was sent: {counts.due} requests found the most in flight"
    first = f", first error: {answer.errors[0].what}" if answer.errors else ""
    return f"nothing was answered well: {counts.due} requests{first}"
