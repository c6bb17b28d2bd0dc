"""The admin port: HTTP around ``control``, with tokens, roles and problems.

Read in this order: ``guard`` (which callers may connect), ``admin_request`` (what a request says), ``table`` (every call),
``endpoints`` and ``rest`` (the handlers), ``openapi``. Not here: what a call means (``control``). The calls: ``docs/design/admin-api.md``.
"""

from headgate.admin.app import create_app
from headgate.admin.tokens import Principal, Tokens, TokenView

__all__ = ["Principal", "TokenView", "Tokens", "create_app"]
