"""The call that tests the webhooks of an endpoint.

Not here: what webhooks are told (``headgate.notify``). Next: ``table``.
"""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from headgate.admin import bodies
from headgate.admin.admin_request import AdminRequest
from headgate.admin.table import ApiCall
from headgate.control import Control
from headgate.control.writes.notifications import WebhookTests
from headgate.errors import InvalidArgument


def notify_calls(control: Control) -> list[ApiCall]:
    """The rows of the table of calls."""

    async def test(request: AdminRequest) -> Response:
        call = request.call(request.read(bodies.ReasonBody).reason)
        if call.key is not None:
            raise InvalidArgument("Idempotency-Key: a test changes nothing; send none")
        return JSONResponse(await control.notifications.test(request.endpoint, call, control.audit_log))

    return [
        ApiCall(
            "POST",
            "/v1/endpoints/{endpoint}/notify:test",
            "operator",
            test,
            WebhookTests,
            "Sends a test message to each webhook of the document (notify), and says what became of it.",
            bodies.ReasonBody,
            "json",
        )
    ]
