"""The observe port: read-only metrics and health. It has no routes that change anything; see app.py."""

from headgate.observe.app import Sources, create_app
from headgate.observe.facts import ConnectionCounts

__all__ = ["ConnectionCounts", "Sources", "create_app"]
