"""Every exception that Headgate raises, one sentence each: when it is raised.

The codes are the rows of the table in ``rust/core/src/error.rs``; ``from_code`` gives the class of a code.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar


class HeadgateError(Exception):
    """The base of all; ``code`` is the row of the closed error table, ``detail`` holds structured facts."""

    code: ClassVar[str] = "internal"
    audited = False
    """Whether the audit tells of it already."""

    def __init__(self, message: str, *, detail: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail or {}


class InvalidArgument(HeadgateError):
    """The caller's argument or request is malformed."""

    code = "invalid_argument"


class Unauthenticated(HeadgateError):
    """No token was given, or one that is not known."""

    code = "unauthenticated"


class PermissionDenied(HeadgateError):
    """The token is known, its role does not allow the call."""

    code = "permission_denied"


class NotFound(HeadgateError):
    """The endpoint, version, revision or operation does not exist."""

    code = "not_found"


class ModelNotFound(NotFound):
    """No endpoint has that name."""

    code = "model_not_found"


class VersionNotFound(NotFound):
    """The endpoint has no version of that name."""

    code = "version_not_found"


class PayloadTooLarge(HeadgateError):
    """The body is larger than the limit."""

    code = "payload_too_large"


class UnsupportedMediaType(HeadgateError):
    """The body's ``Content-Encoding`` is not one that is decoded here."""

    code = "unsupported_media_type"


class Misdirected(HeadgateError):
    """The ``Host`` header names a server that this one is not."""

    code = "misdirected"


class Unsupported(HeadgateError):
    """The method or field exists in the design but not here."""

    code = "unsupported"


class ModelNotReady(HeadgateError):
    """The version is known but cannot answer yet."""

    code = "model_not_ready"


class Draining(HeadgateError):
    """The gateway is about to stop and takes nothing new."""

    code = "draining"


class StorageFailed(HeadgateError):
    """The state could not be read or written."""

    code = "storage_failed"


class Internal(HeadgateError):
    """A defect of Headgate itself."""


def is_out_of_descriptors(error: OSError) -> bool:
    """Whether the process or the machine has no file descriptor left: nobody who called is at fault, and later it works."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


class Conflict(HeadgateError):
    """The write contradicts the present state."""

    code = "conflict"


class RevisionConflict(HeadgateError):
    """``If-Match`` names a revision that is not the present one."""

    code = "revision_conflict"


class PreconditionRequired(HeadgateError):
    """The write needs ``If-Match`` or ``If-None-Match``."""

    code = "precondition_required"


class PolicyInvalid(HeadgateError):
    """The document has faults; ``detail["faults"]`` lists every one with its path."""

    code = "policy_invalid"


class ModelLoadFailed(HeadgateError):
    """A version could not be loaded; the running revision keeps serving."""

    code = "model_load_failed"


def _tree(root: type[HeadgateError]) -> list[type[HeadgateError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


_BY_CODE: dict[str, type[HeadgateError]] = {cls.code: cls for cls in reversed(_tree(HeadgateError))}


def from_code(code: str, message: str, detail: dict[str, Any] | None = None) -> HeadgateError:
    """The exception of ``code``; a code without a class of its own gives the base with ``code`` set on it."""
    cls = _BY_CODE.get(code)
    if cls is not None:
        return cls(message, detail=detail)
    error = HeadgateError(message, detail=detail)
    error.code = code  # type: ignore[misc]
    return error
