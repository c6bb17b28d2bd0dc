"""The metrics of webhooks, declared once as all others are (``declared``).

A receiver is a host, or the variable or file that the document names: addresses hold secrets. Next: app.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headgate.observe.facts import Declared, Facts, Samples, WebhookFacts

_Pair = tuple[str, str]


def _per_receiver(value: Callable[[WebhookFacts], Mapping[_Pair, float]]) -> Callable[[Facts], Samples]:
    def samples(facts: Facts) -> Samples:
        found = {} if facts.webhooks is None else value(facts.webhooks)
        return [
            ({"endpoint": endpoint, "receiver": receiver}, float(count))
            for (endpoint, receiver), count in found.items()
        ]

    return samples


def _dropped(facts: Facts) -> Samples:
    found = {} if facts.webhooks is None else facts.webhooks.dropped
    return [
        ({"endpoint": endpoint, "receiver": receiver, "reason": reason}, float(count))
        for (endpoint, receiver, reason), count in found.items()
    ]


WEBHOOKS: tuple[Declared, ...] = (
    Declared(
        "headgate_webhook_delivered_total",
        "counter",
        "Messages that a receiver took (notify).",
        _per_receiver(lambda facts: facts.delivered),
    ),
    Declared(
        "headgate_webhook_failed_total",
        "counter",
        "Attempts to deliver a message that failed; it is tried again.",
        _per_receiver(lambda facts: facts.failed),
    ),
    Declared(
        "headgate_webhook_waiting",
        "gauge",
        "Messages that wait for a receiver.",
        _per_receiver(lambda facts: facts.waiting),
    ),
    Declared(
        "headgate_webhook_oldest_age_seconds",
        "gauge",
        "The age of the oldest message that waits for a receiver; 0 without one.",
        _per_receiver(lambda facts: facts.oldest),
    ),
    Declared(
        "headgate_webhook_dropped_total",
        "counter",
        "Messages that were dropped without having been delivered: full (too many waited), too_old (nobody took them for three days), "
        "unsubscribed (the document does not name the receiver any more).",
        _dropped,
    ),
)
