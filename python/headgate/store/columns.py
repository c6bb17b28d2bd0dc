"""Types of columns that take and refuse the same on every database.

Not here: the tables (``models``). Next: ``models``.

SQLite keeps a NUL in a text and any length, PostgreSQL does not; neither keeps half of a surrogate pair. JSON has neither NaN
nor infinity. What one of them cannot keep is refused as ``invalid_argument`` on both, before a statement is sent.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sqlalchemy import Text as PlainText
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from headgate.errors import InvalidArgument
from headgate.store.clock import stamp, unstamp

LARGEST = 2**63 - 1
"""The largest number that a column keeps."""

_SHOWN = 40
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def json_text(value: Any) -> str:
    """``value`` as compact JSON that every database keeps; :class:`InvalidArgument` for what none of them may be given."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise InvalidArgument("a number is not finite (NaN or infinity): JSON cannot say that") from error
    if _ESCAPED_NUL.search(text):
        raise InvalidArgument("a text holds a NUL character: take it out")
    return plain(text)


def plain(text: str) -> str:
    """``text``, or :class:`InvalidArgument` when it is not one that UTF-8 can write, or holds a NUL."""
    if "\0" in text:
        raise InvalidArgument(f"{_begin(text)} holds a NUL character: take it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"{_begin(text)} holds half of a surrogate pair: it is not Unicode text"
        ) from error
    return text


def keepable(value: Any) -> Any:
    """``value`` with that escaped in its texts which :func:`plain` refuses: for what must be told, whatever it quotes."""
    if isinstance(value, str):
        return value.replace("\0", "\\0").encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {keepable(name): keepable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [keepable(one) for one in value]
    return value


def _begin(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


class TextColumn(TypeDecorator[str]):
    """Text of any length, without NUL and surrogates."""

    impl = PlainText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Refuses what one of the databases would not keep."""
        return None if value is None else plain(value)


class Stamp(TypeDecorator[str]):
    """A stamp, always of the same width."""

    impl = PlainText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Brings a stamp to the width that sorts."""
        return None if value is None else stamp(unstamp(value))


class JsonColumn(TypeDecorator[Any]):
    """JSON kept as text, which is the same on every database."""

    impl = PlainText
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """None is no value, not JSON's null."""
        return None if value is None else json_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """A damaged text is shown as such: it must not take the rows around it out of reach."""
        if value is None:
            return None
        try:
            return json.loads(value)
        except ValueError:
            return {"unreadable": value}
