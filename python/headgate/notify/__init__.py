"""Webhooks: what they are told, how it is signed and sent, and the loop that delivers from the outbox.

Not here: the outbox (``store.outbox``), which webhooks an endpoint has (``control.writes.notifications``). Files in order: ``messages``,
``signing``, ``posting``, ``delivery``. Why it is so: docs/design/notify.md.
"""

from headgate.notify.delivery import Deliveries, Failing, Io
from headgate.notify.messages import Receiver, envelopes, receivers, shown, test_message
from headgate.notify.posting import Addresses, Policy, Post, PostError, post
from headgate.notify.signing import read_reference, sign

__all__ = [
    "Addresses",
    "Deliveries",
    "Failing",
    "Io",
    "Policy",
    "Post",
    "PostError",
    "Receiver",
    "envelopes",
    "post",
    "read_reference",
    "receivers",
    "shown",
    "sign",
    "test_message",
]
