"""What was probably meant by a name that the gateway does not know: asked of the gateway after the call was refused.

Never a reason of its own to fail: if the names cannot be read, nothing is suggested. Next: exits.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from headgate.cli.client import AdminClient, segment
from headgate.errors import HeadgateError

_MOST = 3
_LONGEST = 200
"""A name that is longer is no mistyped one, and comparing takes the square of its length."""


def suggestion(
    error: HeadgateError, given: Mapping[str, Any], client: Callable[[], AbstractContextManager[AdminClient]]
) -> str | None:
    """``did you mean digits?``, when an endpoint or version that was given is near to one there is."""
    endpoint = given.get("endpoint")
    if not isinstance(endpoint, str):
        return None
    try:
        if error.code == "model_not_found":
            with client() as admin:
                return _near([endpoint], [one["name"] for one in admin.get("/endpoints").body["endpoints"]])
        if _about_version(error):
            with client() as admin:
                known = admin.get(f"/endpoints/{segment(endpoint)}").body["versions"]
                return _near([word for word in _words(given) if word not in known], known)
    except (HeadgateError, KeyError, TypeError, OSError):
        return None
    return None


def _about_version(error: HeadgateError) -> bool:
    """Whether the gateway does not know a version: as the subject of the call, or in one of the faults."""
    faults = error.detail.get("faults", [])
    return error.code == "version_not_found" or any("version" in str(fault) for fault in faults)


def _words(given: Mapping[str, Any]) -> Iterator[str]:
    """The versions among the arguments: ``v2``, and ``v2=5%``."""
    for name, value in given.items():
        for word in value if isinstance(value, tuple) else (value,):
            if isinstance(word, str) and name not in ("endpoint", "reason"):
                yield word.partition("=")[0]


def _near(words: Collection[str], known: Collection[str]) -> str | None:
    found = [
        name
        for word in words
        if len(word) <= _LONGEST
        for name in difflib.get_close_matches(word, list(known), _MOST)
    ]
    return f"did you mean {' or '.join(dict.fromkeys(found))}?" if found else None
