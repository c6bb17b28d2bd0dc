"""The log of a process: a line on stderr for each record, with time, level, logger, message and fields.

JSON when no terminal reads it, text when one does. A line never holds what a terminal would obey, nor a second line: messages
quote documents, names and paths that others wrote. stdlib's logging and no library beside it: what is written by others comes
through stdlib's in any case, and the two formats are all that is left to do. Next: streams.py.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from headgate.gateway.streams import Output

FORMS = ("auto", "json", "text")
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
#: The package's own records; others tell from ``warning`` on.
_OURS = "headgate"
_log = logging.getLogger(_OURS)
_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(form: str, level: str, descriptor: int = 2) -> bool:
    """Has the whole process log to ``descriptor``; whether that is as text for a person."""
    text = form == "text" or (form == "auto" and os.isatty(descriptor))
    handler = StreamHandler(Output(descriptor), TextFormatter() if text else JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(_OURS).setLevel(LEVELS[level])
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed
    sys.unraisablehook = _not_raised
    return text


class StreamHandler(logging.Handler):
    """Writes records as lines; says how many were lost once there is room again."""

    def __init__(self, output: Output, formatter: logging.Formatter) -> None:
        super().__init__()
        self._output = output
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        lost = self._output.lost
        if self._output.write(self._line(record)) and lost:
            self._output.lost = 0
            note = f"{lost} lines of this log were lost before this one: they were not read in time"
            self._output.write(
                self._line(
                    _log.makeRecord(_OURS, logging.WARNING, "", 0, note, (), None, extra={"lost": lost})
                )
            )

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as error:
            # A record with arguments that do not fit its message is a defect, and no reason to lose what it says.
            record.msg, record.args = f"{record.msg} {record.args!r} ({error})", ()
            return self.format(record)


class JsonFormatter(logging.Formatter):
    """An object for each record, its fields beside ``time``, ``level``, ``logger`` and ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        line["message"] = record.getMessage()
        line |= {key: value for key, value in fields(record).items() if key not in line}
        if trace := _trace(self, record):
            line["exception"] = trace
        return json.dumps(line, ensure_ascii=False, default=str).translate(_NOT_HARMLESS)


class TextFormatter(logging.Formatter):
    """``TIME LEVEL LOGGER MESSAGE key=value ...``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        level = record.levelname.lower()
        parts = [f"{_time(record)} {level:7} {record.name.removeprefix(_OURS + '.')}: {record.getMessage()}"]
        parts += [f"{key}={json.dumps(value, default=str)}" for key, value in fields(record).items()]
        if trace := _trace(self, record):
            parts.append(trace)
        return escaped(" ".join(parts))


def fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """What was logged with ``extra``."""
    return {key: value for key, value in vars(record).items() if key not in _KNOWN}


def escaped(text: str) -> str:
    """The same on one line, with whatever is not printable written as Python would write it."""
    lines = " | ".join(line.strip() for line in text.splitlines())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in lines)


#: JSON leaves these as they are. Readers take some for ends of lines, terminals obey some.
_NOT_HARMLESS = {
    code: f"\\u{code:04x}" for code in [*range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
}


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    if record.exc_info and record.exc_info[0] is not None:
        return formatter.formatException(record.exc_info)
    return record.exc_text or None


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None and failure.exc_type is not SystemExit:
        name = failure.thread.name if failure.thread else "?"
        _failed(f"thread {name} ended by an exception", failure.exc_value, failure.exc_traceback)


def _not_raised(failure: Any) -> None:
    if failure.exc_value is not None:
        words = failure.err_msg or "an exception that nobody could take"
        _failed(f"{words}: {failure.object!r}", failure.exc_value, failure.exc_traceback)


def _failed(message: str, error: BaseException, trace: TracebackType | None) -> None:
    _log.error("%s", message, exc_info=(type(error), error, trace))
