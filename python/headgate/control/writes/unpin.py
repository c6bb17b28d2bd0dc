"""Takes a version's name from the bytes that it stands for, so that it may come with others. Never while it is in use.

Not here: how names are pinned (``store.pins``), which files are refused for it (``registry``). Next: ``service``.
"""

from __future__ import annotations

from headgate.control.domain.calls import Call
from headgate.control.domain.results import PinView
from headgate.control.writes.audit import audit_record
from headgate.control.writes.context import Context
from headgate.control.writes.endpoint import EndpointState
from headgate.errors import Conflict, VersionNotFound
from headgate.registry import Registry
from headgate.store import seconds


async def unpin(
    context: Context, registry: Registry, state: EndpointState, version: str, call: Call
) -> PinView:
    """:class:`Conflict` while the endpoint has the version or is being changed. A damaged pin is renewed to what is served."""
    if state.turn.locked():
        raise Conflict(f"a change of {state.name} is in progress; ask again when it has ended")
    audit = audit_record(call, context.now(), "unpin", (state.name, None), ("applied", {}))
    served = None if state.current is None else state.current.spec.digests().get(version)
    pins = context.store.pins
    # The turn is held, so that no write pins the name meanwhile.
    async with state.turn:
        if served is None:
            pin = await context.write(lambda: pins.remove(state.name, version, audit))
        else:
            pin = await context.write(lambda: pins.renew(state.name, version, served, audit))
    if pin is None and served is not None:
        raise Conflict(
            f"{state.name} has version {version}: what is served never changes under its name; take the version out of the "
            "document first, or give the new model a new version"
        )
    if pin is None:
        raise VersionNotFound(f"version {version} of {state.name} stands for nothing yet")
    registry.forget(state.name, version)
    return PinView(endpoint=pin.endpoint, version=pin.version, digest=pin.digest, pinned=seconds(pin.when))
