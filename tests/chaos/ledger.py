"""What is acknowledged beside endpoints: tokens, what versions stand for, the audit.

Not here: endpoints (``checks``).
"""

from __future__ import annotations

from collections.abc import Collection

import httpx

from chaos.model import Endpoint, Refused, State, Write
from chaos.place import Place
from chaos.report import Report

_AUDIT_ROWS = 500


class Ledger:
    """Tokens, pins and reasons that a later start must know."""

    def __init__(self, place: Place, report: Report, endpoints: dict[str, Endpoint]) -> None:
        self._place, self._report, self._endpoints = place, report, endpoints
        self.tokens: dict[str, tuple[str, frozenset[bool]]] = {}
        """By id: the secret, and whether it may be accepted."""
        self.pins: dict[tuple[str, str], frozenset[int | None]] = {}
        """What a version of an endpoint may stand for; None: nothing."""
        self.reasons: list[tuple[str, str]] = []

    def carry_out(self, write: Write) -> None:
        """A write that is of no endpoint's traffic."""
        {"token": self._token, "revoke": self._revoke, "unpin": self._unpin}[write.kind](write)

    def pinned(self, name: str, state: State) -> None:
        """An acknowledged revision."""
        for version, factor in state.factors:
            self.pins[name, version] = frozenset({factor})

    def may_be_pinned(self, name: str, state: State) -> None:
        """A revision that may be there."""
        for version, factor in state.factors:
            self.pins[name, version] = self.pins.get((name, version), frozenset({None})) | {factor}

    def refuse_other_models(self, name: str, factors: tuple[tuple[str, int], ...]) -> None:
        """A name stands for its bytes."""
        for version, factor in factors:
            if not self.pins.get((name, version), frozenset({None})) & {factor, None}:
                raise Refused(f"{version} stands for another model")

    def _token(self, write: Write) -> None:
        name = f"t{len(self.tokens)}-{write.pick:.6f}"
        made = self._place.call("POST", "/tokens", json={"name": name, "role": "viewer"})
        self._report.answered(made)
        if made.kind == "done":
            body = httpx.Response(200, text=made.said).json()
            self.tokens[body["id"]] = (body["secret"], frozenset({True}))

    def _revoke(self, write: Write) -> None:
        live = [kid for kid, (_, accepted) in self.tokens.items() if True in accepted]
        if not live:
            self._token(write)
            return
        kid = live[int(write.pick * len(live))]
        revoked = self._place.call("DELETE", f"/tokens/{kid}")
        self._report.answered(revoked)
        secret, accepted = self.tokens[kid]
        if revoked.kind == "done":
            self.tokens[kid] = (secret, frozenset({False}))
        elif revoked.kind == "unknown":
            self.tokens[kid] = (secret, accepted | {False})
        else:
            self._report.violate(f"token {kid} could not be revoked: {revoked.said}")

    def _unpin(self, write: Write) -> None:
        key = (write.endpoint, write.version)
        state = self._endpoints[write.endpoint].now
        unpinned = self._place.call("DELETE", f"/models/{write.endpoint}/{write.version}")
        self._report.answered(unpinned)
        may = state is None or state.removed
        if unpinned.kind == "done":
            if not may:
                self._report.violate(f"{key} was unpinned while the endpoint has it")
            self.pins[key] = frozenset({None})
        elif unpinned.kind == "unknown":
            self.pins[key] = self.pins.get(key, frozenset()) | {None}
        elif may and None not in self.pins.get(key, frozenset({None})):
            self._report.violate(f"{key} could not be unpinned: {unpinned.said}")

    # === after a start ===

    def check(self) -> None:
        """Everything that was acknowledged."""
        for what in (*self.lost_tokens(), *self.lost_pins(), *self._lost_reasons()):
            self._report.violate(what)

    def lost_tokens(self) -> list[str]:
        """Tokens that are accepted or refused other than acknowledged."""
        found = []
        for kid, (secret, accepted) in self.tokens.items():
            answer = httpx.get(
                f"http://{self._place.gateway.addresses['admin']}/v1/whoami",
                headers={"Authorization": f"Bearer {secret}"},
                timeout=30,
            )
            if answer.status_code not in (200, 401):
                found.append(f"token {kid}: {answer.status_code} {answer.text}")
            elif (answer.status_code == 200) not in accepted:
                found.append(f"token {kid} is answered {answer.status_code}, and was acknowledged otherwise")
            else:
                self.tokens[kid] = (secret, frozenset({answer.status_code == 200}))
        return found

    def lost_pins(self) -> list[str]:
        """Versions that stand for something else than acknowledged."""
        answer = self._place.get("/models")
        if answer is None or not answer.is_success:
            return ["the models cannot be listed"]
        listed = {
            (model["endpoint"], model["version"]): self._place.digests.get(model["digest"], -1)
            for model in answer.json()["models"]
        }
        found = []
        for key, allowed in self.pins.items():
            if listed.get(key) in allowed:
                self.pins[key] = frozenset({listed.get(key)})
            else:
                found.append(f"{key} stands for {listed.get(key)}, and may stand for {set(allowed)}")
        return found

    def _lost_reasons(self) -> list[str]:
        recent = self.reasons[-_AUDIT_ROWS // 2 :]
        kept = self._kept_reasons({name for name, _ in recent})
        # Each is told once.
        self.reasons = [told for told in recent if told[1] in kept]
        return [f"the audit has lost {reason!r} of {name}" for name, reason in recent if reason not in kept]

    def _kept_reasons(self, names: Collection[str]) -> set[str]:
        kept = set()
        for name in names:
            answer = self._place.get(f"/audit?endpoint={name}&limit={_AUDIT_ROWS}")
            if answer is not None and answer.is_success:
                kept |= {entry["reason"] for entry in answer.json()["entries"]}
        return kept
